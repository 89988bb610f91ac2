"""Passwords: argon2id hashes, and how hard one is to guess. Both cost CPU, so they wait for their turn in threads."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from gateway.problems import Problem

T = TypeVar("T")
_MAX_WAITING = 200
"""Password checks that may wait for their turn; each takes tens of ms of CPU."""
_STRONG = 3
"""Of zxcvbn's scores, 0 to 4: more than 10^8 guesses, "safely unguessable" where a slow hash is stored."""
_JUDGED = 72
"""Characters that are judged; what follows can only make it stronger."""


class Passwords:
    """Hashes and judges."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._turn = asyncio.Semaphore(2)
        self._waiting = 0

    async def hashed(self, password: str, *personal: str) -> str:
        """The hash of a new password. ``personal``: what is known of its owner, and guessed first.

        Raises:
            Problem: 422, easy to guess; 503, too many wait.
        """
        return await self._in_turn(lambda: self._judged_and_hashed(password, personal))

    async def match(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one of a stored hash. Takes as long when there is none. Raises Problem (503)."""
        found = await self._in_turn(lambda: self._matches(stored or self._nobody, password))
        return found and bool(stored)

    def _judged_and_hashed(self, password: str, personal: tuple[str, ...]) -> str:
        judged = zxcvbn(password[:_JUDGED], user_inputs=[part for text in personal for part in (text, *text.split("@"))])
        if judged["score"] < _STRONG:
            why = judged["feedback"]["warning"] or "it is too short, or too simple."
            raise Problem(422, "weak_password", f"this password is easy to guess: {why[0].lower()}{why[1:]}")
        return self._hasher.hash(password)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MAX_WAITING:
            raise Problem(503, "overloaded", "too many people log in at this moment", retry_after=2)
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
