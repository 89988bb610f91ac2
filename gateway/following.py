"""What one process does for all: it follows the chains, and does whatever must not be done twice at once.

The others answer requests just the same. They read in the database what this one derives, and one of them takes over when it is
gone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from gateway.database import Database, now_ms
from gateway.follower import ShardFollower
from gateway.lease import Lease, Lost
from gateway.ledger import Ledger, Superseded
from gateway.queries import Queries
from gateway.relay import Relay
from gateway.rows import waiting_rows
from node.client.blocks import ProvenBlock
from node.client.line import Line
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.topics import blocks_topic

_RESEND_EVERY = 5.0
_RESEND_AFTER_MS = 15_000
"""What has waited for so long is sent by this process, too: the one that took it in may be gone."""
_RESEND_AT_ONCE = 2000


class Following:
    """Attributes:
    chains: each shard's, followed or not.
    duties: what else is done, each until cancelled.
    """

    def __init__(self, database: Database, line: Line, network: bytes, lease: Lease, ledger: Ledger, relay: Relay) -> None:
        self._database, self._line, self._network = database, line, network
        self._lease, self._ledger, self._relay = lease, ledger, relay
        self._formed = asyncio.Event()
        self.chains: dict[int, ShardFollower] = {}
        self.duties: Sequence[Callable[[], Awaitable[None]]] = ()

    def form(self, document: EpochDocument, queries: Queries) -> None:
        """The committees are known: listen to each."""
        self._ledger.shards = document.shards
        for shard, electorate in document.electorates.items():
            chain = self.chains[shard] = ShardFollower(electorate, queries, partial(self._ledger.place, shard), self._apply)
            self._line.subscribe(blocks_topic(self._network, electorate.chain), MAX_BROKER_BODY_BYTES, chain.hear)
        self._formed.set()

    async def run(self) -> None:
        """Do it whenever this process has the lease, until cancelled."""
        await self._lease.keep(self._lead, self._caught_up)

    def missing(self) -> list[str]:
        """Which chains are not followed to their ends, in words."""
        if self._lease.held:
            return [chain.missing for _, chain in sorted(self.chains.items()) if not chain.caught_up]
        if not self._lease.holder:
            return ["no process follows the chains"]
        return [] if self._lease.caught_up else [f"{self._lease.holder} has not caught up"]

    def _caught_up(self) -> bool:
        return bool(self.chains) and all(chain.caught_up for chain in self.chains.values())

    async def _lead(self) -> None:
        await self._ledger.lead()
        try:
            async with asyncio.TaskGroup() as tasks:
                for duty in (*self.duties, self._resend):
                    tasks.create_task(_run(duty))
                await self._formed.wait()
                for chain in self.chains.values():
                    tasks.create_task(chain.run())
        finally:
            self._ledger.follow()

    async def _apply(self, blocks: list[ProvenBlock]) -> None:
        try:
            await self._ledger.apply(blocks)
        except Superseded as superseded:
            raise Lost(str(superseded)) from None

    async def _resend(self) -> None:
        """Send what other processes took in and cannot have sent, or have sent in vain: at first all that waits."""
        before = now_ms()
        while True:
            rows = await self._database.read(partial(waiting_rows, most=_RESEND_AT_ONCE, before=before))
            for tracked in rows:
                self._relay.add(tracked)
            await asyncio.sleep(_RESEND_EVERY)
            before = now_ms() - _RESEND_AFTER_MS


async def _run(duty: Callable[[], Awaitable[None]]) -> None:
    await duty()
