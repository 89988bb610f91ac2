"""Collecting: what other shards send to this one. Who is brought a bundle passes it on to its committee, and tells who brought or
named it when it is taken (``delivering``); what is known to have been lost is asked for.

What passing on costs is bounded: a bundle is passed on once by each member at most, only if its source's committee signed it, and
only if it is kept (``inbox``). First hands share their committee: each other member is brought the bundle by one of them, and the
others name it (``naming``).
"""

from node.effects import Send
from node.ledger.state import State
from node.protocol.certificate import Electorate
from node.protocol.channel import CertifiedBundle
from node.protocol.messages import BundleDelivery, BundleName, BundleRequest
from node.replica.delivering import FAR_AWAY, first_hands
from node.replica.inbox import Inbox
from node.replica.naming import Naming
from node.replica.pace import Pace

_NEW = -1
"""Of a gap: it may close by itself, since bundles may come in another order."""


class Collecting:
    """One member's part. ``electorates``: of all shards. ``beat``: ms between two looks at what is under way."""

    def __init__(self, shard: int, member: int, electorates: dict[int, Electorate], inbox: Inbox, pace: Pace, beat: int) -> None:
        self._shard, self._member, self._electorates, self._inbox, self._beat = shard, member, electorates, inbox, beat
        self._own = electorates[shard]
        self._naming = Naming(shard, inbox, pace)
        self._couriers: dict[int, dict[bytes, None]] = {}
        """By source, those who brought or named bundles and were not told yet what was taken."""
        self._claimed: set[int] = set()
        """Sources whose couriers are to be told."""
        self._gaps: dict[int, int] = {}
        """Sources of which a later bundle came than the next, and how often that one was asked for since it was taken up."""
        self._asked: dict[int, int] = {}
        self._moved: set[int] = set()
        self._turn = 0
        self._next = 0

    @property
    def deadline(self) -> int:
        """When ``poll`` is due, if nothing happens before."""
        return min(self._naming.deadline, self._next_look)

    @property
    def _next_look(self) -> int:
        return self._next if self._claimed or self._gaps else FAR_AWAY

    def received(self, peer: bytes, certified: CertifiedBundle, is_new: bool, cursor: int) -> list[Send]:
        """A bundle came; ``is_new``: it was kept. Pass it on, if it is new and either came from outside or this member is one of
        its first hands: then the others of these have it, too."""
        bundle = certified.bundle
        source = self._electorates.get(bundle.source)
        if source is None or bundle.source == self._shard or bundle.destination != self._shard:
            return []
        if peer in source.keys:
            self._brought_by(peer, bundle.source, bundle.sequence, cursor)
        self._look_for_gap(bundle.source, cursor)
        return self._pass_on(peer, certified) if is_new else []

    def named(self, peer: bytes, name: BundleName, cursor: int, now: int) -> None:
        """A member of a bundle's source, or of this shard, says that it has it."""
        source, sequence, electorate = name.source, name.sequence, self._electorates.get(name.source)
        if electorate is None or source == self._shard or peer not in electorate.keys + self._own.keys:
            return
        if is_from_source := peer in electorate.keys:
            self._brought_by(peer, source, sequence, cursor)
        if self._inbox.has_room(source, sequence, cursor):
            self._naming.named(peer, source if is_from_source else self._shard, source, sequence, now)
        elif sequence > cursor:
            self._not_here(source, sequence, cursor)

    def _brought_by(self, peer: bytes, source: int, sequence: int, cursor: int) -> None:
        self._couriers.setdefault(source, {})[peer] = None
        if sequence <= cursor:
            self._claimed.add(source)

    def _not_here(self, source: int, sequence: int, cursor: int) -> None:
        self._inbox.heard_of(source, sequence)
        self._look_for_gap(source, cursor)

    def _look_for_gap(self, source: int, cursor: int) -> None:
        if self._inbox.lacks_next(source, cursor):
            self._gaps.setdefault(source, _NEW)

    def _pass_on(self, peer: bytes, certified: CertifiedBundle) -> list[Send]:
        own, bundle = self._own.keys[self._member], certified.bundle
        hands = first_hands(bundle, self._own)
        delivery, name = BundleDelivery(certified), BundleName(bundle.source, bundle.sequence)
        if own in hands:
            others = [key for key in self._own.keys if key not in hands]
            turn = hands.index(own)
            found = [Send(key, delivery if i % len(hands) == turn else name) for i, key in enumerate(others)]
        else:
            found = [Send(key, name) for key in self._own.keys if key != own] if peer not in self._own.keys else []
        return [send for send in found if send.peer != peer]

    def decline(self, peer: bytes, source: int, sequence: int) -> list[Send]:
        """The chain is closed, nothing is taken any more: who brings or names a bundle is told so, lest it do that again."""
        electorate = self._electorates.get(source)
        if electorate is None or peer not in electorate.keys or source == self._shard:
            return []
        return [Send(peer, BundleRequest(self._shard, sequence + 1, is_claim=True), source)]

    def took(self, source: int) -> None:
        """A final block has taken a bundle of this source."""
        self._moved.add(source)
        if source in self._couriers:
            self._claimed.add(source)
        if source in self._gaps:
            self._gaps[source] = _NEW

    def poll(self, state: State, now: int) -> list[Send]:
        """Tell those who brought bundles what was taken, and ask one source, each in turn, for what is known to be missing."""
        found, missing = self._naming.poll(state, now)
        for source, sequence in missing:
            self._not_here(source, sequence, state.cursor(source))
        if now < self._next_look:
            return found
        self._next = now + self._beat
        for source in sorted(self._claimed):
            following = state.cursor(source) + 1
            request = BundleRequest(self._shard, following, self._inbox.holds(source, following))
            found += [Send(courier, request, source) for courier in self._couriers.pop(source, ())]
        self._claimed.clear()
        return found + self._ask_for_missing(state)

    def _ask_for_missing(self, state: State) -> list[Send]:
        """Nobody may have what a liar says there is: after each member of the source was asked in vain it is not believed."""
        for source, tries in list(self._gaps.items()):
            cursor = state.cursor(source)
            if tries >= len(self._electorates[source].keys):
                self._inbox.disbelieve(source)
            if not self._inbox.lacks_next(source, cursor):
                del self._gaps[source]
        lasting = [source for source in sorted(self._gaps) if self._gaps[source] != _NEW]
        self._gaps.update({source: 0 for source in self._gaps if source not in lasting})
        if not lasting:
            return []
        self._turn += 1
        source = lasting[self._turn % len(lasting)]
        self._gaps[source] += 1
        return [self._ask(source, state)]

    def ask_for_more(self, state: State) -> list[Send]:
        """Ask at once for what had no room here until final blocks took what was before it. Waiting would take as many beats as
        there are windows to catch up with. What a liar says to be there costs a request for each such block."""
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
        return Send(target, BundleRequest(self._shard, state.cursor(source) + 1), source)
