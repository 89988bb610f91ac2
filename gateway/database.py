"""The gateway's database: its tables, its engine, and who reads and writes it."""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import alembic.command
import alembic.config
import psycopg
import sqlalchemy.exc
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gateway.problems import Problem

T = TypeVar("T")
Work = Callable[[Connection], Any]
Asked = tuple[Work, "asyncio.Future[Any]"]
_LOST = (sqlite3.OperationalError, psycopg.OperationalError, sqlalchemy.exc.OperationalError)
"""The database was not to be reached, or ended a transaction that stood still."""
FENCE: ContextVar[Callable[[Connection], None] | None] = ContextVar("FENCE", default=None)
"""Of a task that writes only while something holds: what raises when it does not, in each of its writes."""
MAX_WAITING = 20_000
MAX_GROUP = 500
_REST = 2.0
"""Times as long as a group took, its thread rests, but not longer than ``_LONGEST_REST`` seconds."""
_LONGEST_REST = 0.004
_PRAGMAS = (
    "page_size=2048",  # of a new file: a payment changes a row here and there in a dozen indexes, and each is a page in the log
    "busy_timeout=10000",
    "journal_mode=WAL",
    "wal_autocheckpoint=8192",  # pages: what is changed again within 16 MB is copied out of the log once
    "synchronous=FULL",
    "foreign_keys=ON",
)
_WRITES = "writes"
_WRITE_LOCK = 0x73686172647061  # of this database alone: any number that nobody else takes
_ARGUMENTS: dict[str, dict[str, Any]] = {
    # A process that stands still in the middle of a write holds up all others: the server ends its transaction.
    "postgresql+psycopg": {"options": "-c idle_in_transaction_session_timeout=3000"},
}


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger().with_variant(Integer, "sqlite"), bytes: LargeBinary}


class Wallet(Base):
    """A key pair. ``sealed_key``: None when its owner keeps the private key."""

    __tablename__ = "wallets"
    __table_args__ = (Index("wallets_of_user", "user_id", "created_at"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    label: Mapped[str] = mapped_column(String(100))
    address: Mapped[bytes] = mapped_column(unique=True)
    public_key: Mapped[bytes]
    sealed_key: Mapped[bytes | None]
    archived: Mapped[bool]
    created_at: Mapped[int]


UNDER_WAY = text("status IN ('queued', 'submitted', 'prepared')")
"""Of transfers; in these words, so that the index is used."""
WAITING = text("status IN ('queued', 'submitted')")
"""Of transfers: no block of their home shard has taken them in."""
HANDED_IN = text("kind = 'raw' AND status IN ('queued', 'submitted')")
"""Of transfers: those of them that were signed elsewhere."""


class Transfer(Base):
    """A transaction and where it stands. ``user_id``: who handed it in here; None when it was found in a block.

    ``home_shard``, ``shards``: those that it touches in ``epoch``, in which a block took it in, or the latest. ``height``: of
    the home shard's last receipt. ``committed_in``: of the block that committed it, by shard, as JSON. ``text``: its memo, as
    it is searched for.
    """

    __tablename__ = "transfers"
    __table_args__ = (
        Index("transfers_under_way", "valid_until", sqlite_where=UNDER_WAY, postgresql_where=UNDER_WAY),
        Index("transfers_handed_in", "user_id", sqlite_where=HANDED_IN, postgresql_where=HANDED_IN),
    )
    transaction_id: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str | None] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(12))
    payload: Mapped[bytes]
    epoch: Mapped[int] = mapped_column(server_default="1")
    home_shard: Mapped[int]
    shards: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(12))
    code: Mapped[str] = mapped_column(String(32))
    hint: Mapped[str] = mapped_column(String(32))
    height: Mapped[int | None]
    committed_in: Mapped[str] = mapped_column(String(1000))
    text: Mapped[str] = mapped_column(String(420))
    valid_until: Mapped[int]
    created_at: Mapped[int]
    finalized_at: Mapped[int | None]


class Posting(Base):
    """A line in a wallet's history: one leg of a transfer, seen from one side.

    ``at``: when it came to be: of what is sent when it was handed in, of what is received when it had arrived. Lines are listed
    by it, so that a page that was read stays as it is. ``counterparty``: the address on the other side.
    """

    __tablename__ = "postings"
    __table_args__ = (
        Index("postings_once", "transaction_id", "leg", "direction", unique=True),
        Index("postings_of_wallet", "wallet_id", "at", "id"),
        Index("postings_of_user", "user_id", "at", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    wallet_id: Mapped[str] = mapped_column(ForeignKey("wallets.id"))
    user_id: Mapped[str] = mapped_column(String(32))
    transaction_id: Mapped[bytes] = mapped_column(ForeignKey("transfers.transaction_id"))
    leg: Mapped[int]
    direction: Mapped[str] = mapped_column(String(8))
    asset: Mapped[str] = mapped_column(String(12))
    counterparty: Mapped[bytes]
    at: Mapped[int]


class ReceivingAddress(Base):
    """Where a payment to an e-mail address went. ``wallet_id``: None while nobody has claimed it. ``returned``: by which transfer
    the money was given back."""

    __tablename__ = "receiving_addresses"
    address: Mapped[bytes] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), index=True)
    wallet_id: Mapped[str | None] = mapped_column(ForeignKey("wallets.id"), index=True)
    public_key: Mapped[bytes]
    sealed_key: Mapped[bytes]
    transaction_id: Mapped[bytes]
    returned: Mapped[bytes | None]
    created_at: Mapped[int]


class IdempotencyKey(Base):
    """``made``: the id of what the request made."""

    __tablename__ = "idempotency_keys"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fingerprint: Mapped[bytes]
    made: Mapped[bytes]
    created_at: Mapped[int]


class AccountBalance(Base):
    """What a wallet's address holds of an asset, as of the block at ``height`` of its shard in ``epoch``."""

    __tablename__ = "balances"
    address: Mapped[bytes] = mapped_column(primary_key=True)
    asset: Mapped[str] = mapped_column(String(12), primary_key=True)
    available: Mapped[int]
    held: Mapped[int]
    frozen: Mapped[bool]
    epoch: Mapped[int] = mapped_column(server_default="1")
    height: Mapped[int]


class Owed(Base):
    """What is going to come off what an address has of an asset: reservations, and transfers under way, until a block of the
    address's shard says what they take, or their home shard that they take nothing."""

    __tablename__ = "owed"
    address: Mapped[bytes] = mapped_column(primary_key=True)
    asset: Mapped[str] = mapped_column(String(12), primary_key=True)
    units: Mapped[int]


class BalanceChange(Base):
    """What a wallet's address held of an asset right after a block that changed it. ``time``: block time; 0: before
    it was followed."""

    __tablename__ = "balance_changes"
    __table_args__ = {"sqlite_with_rowid": False}
    address: Mapped[bytes] = mapped_column(primary_key=True)
    asset: Mapped[str] = mapped_column(String(12), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    height: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[int]
    available: Mapped[int]
    held: Mapped[int]


class Cursor(Base):
    """The last block of a chain whose effects are in this database; height 0: all it comes from is in it."""

    __tablename__ = "cursors"
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    height: Mapped[int]
    hash: Mapped[bytes]
    time: Mapped[int]


class BlockReceipts(Base):
    """The receipts of a block that was taken in lately, for who hands in a transaction that it had. ``time``: block time.
    ``receipts``: as a block has them, encoded."""

    __tablename__ = "receipts"
    __table_args__ = (Index("receipts_by_time", "time"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    epoch: Mapped[int]
    shard: Mapped[int]
    height: Mapped[int]
    time: Mapped[int]
    receipts: Mapped[bytes]


class EpochRecord(Base):
    """What shows which document was in force in each epoch, so that a start needs nobody: of the first the ``Opening``, of others
    the ``Succession``."""

    __tablename__ = "epochs"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    document: Mapped[bytes]


def now_ms() -> int:
    """Wall clock, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


def insert(connection: Connection, model: type[Base]) -> Any:
    """An INSERT that takes an ON CONFLICT clause, for the database in use."""
    return postgresql.insert(model) if connection.dialect.name == "postgresql" else sqlite.insert(model)


def open_engine(url: str) -> Engine:
    """An engine with the tables brought up to date. Raises SQLAlchemyError or OSError when the database cannot be used."""
    address = make_url(url)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    # Errors are logged, what is stored is not.
    engine = create_engine(
        address, pool_size=2, pool_timeout=5, hide_parameters=True, connect_args=_ARGUMENTS.get(address.drivername, {})
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", _begin_postgresql)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _writing(engine) as connection, connection.begin():
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: ours, below, cover reads and DDL too
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _writing(engine: Engine) -> Connection:
    """A connection whose transactions write. Of all processes one at a time does: what it reads stays so until it commits, ids
    grow in the order in which rows become visible, and no two can wait for each other. SQLite has no other way; PostgreSQL is
    told to do the same, because many writes in one transaction take little longer than one."""
    return engine.connect().execution_options(**{_WRITES: True})


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.connection.driver_connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")  # type: ignore[union-attr]  # it is open


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get(_WRITES):
        connection.connection.cursor().execute(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")


class _Lane:
    """Runs what is asked of the database in one thread, all that waits in one transaction: a transaction, a commit and a change
    of threads cost more than most of what is done in them. So a thread rests a little after each group, and the next is larger;
    what is asked of one that has rested is run at once, with all that is asked in the same turn of the loop."""

    def __init__(self, name: str, run_group: Callable[[list[Work]], list[Any]]) -> None:
        self._run_group = run_group
        self._groups: SimpleQueue[list[Asked] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.waiting: deque[Asked] = deque()

    async def do(self, work: Callable[[Connection], T]) -> T:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        done: asyncio.Future[T] = self._loop.create_future()
        self.waiting.append((work, done))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next)
        return await done

    def _next(self) -> None:
        group = [self.waiting.popleft() for _ in range(min(len(self.waiting), MAX_GROUP))]
        if group:
            self._groups.put(group)
        else:
            self._busy = False

    def _work(self) -> None:
        while (group := self._groups.get()) is not None:
            begun = time.monotonic()
            results = self._run_group([work for work, _ in group])
            rest = min(_REST * (time.monotonic() - begun), _LONGEST_REST)
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._settle, group, results, rest)

    def _settle(self, group: list[Asked], results: list[Any], rest: float) -> None:
        for (_, done), result in zip(group, results, strict=True):
            if done.cancelled():
                continue
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
        assert self._loop is not None
        self._loop.call_later(rest, self._next)

    def close(self) -> None:
        """When the group that is being run is done."""
        self._groups.put(None)
        if self._thread.is_alive():
            self._thread.join()


class _Kept:
    """A connection that is kept from one transaction to the next, and given back to the engine after an error."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        if self._connection is None:
            self._connection = self._connect()
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Database:
    """Reads in one thread, writes in another, both grouped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading, self._writing = _Kept(engine.connect), _Kept(partial(_writing, engine))
        self._reads = _Lane("reader", self._read)
        self._writes = _Lane("writer", self._commit)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """The result of ``query``, which sees all that was durable when this was called. Raises what it raises."""
        return await self._reads.do(query)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Apply ``change`` and return its result once it is durable. Changes apply in the order of the calls.

        ``change`` may run twice (the first time undone), so it must do nothing but database work. Raises what it raises.
        """
        if (fence := FENCE.get()) is not None:
            return await self._writes.do(lambda c: (fence(c), change(c))[1])
        return await self._writes.do(change)

    def check_room(self) -> None:
        """Raises Problem (503) when too much waits: for requests to call before they add more."""
        if max(len(self._reads.waiting), len(self._writes.waiting)) >= MAX_WAITING:
            raise Problem(503, "overloaded", "too many requests wait for the database", retry_after=2)

    def _read(self, queries: list[Work], again: bool = True) -> list[Any]:
        try:
            with self._reading.begin() as connection:
                results = [_result(query, connection) for query in queries]
        except Exception as error:
            results = [error] * len(queries)
        return self._read(queries, again=False) if again and any(isinstance(one, _LOST) for one in results) else results

    def _commit(self, changes: list[Work], again: bool = True) -> list[Any]:
        done = False
        try:
            with self._writing.begin() as connection:
                results = [change(connection) for change in changes]
                done = True  # from here on it may be durable, whatever is heard of it
            return results
        except Exception as error:
            if done or (len(changes) == 1 and not (again and isinstance(error, _LOST))):
                return [error] * len(changes)
        # One failed and undid the others, or the connection was lost: each on its own now, so that only the culprit fails.
        return [self._commit([change], again=len(changes) > 1)[0] for change in changes]

    def close(self) -> None:
        self._writes.close()
        self._reads.close()
        self._reading.give_back()
        self._writing.give_back()
        self._engine.dispose()


def _result(query: Work, connection: Connection) -> Any:
    try:
        return query(connection)
    except Exception as error:
        return error
