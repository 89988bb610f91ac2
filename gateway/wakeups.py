"""Wake-ups between the processes on one database: look at it, there may be something new. They carry nothing else.

Losing one costs a second at most, because everybody looks once a second; a flood of them costs a look every few milliseconds.
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

from node.client.line import BrokerUnavailable, Line

_EVERY = 1.0
_SHORTEST_PAUSE = 0.02
_SENDER_BYTES = 8


class Wakeups:
    """``look``: awaited when there may be something new; ``jobs`` says that this may be a job."""

    def __init__(self, line: Line, network: bytes, secret: bytes, look: Callable[[bool], Awaitable[None]]) -> None:
        """``secret``: of all processes on the database; it names the channel, so that strangers do not find it."""
        self._line, self._look = line, look
        self._me = secrets.token_bytes(_SENDER_BYTES)
        self._topic = f"shardpay:{network.hex()}:{hmac.digest(secret, b'shardpay/wake-ups', 'sha256').hex()[:32]}"
        self._heard, self._rung = asyncio.Event(), asyncio.Event()
        self._hears_of_jobs = self._tells_of_jobs = False
        line.subscribe(self._topic, _SENDER_BYTES + 1, self._hear)

    def ring(self, jobs: bool = False) -> None:
        """Wake the other processes."""
        self._tells_of_jobs |= jobs
        self._rung.set()

    def _hear(self, body: bytes) -> None:
        if not body.startswith(self._me):
            self._hears_of_jobs |= body.endswith(b"j")
            self._heard.set()

    async def run(self) -> None:
        """Look, and wake the others, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell())
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY):
                        await self._heard.wait()
                self._heard.clear()
                jobs, self._hears_of_jobs = self._hears_of_jobs, False
                await self._look(jobs)
                await asyncio.sleep(_SHORTEST_PAUSE)

    async def _tell(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            jobs, self._tells_of_jobs = self._tells_of_jobs, False
            with suppress(BrokerUnavailable):
                await self._line.publish(self._topic, self._me + (b"j" if jobs else b"-"))
            await asyncio.sleep(_SHORTEST_PAUSE)
