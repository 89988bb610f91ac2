"""API keys: bearer tokens of a shop's programs, good for some things until they are revoked.

A key has 256 random bits, so its SHA-256 is stored and no slow hash is needed. All are in memory, where requests look them up.
"""

import secrets
import uuid
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from gateway.admin import audit
from gateway.admin.suspensions import is_suspended
from gateway.database import Database, insert, now_ms
from gateway.identity.notices import KEYS_CHANGED, Notices, notify
from gateway.identity.tables import ApiKey
from gateway.identity.tokens import KEY_PREFIX, Scope, Tokens, api_key_caller
from gateway.problems import Problem

MAX_KEYS = 20
"""Per user."""


class ApiKeys:
    """Everybody's."""

    def __init__(self, database: Database, tokens: Tokens, notices: Notices) -> None:
        self._database, self._tokens, self._notices = database, tokens, notices

    async def load(self) -> None:
        """Learn all keys."""
        for row in await self._database.read(lambda c: c.execute(select(ApiKey.__table__)).all()):
            self._tokens.keys[row.key_hash] = api_key_caller(row.user_id, row.id, row.scopes)

    async def create(self, user_id: str, name: str, scopes: Sequence[Scope]) -> tuple[dict[str, Any], str]:
        """A new key: its row, and itself, which nobody can tell again. Raises Problem (403, 409)."""
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        row: dict[str, Any] = {"id": uuid.uuid4().hex, "user_id": user_id, "name": name, "scopes": " ".join(scopes)}
        row |= {"key_hash": sha256(key.encode()).digest(), "created_at": now_ms()}

        def save(connection: Connection) -> bool:
            if is_suspended(connection, user_id):
                raise Problem(403, "suspended", "this account is suspended: ask who runs this gateway")
            count = connection.execute(select(func.count()).select_from(ApiKey).where(ApiKey.user_id == user_id)).scalar_one()
            if count < MAX_KEYS:
                connection.execute(insert(connection, ApiKey).values(**row))
                notify(connection, KEYS_CHANGED, user_id)
                audit.record(connection, user_id, "api_key.made", user_id, key=row["id"], scopes=row["scopes"])
            return bool(count < MAX_KEYS)

        if not await self._database.write(save):
            raise Problem(409, "limit_exceeded", f"at most {MAX_KEYS} API keys")
        await self._notices.tell()
        return row, key

    async def of(self, user_id: str) -> Sequence[Row[Any]]:
        """A user's keys, the newest first."""
        query = select(ApiKey.__table__).where(ApiKey.user_id == user_id).order_by(ApiKey.created_at.desc(), ApiKey.id)
        return await self._database.read(lambda c: c.execute(query).all())

    async def revoke(self, user_id: str, key_id: str) -> None:
        """End a user's key, at once. Raises Problem (404) when it is not his."""
        mine = (ApiKey.id == key_id, ApiKey.user_id == user_id)

        def remove(connection: Connection) -> bool:
            found = bool(connection.execute(delete(ApiKey).where(*mine)).rowcount)
            if found:
                notify(connection, KEYS_CHANGED, user_id)
            return found

        if not await self._database.write(remove):
            raise Problem(404, "api_key_not_found", "you have no such API key")
        await self._notices.tell()
