"""Statements of the hot path: compiled once, and run by the database's driver itself.

SQLAlchemy words them for SQLite or PostgreSQL; executing through it would cost ten times what SQLite takes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, delete, literal_column, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.database import (
    HANDED_IN,
    UNDER_WAY,
    WAITING,
    AccountBalance,
    BalanceChange,
    Base,
    BlockReceipts,
    Cursor,
    IdempotencyKey,
    Owed,
    Posting,
    Transfer,
    Wallet,
)

Row = Mapping[str, Any]
_MOST_ASKED = 512
RECEIPTS_AT_ONCE = 500
"""Blocks whose receipts are read, or removed, in one step."""


class Statement:
    """``build`` is given the dialect's INSERT and returns the statement, each value a named parameter, or a constant."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self._build = build
        self._compiled: dict[str, tuple[str, Callable[[Row], Any]]] = {}

    def run(self, connection: Connection, row: Row) -> Any:
        """The driver's cursor after running it. Raises the driver's errors."""
        text, taken = self._text(connection)
        cursor = connection.connection.cursor()
        cursor.execute(text, taken(row))
        return cursor

    def run_all(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Once for each row."""
        text, taken = self._text(connection)
        if parameters := list(map(taken, rows)):
            connection.connection.cursor().executemany(text, parameters)

    def _text(self, connection: Connection) -> tuple[str, Callable[[Row], Any]]:
        """The text, and what makes its parameters of a row as the driver takes them."""
        dialect = connection.dialect
        if (found := self._compiled.get(dialect.name)) is None:
            insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
            compiled = self._build(insert).compile(dialect=dialect)
            found = self._compiled[dialect.name] = (str(compiled), _parameters(compiled))
        return found


def _parameters(compiled: Any) -> Callable[[Row], Any]:
    own = {name: value for name, value in compiled.params.items() if value is not None}
    if not compiled.positional:
        return lambda row: {**own, **row}
    names = compiled.positiontup
    return itemgetter(*names) if len(names) > 1 and not own else lambda row: [{**own, **row}[name] for name in names]


class Lookup:
    """The rows whose key is among some: one query, however many they are.

    ``columns`` and ``source`` are SQL for both databases; ``source`` names its keys as ``asked.a`` and ``asked.b``.
    """

    def __init__(self, columns: str, source: str, keys: int = 1) -> None:
        names = ("a", "b")[:keys]
        self._keys = keys
        self._texts: dict[tuple[str, int], str] = {}
        self._form = f"WITH asked({', '.join(names)}) AS (VALUES %s) SELECT {columns} FROM asked CROSS JOIN {source}"

    def run(self, connection: Connection, keys: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """``keys``: different ones; of several columns as tuples."""
        for first in range(0, len(keys), _MOST_ASKED):
            asked = list(keys[first : first + _MOST_ASKED])
            count = 1 << (len(asked) - 1).bit_length()  # so that there are few statements, all of them prepared
            asked += [(None,) * self._keys if self._keys > 1 else None] * (count - len(asked))
            parameters = [value for key in asked for value in key] if self._keys > 1 else asked
            cursor = connection.connection.cursor()
            cursor.execute(self._text(connection, count), parameters)
            yield from cursor.fetchall()

    def _text(self, connection: Connection, count: int) -> str:
        name = connection.dialect.name
        if (text := self._texts.get((name, count))) is None:
            mark = "%s" if name == "postgresql" else "?"
            row = f"({', '.join([mark] * self._keys)})"
            text = self._texts[name, count] = self._form % ", ".join([row] * count)
        return text


def _insert(model: type[Base], *left_out: str) -> Callable[[Any], Any]:
    columns = [column.key for column in model.__table__.columns if column.key not in left_out]
    return lambda insert: insert(model).values({name: bindparam(name) for name in columns}).on_conflict_do_nothing()


def _put(model: type[Base], key: list[str], *only_newer: str) -> Callable[[Any], Any]:
    """Insert, or replace a row whose ``only_newer`` are not greater."""

    def build(insert: Any) -> Any:
        columns = list(model.__table__.columns.keys())
        statement = insert(model).values({name: bindparam(name) for name in columns})
        found = {name: statement.excluded[name] for name in columns if name not in key}
        own, new = (tuple_(*(row[name] for name in only_newer)) for row in (model.__table__.c, statement.excluded))
        where = own <= new
        return statement.on_conflict_do_update(index_elements=key, set_=found, where=where)

    return build


_MOVED = ("epoch", "home_shard", "shards", "status", "code", "height", "committed_in", "finalized_at")

CLAIM = Statement(_insert(IdempotencyKey))
"""Bind a client's key, unless it is bound: then ``rowcount`` is 0."""
CLAIMED = Statement(
    lambda _: select(IdempotencyKey.fingerprint, IdempotencyKey.made).where(
        IdempotencyKey.user_id == bindparam("user_id"), IdempotencyKey.key == bindparam("key")
    )
)
ADD_TRANSFER = Statement(_insert(Transfer))
"""Unless it is there: then ``rowcount`` is 0."""


def _add_posting(insert: Any) -> Any:
    given = [column.key for column in Posting.__table__.columns if column.key not in ("id", "user_id")]
    values = [bindparam(name, type_=Posting.__table__.c[name].type) for name in given]
    row = select(*values, Wallet.user_id).where(Wallet.id == bindparam("wallet_id"))
    return insert(Posting).from_select([*given, "user_id"], row).on_conflict_do_nothing()


ADD_POSTING = Statement(_add_posting)
"""Its user is its wallet's."""
ADD_BALANCE_CHANGE = Statement(_insert(BalanceChange))
MOVE = Statement(
    lambda _: (
        update(Transfer)
        .where(Transfer.transaction_id == bindparam("id"))
        .values({name: bindparam(f"new_{name}") for name in _MOVED})
    )
)
"""A transfer's next state."""
OVERDUE = Statement(
    lambda _: (
        select(Transfer)
        .where(Transfer.valid_until < bindparam("time"), UNDER_WAY, WAITING, Transfer.user_id.is_not(None))
        .where(Transfer.epoch == bindparam("epoch"), Transfer.home_shard == bindparam("shard"))
    )
)
"""Handed in here, and waiting past its time."""
OWE = Statement(
    lambda insert: (
        put := insert(Owed).values({name: bindparam(name) for name in ("address", "asset", "units")})
    ).on_conflict_do_update(index_elements=["address", "asset"], set_={"units": Owed.units + put.excluded.units})
)
"""So many units more; less if negative."""
MARK = Statement(
    lambda _: (
        update(Transfer)
        .where(Transfer.transaction_id == bindparam("id"), Transfer.status == bindparam("old"))
        .values(status=bindparam("new"))
    )
)
"""A transfer's next status, if it still has the old one."""
HINT = Statement(lambda _: update(Transfer).where(Transfer.transaction_id == bindparam("id")).values(hint=bindparam("new_hint")))
"""What members gave as reason not to take it."""
SIGNED_ELSEWHERE = Statement(
    lambda _: select(Transfer.transaction_id).where(
        UNDER_WAY, Transfer.kind == literal_column("'raw'"), Transfer.created_at < bindparam("before")
    )
)
"""Those under way that were signed elsewhere and handed in before a time."""
ADD_RECEIPTS = Statement(_insert(BlockReceipts, "id"))
RECEIPTS = Statement(
    lambda _: (
        select(*(BlockReceipts.__table__.c[name] for name in ("id", "epoch", "shard", "height", "receipts")))
        .where(BlockReceipts.id > bindparam("last"))
        .order_by(BlockReceipts.id)
        .limit(literal_column(str(RECEIPTS_AT_ONCE)))
    )
)
"""The next rows, as they were written."""
FORGET_RECEIPTS = Statement(
    lambda _: delete(BlockReceipts).where(
        BlockReceipts.id.in_(
            select(BlockReceipts.id)
            .where(BlockReceipts.time < bindparam("before"))
            .where(BlockReceipts.epoch.between(bindparam("first"), bindparam("last")))
            .where(BlockReceipts.shard.between(bindparam("lowest"), bindparam("highest")))
            .limit(literal_column(str(RECEIPTS_AT_ONCE)))
        )
    )
)
"""Some of those of a range of chains that are older than a time."""
PUT_BALANCE = Statement(_put(AccountBalance, ["address", "asset"], "epoch", "height"))
PLACES = Statement(
    lambda _: select(Cursor.epoch, Cursor.shard, Cursor.height, Cursor.hash, Cursor.time).where(
        Cursor.epoch >= bindparam("since")
    )
)
"""How far the chains of an epoch and later ones have been followed."""
PUT_CURSOR = Statement(_put(Cursor, ["epoch", "shard"], "height"))

CLAIMS = Lookup(
    "k.user_id, k.key, k.fingerprint, k.made",
    "idempotency_keys AS k WHERE k.user_id = asked.a AND k.key = asked.b",
    keys=2,
)
FUNDS = Lookup(
    "b.address, b.asset, b.available - coalesce(o.units, 0)",
    "balances AS b LEFT JOIN owed AS o ON o.address = b.address AND o.asset = b.asset WHERE b.address = asked.a",
)
"""What addresses can spend: their verified balances less what is owed. May be negative."""
OWED = Lookup("o.address, o.asset, o.units", "owed AS o WHERE o.address = asked.a")
WAITING_OF = Lookup("user_id, count(*)", f"transfers WHERE user_id = asked.a AND {HANDED_IN} GROUP BY user_id")
"""How many transactions signed elsewhere each of some users has that no block has taken in."""
WALLETS = Lookup("w.address, w.id", "wallets AS w WHERE w.address = asked.a")
RECEIVING = Lookup("r.address, coalesce(r.wallet_id, '')", "receiving_addresses AS r WHERE r.address = asked.a")
TRANSFER_COLUMNS = tuple(Transfer.__table__.columns.keys())
TRANSFERS = Lookup(", ".join(f"t.{name}" for name in TRANSFER_COLUMNS), "transfers AS t WHERE t.transaction_id = asked.a")
ENDS = Lookup(
    "t.transaction_id, t.status, t.code, t.height, t.finalized_at",
    "transfers AS t WHERE t.transaction_id = asked.a AND t.status IN ('committed', 'rejected', 'expired')",
)
"""Those of some transfers that are final."""
WAITS = Lookup(
    "t.transaction_id, t.status, t.hint",
    "transfers AS t WHERE t.transaction_id = asked.a AND t.status IN ('queued', 'submitted')",
)
"""Those of some transfers that no block of their home shard has taken in."""
