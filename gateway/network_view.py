"""Which members of each committee are up, and where they stand: asked every second, answered with signatures."""

import asyncio
import time
from contextlib import suppress

from gateway.queries import Queries
from node.client.line import BrokerUnavailable
from node.protocol.certificate import Electorate
from node.protocol.queries import GetStatus, NodeStatus

_INTERVAL = 1.0
_UP_WITHIN = 3.0


class NetworkView:
    """The latest status of every member."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._latest: dict[tuple[int, int], tuple[float, NodeStatus]] = {}

    def status(self, shard: int, member: int) -> tuple[bool, NodeStatus | None]:
        """(whether it answered within the last 3 s, its last answer)."""
        heard, status = self._latest.get((shard, member), (0.0, None))
        return status is not None and time.monotonic() - heard < _UP_WITHIN, status

    async def watch(self, electorate: Electorate) -> None:
        """Ask a committee's members once a second, until cancelled."""
        while True:
            begun = time.monotonic()
            with suppress(BrokerUnavailable):
                question = await self._queries.ask(electorate, GetStatus(), _INTERVAL)
                for member, status in question.answers.items():
                    if isinstance(status, NodeStatus):
                        self._latest[electorate.shard, member] = (time.monotonic(), status)
            await asyncio.sleep(max(0.05, _INTERVAL - (time.monotonic() - begun)))
