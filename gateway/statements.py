"""Statements of the hot path: compiled once, and run by the database's driver itself.

SQLAlchemy words them for SQLite or PostgreSQL; executing through it would cost ten times what SQLite takes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.database import AccountBalance, BalanceChange, Base, Cursor, IdempotencyKey, Posting, Transfer, Wallet

Row = Mapping[str, Any]


class Statement:
    """``build`` is given the dialect's INSERT and returns the statement, each value a named parameter."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self._build = build
        self._compiled: dict[str, tuple[str, list[str] | None]] = {}

    def run(self, connection: Connection, row: Row) -> Any:
        """The driver's cursor after running it. Raises the driver's errors."""
        text, order = self._text(connection)
        cursor = connection.connection.cursor()
        cursor.execute(text, row if order is None else [row[name] for name in order])
        return cursor

    def run_all(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Once for each row."""
        text, order = self._text(connection)
        parameters = list(rows) if order is None else [[row[name] for name in order] for row in rows]
        if parameters:
            connection.connection.cursor().executemany(text, parameters)

    def _text(self, connection: Connection) -> tuple[str, list[str] | None]:
        """The text, and its parameters in order where the driver takes them so."""
        dialect = connection.dialect
        if (found := self._compiled.get(dialect.name)) is None:
            insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
            compiled = self._build(insert).compile(dialect=dialect)
            order = list(compiled.positiontup) if compiled.positional else None
            found = self._compiled[dialect.name] = (str(compiled), order)
        return found


def _insert(model: type[Base], *left_out: str) -> Callable[[Any], Any]:
    columns = [column.key for column in model.__table__.columns if column.key not in left_out]
    return lambda insert: insert(model).values({name: bindparam(name) for name in columns}).on_conflict_do_nothing()


def _put(model: type[Base], key: list[str], only_newer: str) -> Callable[[Any], Any]:
    """Insert, or replace a row whose ``only_newer`` is not greater."""

    def build(insert: Any) -> Any:
        columns = list(model.__table__.columns.keys())
        statement = insert(model).values({name: bindparam(name) for name in columns})
        found = {name: statement.excluded[name] for name in columns if name not in key}
        where = model.__table__.c[only_newer] <= statement.excluded[only_newer]
        return statement.on_conflict_do_update(index_elements=key, set_=found, where=where)

    return build


_MOVED = ("status", "code", "hint", "height", "committed_in", "finalized_at")

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
    values: dict[str, Any] = {column.key: bindparam(column.key) for column in Posting.__table__.columns if column.key != "id"}
    values["user_id"] = select(Wallet.user_id).where(Wallet.id == bindparam("wallet_id")).scalar_subquery()
    return insert(Posting).values(values).on_conflict_do_nothing()


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
MARK = Statement(
    lambda _: (
        update(Transfer)
        .where(Transfer.transaction_id == bindparam("id"), Transfer.status == bindparam("old"))
        .values(status=bindparam("new"))
    )
)
"""A transfer's next status, if it still has the old one."""
PUT_BALANCE = Statement(_put(AccountBalance, ["address", "asset"], "height"))
PUT_CURSOR = Statement(_put(Cursor, ["shard"], "height"))
