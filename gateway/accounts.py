"""Users: registration, passwords (argon2id), access tokens (JWT) and rotating refresh tokens."""

import asyncio
import secrets
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.exc import IntegrityError

from gateway.database import Database, RefreshToken, User, insert, now_ms
from gateway.problems import Problem

T = TypeVar("T")
_MAX_CHECKED = 10_000
"""Access tokens whose signature need not be checked again, by their hashes: (user, expiry)."""
REFRESH_LIFETIME_MS = 30 * 24 * 3600 * 1000
_MAX_HASHING = 200
"""Password checks that may wait for their turn; each takes tens of ms of CPU."""


class Tokens:
    """What a login hands out."""

    def __init__(self, access: str, expires_in: int, refresh: str) -> None:
        self.access, self.expires_in, self.refresh = access, expires_in, refresh


class Throttle:
    """At most ``limit`` attempts per key in ``window`` seconds. Remembers a bounded number of keys, the latest."""

    def __init__(self, limit: int, window: float, capacity: int = 10_000) -> None:
        self._limit, self._window, self._capacity = limit, window, capacity
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Count an attempt. Raises Problem (429) when there were too many."""
        now = time.monotonic()
        attempts = self._attempts.setdefault(key, deque())
        self._attempts.move_to_end(key)
        if len(self._attempts) > self._capacity:
            self._attempts.popitem(last=False)
        while attempts and attempts[0] < now - self._window:
            attempts.popleft()
        if len(attempts) >= self._limit:
            wait = int(attempts[0] + self._window - now) + 1
            raise Problem(429, "too_many_attempts", "too many attempts; wait a little", retry_after=wait)
        attempts.append(now)


class Accounts:
    """The users and their sessions.

    Attributes:
        sign_ups, logins: since start.
    """

    def __init__(self, database: Database, token_secret: bytes, token_lifetime: int) -> None:
        self._database = database
        self._secret = token_secret
        self._lifetime = token_lifetime
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._turn = asyncio.Semaphore(2)
        self._hashing = 0
        self._checked: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        self.sign_ups = self.logins = 0

    async def register(self, email: str, password: str, name: str) -> str:
        """Create a user; returns the id. Raises Problem (409) when the e-mail address is taken."""
        row = {"id": uuid.uuid4().hex, "email": email, "name": name, "created_at": now_ms()}
        row["password_hash"] = await self._in_turn(lambda: self._hasher.hash(password))
        try:
            await self._database.write(lambda c: c.execute(insert(c, User).values(**row)) and None)
        except IntegrityError:
            raise Problem(409, "email_taken", "this e-mail address is registered already") from None
        self.sign_ups += 1
        return str(row["id"])

    async def login(self, email: str, password: str) -> Tokens:
        """Raises Problem (401), the same and after the same time whether the address or the password is wrong."""
        row = await self._database.read(
            lambda c: c.execute(select(User.id, User.password_hash).where(User.email == email)).first()
        )
        stored = row.password_hash if row else self._nobody
        right = await self._in_turn(lambda: self._matches(stored, password))
        if row is None or not right:
            raise Problem(401, "wrong_credentials", "wrong e-mail address or password")
        self.logins += 1
        family = uuid.uuid4().hex
        refresh = await self._database.write(lambda c: _new_refresh_token(c, family, row.id))
        return self._tokens(row.id, refresh)

    async def check_password(self, user_id: str, password: str) -> None:
        """Raises Problem (403) unless it is this user's."""
        stored = await self._database.read(lambda c: c.execute(select(User.password_hash).where(User.id == user_id)).scalar())
        if stored is None or not await self._in_turn(lambda: self._matches(stored, password)):
            raise Problem(403, "wrong_password", "this is not your password")

    async def refresh(self, token: str) -> Tokens:
        """Trade a refresh token for the next. One that was traded before is stolen, or was: its whole family ends.

        Raises:
            Problem: 401, unknown, used or expired.
        """
        token_hash = sha256(token.encode()).digest()

        def rotate(connection: Connection) -> tuple[str, str] | None:
            row = connection.execute(select(RefreshToken.__table__).where(RefreshToken.token_hash == token_hash)).first()
            if row is None or row.expires_at < now_ms():
                return None
            if row.used:
                connection.execute(delete(RefreshToken).where(RefreshToken.family == row.family))
                return None
            connection.execute(update(RefreshToken).where(RefreshToken.token_hash == token_hash).values(used=True))
            return row.user_id, _new_refresh_token(connection, row.family, row.user_id)

        rotated = await self._database.write(rotate)
        if rotated is None:
            raise Problem(401, "invalid_token", "the refresh token is not valid; log in again")
        return self._tokens(*rotated)

    async def logout(self, token: str) -> list[str]:
        """End the session a refresh token belongs to, if there is one. Returns whose it was."""
        token_hash = sha256(token.encode()).digest()

        def revoke(connection: Connection) -> list[str]:
            found = select(RefreshToken.family, RefreshToken.user_id).where(RefreshToken.token_hash == token_hash)
            sessions = connection.execute(found).all()
            for session in sessions:
                connection.execute(delete(RefreshToken).where(RefreshToken.family == session.family))
            return [session.user_id for session in sessions]

        return await self._database.write(revoke)

    async def purge(self) -> None:
        """Drop the refresh tokens that have expired."""
        await self._database.write(lambda c: c.execute(delete(RefreshToken).where(RefreshToken.expires_at < now_ms())) and None)

    def user_of(self, access_token: str) -> str:
        """The user an access token was made for. Raises Problem (401)."""
        name = sha256(access_token.encode(errors="replace")).digest()
        if (known := self._checked.get(name)) is not None and time.time() < known[1]:
            return known[0]
        try:
            claims = jwt.decode(access_token, self._secret, ["HS256"], options={"require": ["exp", "sub"]})
        except jwt.ExpiredSignatureError:
            raise Problem(401, "token_expired", "the access token has expired; refresh it") from None
        except jwt.InvalidTokenError:
            raise Problem(401, "invalid_token", "the access token is not valid") from None
        user = str(claims["sub"])
        self._checked[name] = (user, int(claims["exp"]))
        if len(self._checked) > _MAX_CHECKED:
            self._checked.popitem(last=False)
        return user

    async def profile(self, user_id: str) -> Row[str, str, str, int]:
        """(id, email, name, created_at). Raises Problem (401) when the user is gone."""
        query = select(User.id, User.email, User.name, User.created_at).where(User.id == user_id)
        row = await self._database.read(lambda c: c.execute(query).first())
        if row is None:
            raise Problem(401, "invalid_token", "this user does not exist")
        return row

    def _tokens(self, user_id: str, refresh: str) -> Tokens:
        now = int(time.time())
        claims = {"sub": user_id, "iat": now, "exp": now + self._lifetime}
        return Tokens(jwt.encode(claims, self._secret, "HS256"), self._lifetime, refresh)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._hashing >= _MAX_HASHING:
            raise Problem(503, "overloaded", "too many people log in at this moment", retry_after=2)
        self._hashing += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._hashing -= 1

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def _new_refresh_token(connection: Connection, family: str, user_id: str) -> str:
    token = secrets.token_urlsafe(32)
    row = {"token_hash": sha256(token.encode()).digest(), "family": family, "user_id": user_id, "used": False}
    connection.execute(insert(connection, RefreshToken).values(**row, expires_at=now_ms() + REFRESH_LIFETIME_MS))
    return token
