"""Which members of each committee are up, and where they stand: asked every second, answered with signatures."""

import asyncio
import math
import time
from collections.abc import Iterable
from contextlib import suppress

from gateway.follower import ShardFollower
from gateway.queries import Queries
from node.client.line import BrokerUnavailable
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.queries import GetStatus, NodeStatus

_INTERVAL = 1.0
_UP_WITHIN = 3.0
_GROWN_WITHIN = 5.0
"""Seconds. An idle shard makes a block a second, and each block is a quorum's."""


class NetworkView:
    """The latest status of every member."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._grown: dict[Chain, tuple[int, float]] = {}  # height, and when it was reached
        self._latest: dict[tuple[Chain, int], tuple[float, NodeStatus]] = {}

    def status(self, chain: Chain, member: int) -> tuple[bool, NodeStatus | None]:
        """(whether it answered within the last 3 s, its last answer)."""
        heard, status = self._latest.get((chain, member), (0.0, None))
        return status is not None and time.monotonic() - heard < _UP_WITHIN, status

    def without_quorum(self, electorates: Iterable[Electorate]) -> list[str]:
        """Which committees make no blocks, and cannot, in words."""
        found, now = [], time.monotonic()
        for electorate in electorates:
            up = sum(self.status(electorate.chain, member)[0] for member in range(len(electorate.keys)))
            if up < electorate.quorum and now - self._grown.get(electorate.chain, (0, -math.inf))[1] > _GROWN_WITHIN:
                found.append(f"shard {electorate.shard} has no quorum: {up} of {len(electorate.keys)} members answer")
        return found

    async def watch(self, electorate: Electorate, follower: ShardFollower) -> None:
        """Ask a committee's members once a second, until its chain ends or this is cancelled. ``follower``: of that chain."""
        chain = electorate.chain
        self._grown[chain] = (follower.height, -math.inf)
        while not follower.has_ended:
            begun = time.monotonic()
            if (reached := follower.height) > self._grown[chain][0]:
                self._grown[chain] = (reached, begun)
            with suppress(BrokerUnavailable):
                question = await self._queries.ask(electorate, GetStatus(), _INTERVAL)
                for member, status in question.answers.items():
                    if isinstance(status, NodeStatus):
                        self._latest[chain, member] = (time.monotonic(), status)
            await asyncio.sleep(max(0.05, _INTERVAL - (time.monotonic() - begun)))
        self._grown.pop(chain)
        self._latest = {place: heard for place, heard in self._latest.items() if place[0] != chain}
