"""Messages that came and are not read yet: bounded in bytes, since whoever reaches the broker decides how large they are."""

import asyncio
from collections import deque

MAX_UNREAD_BYTES = 32 << 20


class Unread:
    """In order. What does not fit is dropped: whoever needs it asks for it."""

    def __init__(self) -> None:
        self._bodies: deque[bytes] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()

    def put(self, body: bytes) -> None:
        if self._bytes + len(body) <= MAX_UNREAD_BYTES:
            self._bodies.append(body)
            self._bytes += len(body)
            self._arrived.set()

    async def take(self) -> list[bytes]:
        """All there are, once there is one."""
        while not self._bodies:
            self._arrived.clear()
            await self._arrived.wait()
        bodies = list(self._bodies)
        self._bodies.clear()
        self._bytes = 0
        return bodies
