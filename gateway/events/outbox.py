"""The transactional outbox: what happened, told to users in the database transaction in which it happened.

Streams, webhooks and notifications all read from here. An event's data is the object as its GET showed it then; a transfer's is
looked up when it is read, so that paying writes no more than a few bytes for it.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Index, Row, String, Text, bindparam, delete, func, literal_column, select
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base, Database, Posting, Transfer, Wallet, insert, now_ms
from gateway.statements import Statement

T = TypeVar("T")
KEPT_MS = 30 * 24 * 3600 * 1000
_REMOVED_AT_ONCE = 1000


class Event(Base):
    """``subject``: the id of what it is about. ``data``: JSON, empty for transfers."""

    __tablename__ = "events"
    __table_args__ = (Index("events_of_user", "user_id", "id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(32))
    type: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(64))
    data: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int]


_COLUMNS = ["user_id", "type", "subject", "data", "created_at"]


def _told(insert: Any) -> Any:
    """To who handed a transfer in: that it has ended."""
    columns: list[Any] = [Transfer.user_id, bindparam("type"), bindparam("subject"), literal_column("''"), bindparam("now")]
    row = select(*columns).where(Transfer.transaction_id == bindparam("id"), Transfer.user_id.is_not(None))
    return insert(Event).from_select(_COLUMNS, row)


def _received(insert: Any) -> Any:
    """To those whose wallets were paid."""
    columns: list[Any] = [Wallet.user_id, literal_column("'transfer.received'"), bindparam("subject"), literal_column("''")]
    columns.append(bindparam("now"))
    row = select(*columns).distinct().join(Posting, Posting.wallet_id == Wallet.id)
    row = row.where(Posting.transaction_id == bindparam("id"), Posting.direction == literal_column("'received'"))
    return insert(Event).from_select(_COLUMNS, row)


_TOLD, _RECEIVED = Statement(_told), Statement(_received)


class Outbox:
    """The events of all users, in the order in which they became durable.

    Attributes:
        listeners: called in the event loop whenever there may be new ones.
        ring: called when this process has written some.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.listeners: list[Callable[[], None]] = []
        self.ring: Callable[[], None] = lambda: None

    def emit(self, connection: Connection, user_id: str, kind: str, data: dict[str, Any]) -> None:
        """Tell a user of ``data``, an object with an ``id``, in the caller's write."""
        self._put(connection, user_id, kind, data["id"], json.dumps(data))

    def emit_ends(self, connection: Connection, ends: Sequence[tuple[bytes, str]], now: int) -> None:
        """Tell who is concerned how transfers ended, (id, status) each; those who were paid only when it is committed."""
        rows = [{"id": one, "subject": one.hex(), "type": f"transfer.{status}", "now": now} for one, status in ends]
        _TOLD.run_all(connection, rows)
        committed = [one for one, status in ends if status == "committed"]
        _RECEIVED.run_all(connection, [{"id": one, "subject": one.hex(), "now": now} for one in committed])

    def emit_claimed(self, connection: Connection, user_id: str, transfers: Sequence[bytes]) -> None:
        """Tell a user, and nobody else, of payments that were committed before they were this user's."""
        for one in transfers:
            self._put(connection, user_id, "transfer.received", one.hex(), "")

    def _put(self, connection: Connection, user_id: str, kind: str, subject: str, data: str) -> None:
        row = {"user_id": user_id, "type": kind, "subject": subject, "data": data, "created_at": now_ms()}
        connection.execute(insert(connection, Event).values(**row))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """A write of the database after which there may be new events."""
        result = await self._database.write(change)
        self.wake()
        return result

    def wake(self) -> None:
        """This process has written events."""
        self.look()
        self.ring()

    def look(self) -> None:
        """There may be new events."""
        for listener in self.listeners:
            listener()

    async def read(self, after: int, limit: int, user_id: str | None = None) -> Sequence[Row[Any]]:
        """Events later than the one with id ``after``, oldest first: one user's, or everybody's."""
        query = select(Event.__table__).where(Event.id > after).order_by(Event.id).limit(limit)
        if user_id is not None:
            query = query.where(Event.user_id == user_id)
        return await self._database.read(lambda c: c.execute(query).all())

    async def last(self) -> int:
        """The id of the latest event; 0 when there was none."""
        return await self._database.read(lambda c: c.execute(select(func.max(Event.id))).scalar() or 0)

    async def purge(self) -> None:
        """Remove events older than ``KEPT_MS``, in small steps."""
        while await self._database.write(partial(_remove_old, before=now_ms() - KEPT_MS)):
            pass


def _remove_old(connection: Connection, before: int) -> bool:
    oldest = select(Event.id).order_by(Event.id).limit(_REMOVED_AT_ONCE)
    return connection.execute(delete(Event).where(Event.id.in_(oldest), Event.created_at < before)).rowcount == _REMOVED_AT_ONCE
