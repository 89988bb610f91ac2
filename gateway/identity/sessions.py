"""Sessions: each login has rotating refresh tokens and short-lived access tokens, and all of them end with it."""

import secrets
import uuid
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, or_, select, update

from gateway.admin import audit
from gateway.admin.roles import is_administrator
from gateway.database import Database, insert, now_ms
from gateway.identity.notices import SESSION_ENDED, notify
from gateway.identity.tables import RefreshToken, Session, User
from gateway.identity.tokens import Tokens
from gateway.problems import Problem

LIFETIME_MS = 30 * 24 * 3600 * 1000
"""Of a refresh token, and so of a session nobody uses."""
MAX_SESSIONS = 100
"""Per user; beyond, the one used least lately ends."""


class Device(NamedTuple):
    """Where a login comes from, as its user may recognise it."""

    user_agent: str
    address: str


class Issued(NamedTuple):
    """What a login hands out."""

    access: str
    refresh: str
    expires_in: int


class Ended(NamedTuple):
    """A session that has just ended."""

    id: str
    user_id: str
    access_until: int


class Sessions:
    """Everybody's.

    Attributes:
        on_end: called with a user's id when a session of his ends.
        ring: called when the other processes have to hear of it.
        logins: since start.
    """

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database, self._tokens = database, tokens
        self.on_end: Callable[[str], None] = lambda _: None
        self.ring: Callable[[], None] = lambda: None
        self.logins = 0

    async def load(self) -> None:
        """Learn which sessions have ended though access tokens of theirs have not expired."""
        query = select(Session.id, Session.access_until).where(Session.ended)
        for row in await self._database.read(lambda c: c.execute(query).all()):
            self._tokens.end(row.id, row.access_until / 1000)

    async def start(
        self, user_id: str, password_hash: str, device: Device, also: Callable[[Connection], None] = lambda _: None
    ) -> Issued:
        """Log a user in, whose password has this hash. ``also``: in the same write; what it raises undoes the login.

        Raises:
            Problem: 401, the password is another one by now; 403, suspended.
        """
        session = uuid.uuid4().hex
        same = select(User.suspended_at).where(User.id == user_id, User.password_hash == password_hash)

        def save(connection: Connection) -> tuple[str, list[Ended]]:
            if (user := connection.execute(same).first()) is None:
                raise Problem(401, "wrong_credentials", "the password has just been changed")
            if user.suspended_at is not None:
                raise Problem(403, "suspended", "this account is suspended: ask who runs this gateway")
            also(connection)
            now = now_ms()
            row = {"id": session, "user_id": user_id, "created_at": now, **self._used(now, device)}
            kept = select(Session.id).where(Session.user_id == user_id, Session.ended.is_(False))
            oldest = connection.execute(kept.order_by(Session.last_used_at.desc()).offset(MAX_SESSIONS - 1)).scalars().all()
            gone = end(connection, user_id, Session.id.in_(oldest)) if oldest else []
            connection.execute(insert(connection, Session).values(**row))
            if is_administrator(connection, user_id):
                audit.record(connection, user_id, "administrator.login", user_id, session=session)
            return _new_refresh_token(connection, session, now), gone

        refresh, gone = await self._database.write(save)
        self.logins += 1
        self.ended(gone)
        return Issued(self._tokens.make(user_id, session), refresh, self._tokens.lifetime)

    async def refresh(self, token: str, device: Device) -> Issued:
        """Trade a refresh token for the next. One that was traded before is stolen, or was: its session ends.

        Raises:
            Problem: 401, unknown, used or expired.
        """
        token_hash = _hash(token)

        def rotate(connection: Connection) -> tuple[Row[Any] | None, str, list[Ended]]:
            found, now = _session_of(connection, token_hash), now_ms()
            if found is None or found.token_expires_at < now:
                return None, "", []
            if found.used:
                return None, "", end(connection, found.user_id, Session.id == found.id)
            connection.execute(update(RefreshToken).where(RefreshToken.token_hash == token_hash).values(used=True))
            connection.execute(update(Session).where(Session.id == found.id).values(**self._used(now, device)))
            return found, _new_refresh_token(connection, found.id, now), []

        found, refresh, gone = await self._database.write(rotate)
        self.ended(gone)
        if found is None:
            raise Problem(401, "invalid_token", "the refresh token is not valid; log in again")
        return Issued(self._tokens.make(found.user_id, found.id), refresh, self._tokens.lifetime)

    async def log_out(self, token: str) -> None:
        """End the session a refresh token belongs to, if there is one."""

        def revoke(connection: Connection) -> list[Ended]:
            found = _session_of(connection, _hash(token))
            return [] if found is None else end(connection, found.user_id, Session.id == found.id)

        self.ended(await self._database.write(revoke))

    async def revoke(self, user_id: str, session_id: str) -> None:
        """End one of a user's sessions. Raises Problem (404) when it is not his."""
        gone = await self._database.write(lambda c: end(c, user_id, Session.id == session_id))
        if not gone:
            raise Problem(404, "session_not_found", "you have no such session")
        self.ended(gone)

    async def of(self, user_id: str) -> Sequence[Row[Any]]:
        """A user's sessions, the one used last first."""
        query = select(Session.__table__).where(
            Session.user_id == user_id, Session.ended.is_(False), Session.expires_at > now_ms()
        )
        return await self._database.read(lambda c: c.execute(query.order_by(Session.last_used_at.desc(), Session.id)).all())

    def ended(self, gone: list[Ended]) -> None:
        """To be told of sessions that a database transaction ended, once it is durable."""
        for session in gone:
            self._tokens.end(session.id, session.access_until / 1000)
        for user_id in {session.user_id for session in gone}:
            self.on_end(user_id)
            self.ring()

    async def purge(self) -> None:
        """Drop what has expired."""
        now = now_ms()
        over = or_(Session.expires_at < now, Session.ended & (Session.access_until < now))

        def drop(connection: Connection) -> None:
            connection.execute(delete(RefreshToken).where(RefreshToken.expires_at < now))
            connection.execute(delete(RefreshToken).where(RefreshToken.session_id.in_(select(Session.id).where(over))))
            connection.execute(delete(Session).where(over))

        await self._database.write(drop)
        self._tokens.drop_old()

    def _used(self, now: int, device: Device) -> dict[str, Any]:
        until = {"expires_at": now + LIFETIME_MS, "access_until": now + self._tokens.lifetime * 1000}
        return {"last_used_at": now, "user_agent": device.user_agent[:200], "address": device.address[:45], **until}


def end(connection: Connection, user_id: str, which: Any = True) -> list[Ended]:
    """End a user's sessions, all or those ``which`` names. ``Sessions.ended`` is to be told when it is durable."""
    alive = select(Session.id, Session.access_until).where(Session.user_id == user_id, Session.ended.is_(False))
    gone = [
        Ended(row.id, user_id, row.access_until) for row in connection.execute(alive if which is True else alive.where(which))
    ]
    names = [session.id for session in gone]
    connection.execute(delete(RefreshToken).where(RefreshToken.session_id.in_(names)))
    connection.execute(update(Session).where(Session.id.in_(names)).values(ended=True))
    for session in gone:
        notify(connection, SESSION_ENDED, user_id, session.id, session.access_until)
    return gone


def _session_of(connection: Connection, token_hash: bytes) -> Row[Any] | None:
    query: Any = select(Session.id, Session.user_id, RefreshToken.used, RefreshToken.expires_at.label("token_expires_at"))
    query = query.join(RefreshToken, RefreshToken.session_id == Session.id)
    found: Row[Any] | None = connection.execute(query.where(RefreshToken.token_hash == token_hash)).first()
    return found


def _new_refresh_token(connection: Connection, session: str, now: int) -> str:
    token = secrets.token_urlsafe(32)
    row = {"token_hash": _hash(token), "session_id": session, "used": False, "expires_at": now + LIFETIME_MS}
    connection.execute(insert(connection, RefreshToken).values(**row))
    return token


def _hash(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()
