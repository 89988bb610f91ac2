"""Collecting: what other shards send to this one. Who is brought a bundle passes it on to its committee, and tells who brought it
when it is taken (``delivering``); what is known to have been lost is asked for.

What passing on costs is bounded: a bundle is passed on once by each member at most, only if its source's committee signed it, and
only if it is kept (``inbox``).
"""

from node.effects import Send
from node.ledger.state import State
from node.protocol.certificate import Electorate
from node.protocol.channel import CertifiedBundle
from node.protocol.messages import BundleDelivery, BundleRequest
from node.replica.delivering import FAR_AWAY, first_hands
from node.replica.inbox import Inbox

_NEW = -1
"""Of a gap: it may close by itself, since bundles may come in another order."""


class Collecting:
    """One member's part. ``electorates``: of all shards. ``beat``: ms between two looks at what is under way."""

    def __init__(self, shard: int, member: int, electorates: dict[int, Electorate], inbox: Inbox, beat: int) -> None:
        self._shard, self._member, self._electorates, self._inbox, self._beat = shard, member, electorates, inbox, beat
        self._own = electorates[shard]
        self._couriers: dict[int, dict[bytes, None]] = {}
        """By source, those who brought bundles and were not told yet what was taken."""
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
        return self._next if self._claimed or self._gaps else FAR_AWAY

    def received(self, peer: bytes, certified: CertifiedBundle, is_new: bool, cursor: int) -> list[Send]:
        """A bundle came; ``is_new``: it was kept. Pass it on, if it is new and either came from outside or this member is one of
        its first hands: then the others of these have it, too."""
        bundle = certified.bundle
        source = self._electorates.get(bundle.source)
        if source is None or bundle.source == self._shard or bundle.destination != self._shard:
            return []
        if peer in source.keys:
            self._couriers.setdefault(bundle.source, {})[peer] = None
            if bundle.sequence <= cursor:
                self._claimed.add(bundle.source)
        if self._inbox.lacks_next(bundle.source, cursor):
            self._gaps.setdefault(bundle.source, _NEW)
        return self._pass_on(peer, certified) if is_new else []

    def _pass_on(self, peer: bytes, certified: CertifiedBundle) -> list[Send]:
        own = self._own.keys[self._member]
        hands = first_hands(certified.bundle, self._own)
        have_it = hands if own in hands else (own,)
        if peer in self._own.keys and own not in hands:
            return []
        delivery = BundleDelivery(certified)
        return [Send(key, delivery) for key in self._own.keys if key not in have_it and key != peer]

    def decline(self, peer: bytes, certified: CertifiedBundle) -> list[Send]:
        """The chain is closed, nothing is taken any more: who brings a bundle is told so, lest it brings that again and again."""
        bundle = certified.bundle
        source = self._electorates.get(bundle.source)
        if source is None or peer not in source.keys or bundle.source == self._shard or bundle.destination != self._shard:
            return []
        return [Send(peer, BundleRequest(self._shard, bundle.sequence + 1, is_claim=True), bundle.source)]

    def took(self, source: int) -> None:
        """A final block has taken a bundle of this source."""
        self._moved.add(source)
        if source in self._couriers:
            self._claimed.add(source)
        if source in self._gaps:
            self._gaps[source] = _NEW

    def poll(self, state: State, now: int) -> list[Send]:
        """Tell those who brought bundles what was taken, and ask one source, each in turn, for what is known to be missing."""
        if now < self.deadline:
            return []
        self._next = now + self._beat
        found = []
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
