"""Challenges: random texts that a key signs to prove that it is there, now. Each serves one purpose, for five minutes, once.

They are signed by the gateway itself, so that nothing is stored for who only asks; what was used is stored until it has expired.
"""

import secrets
import time
from hashlib import sha256

import jwt
from sqlalchemy import Connection, delete

from gateway.database import insert, now_ms
from gateway.identity.tables import UsedChallenge

SECONDS = 300


class Challenges:
    """Made and taken back by any gateway that has the same secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, purpose: str) -> bytes:
        """A new one."""
        claims = {"aud": purpose, "exp": int(time.time()) + SECONDS, "jti": secrets.token_urlsafe(16)}
        return jwt.encode(claims, self._secret, "HS256").encode()

    def is_good(self, challenge: bytes, purpose: str) -> bool:
        """Whether it was made here for this purpose, and has not expired."""
        try:
            jwt.decode(challenge, self._secret, ["HS256"], audience=purpose, options={"require": ["exp", "aud", "jti"]})
        except jwt.InvalidTokenError:
            return False
        return True

    def use(self, connection: Connection, challenge: bytes) -> bool:
        """Whether a good one has not been used yet: in the caller's write, after which it has."""
        connection.execute(delete(UsedChallenge).where(UsedChallenge.expires_at < now_ms()))
        row = {"challenge_hash": sha256(challenge).digest(), "expires_at": now_ms() + SECONDS * 1000}
        return bool(connection.execute(insert(connection, UsedChallenge).values(**row).on_conflict_do_nothing()).rowcount)
