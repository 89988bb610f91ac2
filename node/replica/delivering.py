"""Delivering: what this shard sends to others, to a few of their members, and again until they have taken it.

f + 1 members in turn send a bundle to ``first_hands`` of its destination, and see to it that it is taken: one of them at least is
honest, and so is one of those, who passes it on to its committee (``collecting``). The first in turn brings it; the others name
it, and give it to who asks (``naming``); so all have it with the same proof. What f + 1 members of the destination do not claim
to have taken within a heartbeat is named again, to others. So a channel on which nothing is under way costs nothing.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from node.effects import Send
from node.ledger.execution import Execution
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.certificate import Electorate, FinalBlock
from node.protocol.channel import Bundle, CertifiedBundle
from node.protocol.codec import encode
from node.protocol.messages import BundleDelivery, BundleName, BundleRequest

TURN = 64
"""So many bundles in a row have the same first hands: connections are used again."""
FAR_AWAY = 1 << 62


def first_hands(bundle: Bundle, destination: Electorate) -> tuple[bytes, ...]:
    """The f + 1 members of the destination that are sent a bundle, in turn: one of them at least is honest."""
    return some_of(destination, bundle.source + bundle.sequence // TURN)


def some_of(electorate: Electorate, start: int) -> tuple[bytes, ...]:
    """f + 1 members in a row."""
    keys = electorate.keys
    return tuple(keys[(start + i) % len(keys)] for i in range(electorate.faults_tolerated + 1))


class Delivering:
    """One member's part. ``electorates``: of all shards. ``kept``: the first bundle that is stored to each destination; what was
    forgotten before was taken. ``beat``: ms between two looks at what is under way, half a heartbeat."""

    def __init__(
        self, shard: int, member: int, electorates: dict[int, Electorate], state: State, kept: Mapping[int, int], beat: int
    ) -> None:
        self._shard, self._member, self._electorates, self._beat = shard, member, electorates, beat
        self._taken = {other: kept.get(other, state.sequence(other) + 1) - 1 for other in electorates if other != shard}
        self._promised = {other: state.sequence(other) for other in kept}
        """By destination, the last bundle that this member sees to: after a start all that are stored."""
        self._overdue: dict[int, tuple[int, int]] = {}
        """By destination, what was promised two looks ago, and at the last one."""
        self._tries: dict[int, int] = {}
        self._fresh: dict[int, deque[tuple[int, int]]] = {}
        """By destination, (when, sequence) of what became final within a beat: it is on its way."""
        self._claims: dict[int, dict[bytes, int]] = {}
        self._news: dict[int, int] = {}
        self._next = 0

    @property
    def deadline(self) -> int:
        """When ``poll`` is due, if nothing happens before."""
        return self._next if self._promised else FAR_AWAY

    def deliver(self, bundles: Sequence[CertifiedBundle], height: int, is_news: bool, now: int) -> list[Send]:
        """The bundles of a final block, if it is this member's turn. ``is_news``: whether it has just become final; one that was
        adopted others have sent already, but this one sees to it, too."""
        own = self._electorates[self._shard]
        turn = (self._member - height) % len(own.keys)
        is_in_turn = turn <= own.faults_tolerated
        sent = []
        for certified in bundles:
            bundle = certified.bundle
            if is_news:
                self._on_their_way(bundle.destination, now).append((now, bundle.sequence))
            if is_in_turn:
                self._promised[bundle.destination] = bundle.sequence
            if is_in_turn and is_news:
                message = BundleDelivery(certified) if turn == 0 else BundleName(bundle.source, bundle.sequence)
                hands = first_hands(bundle, self._electorates[bundle.destination])
                sent += [Send(key, message, bundle.destination) for key in hands]
        return sent

    def asked(self, peer: bytes, request: BundleRequest) -> None:
        """A member of the destination that asks for a bundle has all before it in final blocks, or says so. What f + 1 of them
        have taken is in a final block there, since one of them is honest: who lacks it gets it from its own committee."""
        destination, electorate = request.destination, self._electorates.get(request.destination)
        if electorate is None or peer not in electorate.keys or destination == self._shard:
            return
        claims = self._claims.setdefault(destination, {})
        claims[peer] = max(claims.get(peer, 0), request.sequence - 1)
        believed = sorted(claims.values(), reverse=True)[electorate.faults_tolerated :]
        if believed and believed[0] > self._taken[destination]:
            self._taken[destination] = self._news[destination] = believed[0]

    def newly_taken(self) -> tuple[tuple[int, int], ...]:
        """(destination, number of the last bundle that was taken there), where that has grown."""
        found, self._news = tuple(sorted(self._news.items())), {}
        return found

    def is_due(self, request: BundleRequest, now: int) -> bool:
        """Whether to answer: not a claim, nor with what has just been sent, and is on its way."""
        if request.is_claim or request.destination not in self._fresh:
            return not request.is_claim
        fresh = self._on_their_way(request.destination, now)
        return not fresh or request.sequence < fresh[0][1]

    def _on_their_way(self, destination: int, now: int) -> deque[tuple[int, int]]:
        fresh = self._fresh.setdefault(destination, deque())
        while fresh and fresh[0][0] + self._beat <= now:
            fresh.popleft()
        return fresh

    def poll(self, now: int) -> list[Send]:
        """Name again what was not taken for a heartbeat: the first such bundle of each channel, to the next f + 1 members. Who
        has taken it says so, and who asks for it, or for more, gets it."""
        if now < self.deadline:
            return []
        self._next = now + self._beat
        found: list[Send] = []
        for destination, promised in list(self._promised.items()):
            taken = self._taken[destination]
            if taken >= promised:
                self._forget(destination)
                continue
            earlier, last = self._overdue.get(destination, (0, 0))
            if taken < earlier:
                found += self._again(destination, taken + 1)
                last = 0
                self._promised[destination] = self._promised.pop(destination)  # others come first next time
            self._overdue[destination] = last, promised
        return found

    def _again(self, destination: int, sequence: int) -> list[Send]:
        electorate = self._electorates[destination]
        tries = self._tries[destination] = self._tries.get(destination, 0) + 1
        some = some_of(electorate, self._member + tries * (electorate.faults_tolerated + 1))
        return [Send(key, BundleName(self._shard, sequence), destination) for key in some]

    def _forget(self, destination: int) -> None:
        del self._promised[destination]
        self._overdue.pop(destination, None)
        self._tries.pop(destination, None)


def certify_bundles(execution: Execution, final: FinalBlock) -> list[CertifiedBundle]:
    """What a final block sends to other shards, each bundle with its proof."""
    leaves = [encode(bundle) for bundle in execution.outbox]
    return [
        CertifiedBundle(bundle, final.block.header, final.finality, merkle.branch(leaves, i))
        for i, bundle in enumerate(execution.outbox)
    ]
