"""What every process has to know at once, because each keeps it in memory: sessions that have ended, API keys made and revoked.

A notice is written in the database transaction of what it tells of. Their ids grow in the order in which they become visible, so
a process has seen all up to the last it has read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, String, delete, func, select
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base, Database, insert, now_ms
from gateway.identity.tables import ApiKey
from gateway.identity.tokens import KEY_PREFIX, Caller, Tokens, api_key_caller
from gateway.problems import Problem

SESSION_ENDED, KEYS_CHANGED = "session_ended", "keys_changed"
KEPT_MS = 7 * 24 * 3600 * 1000


class Notice(Base):
    """``subject``: the session. ``until``: when the last of its access tokens expires, ms."""

    __tablename__ = "notices"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(32))
    until: Mapped[int]
    created_at: Mapped[int]


def notify(connection: Connection, kind: str, user_id: str, subject: str = "", until: int = 0) -> None:
    """Tell every process, in the caller's write."""
    row = {"kind": kind, "user_id": user_id, "subject": subject, "until": until, "created_at": now_ms()}
    connection.execute(insert(connection, Notice).values(**row))


class Notices:
    """This process's reading of them.

    Attributes:
        on_end: called with a user's id when a session of theirs has ended.
        ring: called when there are new ones for the other processes.
    """

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database, self._tokens = database, tokens
        self._last = 0
        self.on_end: Callable[[str], None] = lambda _: None
        self.ring: Callable[[], None] = lambda: None

    async def begin(self) -> None:
        """What is noted from now on is not yet known; what was noted before is about to be loaded."""
        self._last = await self._database.read(lambda c: c.execute(select(func.max(Notice.id))).scalar() or 0)

    async def tell(self) -> None:
        """This process has written some: take them in now, and wake the others."""
        await self.look()
        self.ring()

    async def look(self) -> None:
        """Take in what is new."""
        notices, keys = await self._database.read(partial(_read, after=self._last))
        for notice in notices:
            if notice.id <= self._last:
                continue  # somebody else looked meanwhile
            self._last = notice.id
            if notice.kind == SESSION_ENDED:
                self._tokens.end(notice.subject, notice.until / 1000)
                self.on_end(notice.user_id)
            else:
                self._tokens.forget_keys(notice.user_id)
                mine = [key for key in keys if key.user_id == notice.user_id]
                self._tokens.keys.update((key.key_hash, api_key_caller(key.user_id, key.id, key.scopes)) for key in mine)

    async def caller(self, token: str, *scopes: str) -> Caller:
        """See ``Tokens.caller``. An API key that is not known may just have been made by another process."""
        try:
            return self._tokens.caller(token, *scopes)
        except Problem as problem:
            if problem.code != "invalid_token" or not token.startswith(KEY_PREFIX):
                raise
        await self.look()
        return self._tokens.caller(token, *scopes)

    async def purge(self) -> None:
        """Remove those that every process has seen long ago."""
        old = delete(Notice).where(Notice.created_at < now_ms() - KEPT_MS)
        await self._database.write(lambda c: c.execute(old) and None)


def _read(connection: Connection, after: int) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """New notices, and all keys that those have whose keys have changed."""
    found = list(connection.execute(select(Notice.__table__).where(Notice.id > after).order_by(Notice.id)))
    users = {notice.user_id for notice in found if notice.kind == KEYS_CHANGED}
    keys = list(connection.execute(select(ApiKey.__table__).where(ApiKey.user_id.in_(users)))) if users else []
    return found, keys
