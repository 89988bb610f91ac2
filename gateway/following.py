"""What one process does for all: it follows the chains, and does whatever must not be done twice at once.

The others answer requests just the same. They read in the database what this one derives, and one of them takes over when it is
gone.

A chain is followed once all chains that it comes from are in the database up to their closing blocks. So whatever a chain says of
an account comes after all that was said of it before, however far behind the process is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from gateway.database import Database, now_ms
from gateway.epochs import StoredEpochs
from gateway.follower import ShardFollower
from gateway.lease import Lease, Lost
from gateway.ledger import Ledger, Superseded
from gateway.queries import Queries
from gateway.relay import MAX_PENDING, Relay
from gateway.rows import Place, waiting_rows, waiting_since
from node.client.line import Line
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.topics import blocks_topic

_RESEND_EVERY = 5.0
_RESEND_AFTER_MS = 15_000
"""What has waited for so long is sent by this process, too: the one that took it in may be gone."""
_LOOKED_AT_AT_ONCE = 2000
_BEGINS_WITHIN_MS = 60_000
"""So long a chain that begins may be without a block, and who has followed all before has caught up."""


class Following:
    """Attributes:
    chains: of all epochs, followed or not.
    duties: what else is done, each until cancelled.
    """

    def __init__(
        self, database: Database, line: Line, epochs: StoredEpochs, network: bytes, lease: Lease, ledger: Ledger, relay: Relay
    ) -> None:
        self._database, self._line, self._epochs, self._network = database, line, epochs, network
        self._lease, self._ledger, self._relay = lease, ledger, relay
        self._formed = asyncio.Event()
        self.chains: dict[Chain, ShardFollower] = {}
        self.duties: Sequence[Callable[[], Awaitable[None]]] = ()

    def form(self, document: EpochDocument, queries: Queries, lookups: Queries) -> None:
        """An epoch has begun: listen to its committees. The chains of the one before end. ``lookups``: for what people ask."""
        self._ledger.documents = self._epochs.documents
        for electorate in document.electorates.values():
            chain = electorate.chain
            parts = partial(self._epochs.end, chain), partial(self._ledger.place, chain), partial(self._ledger.apply, chain)
            self.chains[chain] = ShardFollower(electorate, queries, lookups, *parts)
            self._line.subscribe(blocks_topic(self._network, chain), MAX_BROKER_BODY_BYTES, self.chains[chain].hear)
        for electorate in self._ended(document):
            self._line.unsubscribe(blocks_topic(self._network, electorate.chain))  # what is missing is asked for
            self.chains[electorate.chain].finish()
        self._formed.set()

    async def run(self) -> None:
        """Do it whenever this process has the lease, until cancelled."""
        await self._lease.keep(self._lead, self._caught_up)

    def missing(self) -> list[str]:
        """Which chains are not followed to their ends, in words."""
        if self._lease.held:
            cut_off = [follower.missing for follower in self.chains.values() if follower.is_cut_off]
            return cut_off or [self.chains[chain].missing for chain in self._latest() if not self._is_followed(chain)]
        if not self._lease.holder:
            return ["no process follows the chains"]
        return [] if self._lease.caught_up else [f"{self._lease.holder} has not caught up"]

    def begins(self, chain: Chain) -> bool:
        """Whether a chain of a known epoch has just been opened, and none of its blocks is here."""
        opened = self._epochs.opened(chain)
        return self._ledger.place(chain).height == 0 and now_ms() - opened < _BEGINS_WITHIN_MS

    def _is_followed(self, chain: Chain) -> bool:
        """To its end; or it begins, and all before has been."""
        if self.chains[chain].caught_up:
            return True
        return self.begins(chain) and all(self.chains[origin].caught_up for origin in self._epochs.origins(chain))

    def _ended(self, document: EpochDocument) -> Iterable[Electorate]:
        """The committees of the epoch before."""
        return self._epochs.documents[document.number - 2].electorates.values() if document.number > 1 else ()

    def _of(self, epoch: int) -> list[Chain]:
        return sorted(chain for chain in self.chains if chain.epoch == epoch)

    def _latest(self) -> list[Chain]:
        return self._of(len(self._epochs.documents))

    def _caught_up(self) -> bool:
        return bool(self.chains) and all(self._is_followed(chain) for chain in self._latest())

    async def _lead(self) -> None:
        await self._ledger.lead()
        try:
            async with asyncio.TaskGroup() as tasks:
                for duty in (*self.duties, self._resend):
                    tasks.create_task(_run(duty))
                await self._follow(tasks)
        finally:
            self._ledger.follow()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """All chains of all epochs, as they come to be known."""
        complete = {chain: asyncio.Event() for chain in await self._passed()}
        for event in complete.values():
            event.set()
        while True:
            self._formed.clear()
            for chain in [chain for chain in self.chains if chain not in complete]:
                complete[chain] = asyncio.Event()
                tasks.create_task(self._follow_chain(chain, complete))
            await self._formed.wait()

    async def _passed(self) -> set[Chain]:
        """Chains that need not be looked at again: all that come from them had begun, and nothing waits there or earlier."""
        waiting, documents = await self._database.read(waiting_since), self._epochs.documents
        past = [chain for chain in self.chains if chain.epoch < min(len(documents), waiting or len(documents))]

        def children(chain: Chain) -> Iterator[Chain]:
            return (Chain(chain.epoch + 1, shard) for shard in documents[chain.epoch].children_of(chain.shard))

        return {chain for chain in past if all(map(self._ledger.has_begun, children(chain)))}

    async def _follow_chain(self, chain: Chain, complete: Mapping[Chain, asyncio.Event]) -> None:
        """From where all that it comes from is in the database to its end."""
        for origin in (origins := self._epochs.origins(chain)):
            await complete[origin].wait()
        await self._epochs.save()
        if origins:
            await self._ledger.begin(chain, self._epochs.opened(chain))
        try:
            await self.chains[chain].run()
        except Superseded as superseded:
            raise Lost(str(superseded)) from None
        await self._ledger.leave(chain)
        complete[chain].set()

    async def _resend(self) -> None:
        """Send what other processes took in and cannot have sent, or have sent in vain: at first all that waits. They may not
        have known yet that an epoch had begun."""
        before = now_ms()
        while True:
            for chain in self._of(len(self._epochs.documents) - 1):
                if self.chains[chain].is_complete:
                    await self._ledger.leave(chain)
            await self._hand_over(before)
            await self._ledger.look_back()
            await asyncio.sleep(_RESEND_EVERY)
            before = now_ms() - _RESEND_AFTER_MS

    async def _hand_over(self, before: int) -> None:
        """To the relay, as far as it has room: all that waits and was handed in earlier than ``before``."""
        place: Place | None = (0, b"")
        while place is not None and (room := MAX_PENDING - len(self._relay)) > 0:
            look = partial(waiting_rows, after=place, before=before, most=_LOOKED_AT_AT_ONCE, known=self._relay)
            rows, place = await self._database.read(look)
            for tracked in rows[:room]:
                self._relay.add(tracked)


async def _run(duty: Callable[[], Awaitable[None]]) -> None:
    await duty()
