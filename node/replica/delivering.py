"""Delivering: the channels to other shards, in both directions. What is lost on the way is asked for again."""

from collections.abc import Sequence

from node.effects import Send
from node.ledger.execution import Execution
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.certificate import Electorate, FinalBlock
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import encode
from node.protocol.messages import BundleDelivery, BundleRequest
from node.replica.inbox import Inbox


class Delivering:
    """One member's part. ``electorates``: of all shards."""

    def __init__(self, shard: int, member: int, electorates: dict[int, Electorate], inbox: Inbox) -> None:
        self._shard, self._member, self._electorates, self._inbox = shard, member, electorates, inbox
        self._polled = 0
        self._asked: dict[int, int] = {}
        self._moved: set[int] = set()
        self._claims: dict[int, dict[bytes, int]] = {}
        self._taken: dict[int, int] = {}

    def deliver(self, bundles: Sequence[CertifiedBundle], height: int) -> list[Send]:
        """f+1 members, in turn, send a bundle to all of its destination: one of them at least is honest. Should all of
        them fail, the destination asks."""
        own = self._electorates[self._shard]
        if (self._member - height) % len(own.keys) > own.faults_tolerated:
            return []
        return [
            Send(key, delivery)
            for delivery in map(BundleDelivery, bundles)
            for key in self._electorates[delivery.bundle.bundle.destination].keys
        ]

    def asked(self, peer: bytes, request: BundleRequest) -> None:
        """A member of the destination that asks for a bundle has all before it in final blocks, or says so."""
        electorate = self._electorates.get(request.destination)
        if electorate is not None and peer in electorate.keys and request.destination != self._shard:
            claims = self._claims.setdefault(request.destination, {})
            claims[peer] = max(claims.get(peer, 0), request.sequence - 1)

    def newly_taken(self) -> tuple[tuple[int, int], ...]:
        """(destination, number of the last bundle that f + 1 of its members have taken), where that has grown: one of them is
        honest, so the bundle is in a final block there, and who lacks it gets it from its own committee."""
        found = []
        for destination, claims in self._claims.items():
            believed = sorted(claims.values(), reverse=True)[self._electorates[destination].faults_tolerated :]
            if believed and believed[0] > self._taken.get(destination, 0):
                self._taken[destination] = believed[0]
                found.append((destination, believed[0]))
        return tuple(found)

    def poll(self, state: State) -> list[Send]:
        """Ask one source shard, each in turn, for what follows the cursor: what was lost on the way comes again."""
        sources = self._inbox.sources
        if not sources:
            return []
        self._polled += 1
        source = sources[self._polled % len(sources)]
        return [] if self._inbox.holds(source, state.cursor(source) + 1) else [self._ask(source, state)]

    def took(self, source: int) -> None:
        """A final block has taken a bundle of this source."""
        self._moved.add(source)

    def ask_for_more(self, state: State) -> list[Send]:
        """Ask at once for what had no room here until final blocks took what was before it. Each in turn would take as many
        heartbeats as there are windows to catch up with. What a liar says to be there costs a request for each such block."""
        found = [
            self._ask(source, state) for source in sorted(self._moved) if self._inbox.lacks_next(source, state.cursor(source))
        ]
        self._moved.clear()
        return found

    def _ask(self, source: int, state: State) -> Send:
        """Ask the next member of a source shard; each of those who ask begins with another."""
        self._asked[source] = self._asked.get(source, 0) + 1
        keys = self._electorates[source].keys
        target = keys[(self._member + self._asked[source]) % len(keys)]
        return Send(target, BundleRequest(self._shard, state.cursor(source) + 1))


def certify_bundles(execution: Execution, final: FinalBlock) -> list[CertifiedBundle]:
    """What a final block sends to other shards, each bundle with its proof."""
    leaves = [encode(bundle) for bundle in execution.outbox]
    return [
        CertifiedBundle(bundle, final.block.header, final.finality, merkle.branch(leaves, i))
        for i, bundle in enumerate(execution.outbox)
    ]
