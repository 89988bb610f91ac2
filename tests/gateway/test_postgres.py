"""The same gateway on a real PostgreSQL, which the tests start where its programs are."""

import asyncio
import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from config.settings import GatewaySettings, read_settings
from gateway.admin import audit
from gateway.database import Database, open_engine
from gateway.restored import after_restore
from gateway.rotation import check_key, rotate
from gateway.vault import KEY_ENCRYPTION_KEY, SecretError, Vault
from node.protocol.address import decode_address
from scripts.devnet.postgres import find_programs
from tests.gateway.listener import Listener
from tests.gateway.test_database import differences
from tests.gateway.test_mails import mails
from tests.gateway.test_payment_files import act, bring, ended, look, results
from tests.gateway.test_scheduled_payments import PATH, asked
from tests.gateway.world import World
from tests.odd_texts import assert_refused_everywhere
from tests.payment_stories import PaymentStories
from tests.person import PASSWORD, Person
from tests.receiver import Receiver
from tests.waiting import until


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Iterator[World]:
    with closing(World(tmp_path_factory.mktemp("postgres"), {"database": new_database()})) as made:
        made.start_gateway()
        yield made


@pytest.fixture
def person(world: World) -> Callable[[], Person]:
    return world.person


class TestPayments(PaymentStories):
    """The stories of paying."""


def test_a_gateway_that_is_killed_goes_on_with_what_it_took_in(world: World) -> None:
    made = world.deal(0, 1)
    file = bring(made, *(f"{made.till['id']},USD,0.01,,{number}" for number in range(200))).json()
    with world.network.switched(hold=True):
        pending = made.pay("4.00")
        act(made.ann, file, "confirm")
        until(lambda: look(made.ann, file)["lines"]["waiting"] < 200, "some are handed in")
        world.gateway.kill()
    world.start_gateway()
    until(lambda: made.ann.http.post("/v1/auth/login", json={"email": made.ann.email, "password": PASSWORD}).is_success)
    assert made.ann.transfer(pending["id"], wait=30)["status"] == "committed"
    assert ended(made.ann, file)["lines"]["paid"] == 200
    until(lambda: made.available() == ("4.00", "6.00"), "each is paid, and once")


def test_events_reach_streams_and_webhooks(world: World) -> None:
    made = world.deal()
    with closing(Receiver()) as shop, closing(Listener(made.bob)) as listener:
        endpoint = {"url": shop.url, "events": ["*"]}
        assert made.bob.post("/v1/webhook-endpoints", endpoint).status_code == 201
        paid = made.pay("1.00")["id"]
        (told,), (got,) = listener.wait(1), shop.wait(1)
        assert (told.event, told.data["data"]["id"]) == ("transfer.received", paid)
        assert got.event == told.data


def test_histories_balances_and_statements_are_read_alike(world: World) -> None:
    made = world.deal(0, 1)
    for memo in ("Straße 1", "2"):
        assert made.pay("1.00", memo=memo, wait=15)["status"] == "committed"
    ann, purse = made.ann, made.purse["id"]
    first = ann.get("/v1/transfers", limit=2).json()
    rest = ann.get("/v1/transfers", limit=2, cursor=first["next_cursor"]).json()
    assert [line["balance"] for line in first["items"] + rest["items"]] == ["8.00", "9.00", "10.00"]
    found = ann.get("/v1/transfers", text="STRASSE", status="committed", direction="sent", counterparty=made.till["address"])
    assert [line["balance"] for line in found.json()["items"]] == ["9.00"]
    assert ann.get(f"/v1/wallets/{purse}/balance").json()["balances"]["USD"]["available"] == "8.00"
    rows = ann.get(f"/v1/statements/{purse}.csv").text.splitlines()
    assert [row.split(",")[-2] for row in rows[1:]] == ["0.00", "10.00", "9.00", "8.00", "8.00"]


def test_what_is_planned_is_paid_and_told(world: World) -> None:
    made = world.deal()
    made.ann.verify()
    file = bring(made, f"{made.till['id']},USD,1.00,,", f"nobody-{made.bob.email},USD,2.00,工资,").json()
    act(made.ann, file, "confirm")
    planned = [made.ann.post(PATH, asked(made, 2, amount=amount)).json() for amount in ("3.00", "99.00")]
    assert ended(made.ann, file)["lines"]["paid"] == 2
    assert [row["status"] for row in results(made.ann, file)] == ["paid", "paid"]
    paid = until(lambda: one if (one := made.ann.get(f"{PATH}/{planned[0]['id']}").json())["status"] == "completed" else {})
    assert paid["last_run"]["status"] == "paid"
    told = mails(world, made.ann.email, 3)[:2]
    assert {one["subject"] for one in told} == {"A payment file has been paid", "A scheduled payment waits for money"}
    assert made.ann.http.delete(f"{PATH}/{planned[1]['id']}").json()["last_run"]["code"] == "canceled"
    assert made.available() == ("4.00", "4.00")


def test_the_migrations_make_what_the_tables_say(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database())
    assert differences(engine) == []
    engine.dispose()


def test_everything_is_sealed_again_under_another_key(world: World) -> None:
    made, new = world.deal(), secrets.token_bytes(32)
    old = bytes.fromhex(world.gateway.environment[KEY_ENCRYPTION_KEY])
    assert made.ann.pay(made.purse, "nobody@example.org", "1.00", wait=20).status_code == 200
    engine = open_engine(read_settings(GatewaySettings, world.gateway.config).database)
    assert rotate(engine, Vault(new, old)) == 0
    check_key(engine, Vault(new))
    with pytest.raises(SecretError):
        check_key(engine, Vault(old))
    assert rotate(engine, Vault(old, new)) == 0
    engine.dispose()
    assert made.pay("1.00", wait=20)["status"] == "committed"


def test_the_audit_log_is_one_chain_however_many_write_it(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database())

    def write(who: int) -> None:
        for number in range(25):
            with engine.begin() as connection:
                audit.record(connection, f"user {who}", "login", "", number=number)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    with engine.connect() as connection:
        head, wrong = audit.verify(connection)
    assert (head.number, wrong) == (50, "")
    engine.dispose()


def test_a_dump_is_put_back_as_the_documents_say(world: World, new_database: Callable[[], str], tmp_path: Path) -> None:
    programs, made, url = find_programs("pg_dump", "pg_restore"), world.deal(), new_database()
    source, file = read_settings(GatewaySettings, world.gateway.config).database, tmp_path / "gateway.dump"
    subprocess.run([str(programs["pg_dump"]), "--format=custom", f"--file={file}", source], check=True)
    subprocess.run([str(programs["pg_restore"]), "--exit-on-error", f"--dbname={url}", str(file)], check=True)
    engine = open_engine(url)
    assert differences(engine) == []
    vault = Vault(bytes.fromhex(world.gateway.environment[KEY_ENCRYPTION_KEY]))
    assert after_restore(engine, vault, 900, "tried") >= 2
    with engine.connect() as connection:
        assert audit.verify(connection).wrong == ""
        query = text("SELECT available FROM balances WHERE address = :address")
        assert connection.execute(query, {"address": decode_address(made.purse["address"])}).scalar() == 1000
        assert connection.execute(text("SELECT count(*) FROM sessions WHERE NOT ended")).scalar() == 0
    engine.dispose()


def test_one_change_that_fails_undoes_none_of_those_written_with_it(new_database: Callable[[], str], tmp_path: Path) -> None:
    def put(number: int) -> Callable[[Connection], int]:
        def change(connection: Connection) -> int:
            connection.execute(text("INSERT INTO epochs VALUES (:number, '')"), {"number": number})
            if number == 2:
                connection.execute(text("SELECT nonsense"))
            return number

        return change

    async def story() -> None:
        database = Database(open_engine(new_database()))
        done = await asyncio.gather(*(database.write(put(number)) for number in range(4)), return_exceptions=True)
        assert [result for result in done if isinstance(result, int)] == [0, 1, 3]
        kept = await database.read(lambda c: c.execute(text("SELECT number FROM epochs ORDER BY number")).scalars().all())
        assert list(kept) == [0, 1, 3]
        database.close()

    asyncio.run(story())


def test_a_text_with_nul_or_half_a_character_is_refused_wherever_it_is(world: World) -> None:
    assert_refused_everywhere(world.deal(0, 1))
