"""Who waits for a transfer to become final. It may be another process that follows the chain: then the database tells."""

import asyncio
from typing import NamedTuple

from gateway.database import Database
from gateway.projection import Status, Tracked
from gateway.statements import ENDS
from node.protocol.codes import Code

MAX_WAITERS = 10_000


class End(NamedTuple):
    """How a transfer ended."""

    status: Status
    code: Code
    height: int | None
    finalized_at: int | None


class Waiting:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._futures: dict[bytes, set[asyncio.Future[End | None]]] = {}
        self._count = 0
        self._stopping = False

    async def end(self, transaction_id: bytes, seconds: float, *, fresh: bool = False) -> End | None:
        """How a transfer ended, durably; None if it has not after ``seconds``. ``fresh``: it has just been accepted, so that it
        need not be looked for before somebody tells of it."""
        if self._stopping or self._count >= MAX_WAITERS:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[End | None] = loop.create_future()
        timer = loop.call_later(seconds, _release, future, None)
        waiting = self._futures.setdefault(transaction_id, set())
        waiting.add(future)
        self._count += 1
        try:
            if not fresh:
                await self._look([transaction_id])
            return await future
        finally:
            timer.cancel()
            self._count -= 1
            waiting.discard(future)
            if not waiting and self._futures.get(transaction_id) is waiting:
                del self._futures[transaction_id]

    def tell(self, tracked: Tracked) -> None:
        """A transaction is final, durably."""
        if tracked.id in self._futures:
            self._tell(tracked.id, End(tracked.status, tracked.code, tracked.height, tracked.finalized_at))

    async def look(self) -> None:
        """Find out which of those waited for have ended."""
        if self._futures:
            await self._look(list(self._futures))

    async def _look(self, ids: list[bytes]) -> None:
        for one, status, code, height, at in await self._database.read(lambda c: list(ENDS.run(c, ids))):
            self._tell(bytes(one), End(Status(status), Code(code), height, at))

    def _tell(self, transaction_id: bytes, end: End) -> None:
        for future in self._futures.pop(transaction_id, ()):
            _release(future, end)

    def stop(self) -> None:
        """The process ends: whoever waits gets what is known now."""
        self._stopping = True
        for futures in self._futures.values():
            for future in futures:
                _release(future, None)


def _release(future: "asyncio.Future[End | None]", end: End | None) -> None:
    if not future.done():
        future.set_result(end)
