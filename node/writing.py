"""Durable writes: on the spot while the disk is quick, else in a thread.

A thread costs as much as a quick write does, and more beside a busy loop: SQLite gives up the interpreter for each statement, and
the thread has to get it back, which takes up to 5 ms each time.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

import trio

from node.database import StorageFull
from node.effects import Persist, Row
from node.metrics import Metrics
from node.protocol.chain import Chain
from node.stores import Stores

T = TypeVar("T")

QUICK = 0.004
"""Seconds: for so long the loop may stand still, as it does for signatures that are checked between its turns."""
_SHARE = 1 / 8
"""Of the newest write in what is remembered."""
_FULL_SECONDS = 2.0


class Writing:
    """One write at a time; whoever awaits it does nothing else. ``notable`` is told when the disk is full."""

    def __init__(self, stores: Stores, metrics: Metrics, notable: Callable[[str], None]) -> None:
        self._stores, self._metrics = stores, metrics
        self._notable = notable
        self._thread = trio.CapacityLimiter(1)  # of its own: those that read may all be in use
        self._usual = 0.0
        """Seconds of a write."""

    async def write(self, chain: Chain, rows: Sequence[Row]) -> None:
        """As ``Stores.write``; waits while the disk is full."""
        await self._store(self._stores.write, chain, rows)

    async def remember(self, records: Sequence[Persist]) -> None:
        """As ``Stores.remember``; waits while the disk is full."""
        await self._store(self._stores.remember, records)

    async def _store(self, work: Callable[..., None], *arguments: object) -> None:
        started = perf_counter()
        await self.despite_full(work, *arguments, on_the_spot=self._usual < QUICK, limiter=self._thread)
        took = perf_counter() - started
        self._usual += (took - self._usual) * _SHARE
        self._metrics.write_seconds(took)

    async def despite_full(
        self, work: Callable[..., T], *arguments: object, on_the_spot: bool = False, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """Do it, in a thread unless ``on_the_spot``, and again while the disk is full. ``limiter``: of threads; None: trio's."""
        is_full = False
        while True:
            try:
                if on_the_spot:
                    done = work(*arguments)
                else:
                    done = await trio.to_thread.run_sync(work, *arguments, limiter=limiter)
            except StorageFull as error:
                if not is_full:
                    self._notable(f"standing still: {error}")
                is_full = True
                await trio.sleep(_FULL_SECONDS)
                continue
            if is_full:
                self._notable("there is room on the disk again; going on")
            return done
