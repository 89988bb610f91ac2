"""The database's threads: what is asked at once is one transaction, and nobody hears of what is not durable."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, insert
from sqlalchemy.exc import IntegrityError

import gateway.service  # noqa: F401 - imports all tables
from gateway.database import Base, Database, open_engine
from gateway.identity.tables import User
from gateway.projection import Tracked
from gateway.rows import tracked_row, transfer_row
from gateway.statements import ADD_TRANSFER
from node.protocol.chain import Chain
from node.protocol.codec import encode
from tests.chains import Network, key

Story = Callable[[Database, list[str]], Awaitable[None]]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Database, list[str]]]:
    """A database, and what its connections do: "begin", "commit", "rollback"."""
    engine, done = open_engine(f"sqlite:///{folder}/gateway.db"), list[str]()
    for name in ("begin", "commit", "rollback"):
        event.listen(engine, name, lambda _, name=name: done.append(name))
    database = Database(engine)
    try:
        yield database, done
    finally:
        database.close()


@pytest.fixture
def told(tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story on asyncio."""

    async def tell(story: Story) -> None:
        async with opened(tmp_path) as (database, done):
            await story(database, done)

    return lambda story: asyncio.run(tell(story))


def put(number: int) -> Callable[[Connection], int]:
    def change(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO epochs VALUES (?, ?)", (number, b""))
        return number

    return change


def failing(connection: Connection) -> int:
    put(1000)(connection)
    raise ArithmeticError


def stored(folder: Path) -> set[int]:
    with sqlite3.connect(folder / "gateway.db") as other:
        return {number for (number,) in other.execute("SELECT number FROM epochs")}


def test_all_that_is_asked_at_once_is_one_transaction_and_answered_when_it_is_durable(
    told: Callable[[Story], None], tmp_path: Path
) -> None:
    async def story(database: Database, done: list[str]) -> None:
        async def write(number: int) -> None:
            assert await database.write(put(number)) == number
            assert number in stored(tmp_path)

        await asyncio.gather(*map(write, range(50)))
        assert done == ["begin", "commit"]

    told(story)


def test_what_is_asked_while_a_group_is_written_waits_for_the_next(told: Callable[[Story], None]) -> None:
    async def story(database: Database, done: list[str]) -> None:
        loop, later, asked = asyncio.get_running_loop(), list[asyncio.Task[int]](), threading.Event()

        def ask(number: int = 1) -> None:
            """One in each turn of the loop."""
            later.append(loop.create_task(database.write(put(number))))
            if number < 19:
                loop.call_soon(ask, number + 1)
            else:
                loop.call_soon(asked.set)

        def slow(connection: Connection) -> int:
            loop.call_soon_threadsafe(ask)
            assert asked.wait(10)
            return put(0)(connection)

        await database.write(slow)
        await asyncio.gather(*later)
        assert done == ["begin", "commit"] * 2

    told(story)


def test_one_that_fails_fails_alone_and_leaves_nothing(told: Callable[[Story], None], tmp_path: Path) -> None:
    async def story(database: Database, _: list[str]) -> None:
        changes: list[Callable[[Connection], Any]] = [put(1), failing, put(2), put(1), put(3)]
        results = await asyncio.gather(*map(database.write, changes), return_exceptions=True)
        assert [isinstance(one, Exception) for one in results] == [False, True, False, True, False]
        assert stored(tmp_path) == {1, 2, 3}
        assert await database.write(put(4)) == 4, "and the thread goes on"

    told(story)


def test_a_question_that_fails_fails_alone(told: Callable[[Story], None]) -> None:
    async def story(database: Database, _: list[str]) -> None:
        def count(connection: Connection) -> Any:
            return connection.exec_driver_sql("SELECT count(*) FROM epochs").scalar()

        def broken(_: Connection) -> Any:
            raise ArithmeticError

        answers = await asyncio.gather(*map(database.read, (count, broken, count)), return_exceptions=True)
        assert [answers[0], type(answers[1]), answers[2]] == [0, ArithmeticError, 0]
        await database.write(put(1))
        assert await database.read(count) == 1, "a question sees all that was durable before"

    told(story)


def test_who_gave_up_waiting_takes_nobody_with_him(told: Callable[[Story], None], tmp_path: Path) -> None:
    async def story(database: Database, _: list[str]) -> None:
        leaving, staying = (asyncio.create_task(database.write(put(number))) for number in (1, 2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == 2
        assert stored(tmp_path) == {1, 2}

    told(story)


def test_the_loop_is_never_held_up_by_the_disk(told: Callable[[Story], None]) -> None:
    async def story(database: Database, _: list[str]) -> None:
        threads = {await database.read(lambda _: threading.get_ident()), await database.write(lambda _: threading.get_ident())}
        assert len(threads | {threading.get_ident()}) == 3

    told(story)


def test_an_error_shows_nothing_of_what_was_to_be_stored(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")
    row = {"id": "1", "email": "ann@example.org", "name": "Ann", "password_hash": "hash of a password", "created_at": 1}
    with engine.begin() as connection:
        connection.execute(insert(User), row)
        with pytest.raises(IntegrityError) as error:
            connection.execute(insert(User), row)
    engine.dispose()
    assert "users" in str(error.value)
    assert not any(str(value) in str(error.value) for value in (row["email"], row["password_hash"]))


def test_what_is_here_and_there_in_a_table_is_written_in_small_pieces_and_copied_out_of_the_log_rarely(tmp_path: Path) -> None:
    engine, log = open_engine(f"sqlite:///{tmp_path}/gateway.db"), tmp_path / "gateway.db-wal"
    connection = engine.connect()

    def add(numbers: range) -> None:
        legs = Network().pay(key("a"), key("b"), 5).order.legs
        made = [Tracked(number.to_bytes(4) * 8, legs, "", bytes(300), Chain(1, 0), frozenset({0}), 0, True) for number in numbers]
        with connection.begin():
            ADD_TRANSFER.run_all(connection, [transfer_row(tracked, "u") for tracked in made])

    add(range(0, 1 << 16, 20))
    connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.rollback()
    for number in range(10, 1 << 16, 1 << 11):
        add(range(number, number + 1))
    assert log.stat().st_size < 32 * (10 << 10), "each in a transaction of its own"
    for number in range(30, 1 << 16, 1 << 8):
        add(range(number, number + (1 << 8), 20))
    assert 5 << 20 < log.stat().st_size < 20 << 20
    connection.close()
    engine.dispose()


def differences(engine: Engine) -> list[Any]:
    """Between the tables that the migrations made and those that the models describe."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")
    assert differences(engine) == []
    engine.dispose()


def test_histories_from_before_they_could_be_searched_are_kept(tmp_path: Path) -> None:
    url, order = f"sqlite:///{tmp_path}/gateway.db", Network().pay(key("a"), key("b"), 5, memo="Straße")
    transaction_id = order.id
    engine = create_engine(url)
    config = alembic.config.Config()
    config.set_main_option("script_location", "gateway/migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0006")
        run = connection.exec_driver_sql
        run("INSERT INTO users (id, email, name, password_hash, created_at) VALUES ('u', 'e', 'n', 'h', 0)")
        wallet = "INSERT INTO wallets (id, user_id, label, address, public_key, created_at) VALUES ('w', 'u', '', ?, ?, 0)"
        run(wallet, (order.order.legs[0].payer, key("a").public))
        row = (transaction_id, "transfer", encode(order), 0, "[0]", "committed", "", "", 7, "[0]", 9, 100, 200)
        run(
            "INSERT INTO transfers (transaction_id, kind, payload, home_shard, shards, status, code, hint, height, committed_in,"
            " valid_until, created_at, finalized_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        run("INSERT INTO postings (wallet_id, transaction_id, leg, direction) VALUES ('w', ?, 0, 'sent')", (transaction_id,))
    engine.dispose()
    with open_engine(url).connect() as connection:
        (line,) = connection.exec_driver_sql("SELECT * FROM postings").mappings()
        assert (line["user_id"], line["direction"], line["counterparty"], line["at"]) == (
            "u",
            "sent",
            order.order.legs[0].payee,
            100,
        )
        (transfer,) = connection.exec_driver_sql("SELECT * FROM transfers").mappings()
        assert (transfer["text"], tracked_row(transfer).committed) == ("strasse", {0: 7})
