"""Which chains a node has a part in, from epoch to epoch, and with whom it is connected for that.

    it has a seat in the epoch        keeps the chain of its shard
    it had one in the epoch before    goes on to serve that, closed, until the next epoch is over
    it had one in an earlier epoch    answers clients' questions for blocks (``archive``)
    it has one in the prospect        observes, or keeps, all chains that its new shard comes from
    it cannot open its own chain yet  observes that, for a checkpoint, and the chains that it comes from

Whatever comes first, the own chain's state or its origins' ends, opens it.
"""

from collections.abc import Iterable, Iterator

from node.archive import Archive
from node.chronicle import Chronicle
from node.duty import Duty
from node.effects import Meet, NodeEffect, Recover, Unsubscribe
from node.events import Asked, ChainEvent, Instant, Tick
from node.ledger.opening import Origin
from node.ledger.rules import Rules
from node.network.events import PeerDown, PeerUp
from node.protocol.chain import Chain
from node.protocol.change import Bulletin
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Committee, EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.messages import Frame
from node.replica.observer import Observer


class Duties:
    """``stored``: chains of which something is on the disk.

    Attributes:
        all: its parts, by chain. archive: the chains that it kept before.
        peers: who is connected.
    """

    def __init__(
        self, genesis: Genesis, key: KeyPair, name: str, keep_blocks: int, chronicle: Chronicle, stored: Iterable[Chain]
    ) -> None:
        self._genesis, self._key, self._name, self._keep_blocks = genesis, key, name, keep_blocks
        self._chronicle = chronicle
        self._stored = set(stored)
        self.archive = Archive(key, keep_blocks, genesis.parameters.validity_window, chronicle)
        self._prospect: EpochDocument | None = None
        """The latest in this epoch, in force or called off: what was begun for it may be of use for the next."""
        self._opened_with: set[Chain] = set()
        """Chains that were tried to be opened from closed origins."""
        self.all: dict[Chain, Duty] = {}
        self.peers: set[bytes] = set()

    # -- events ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> int | None:
        """When the next ``Tick`` is due (ms, monotonic); None: only events matter."""
        return min((due for duty in self.all.values() if (due := duty.deadline) is not None), default=None)

    def on_all(self, event: PeerUp | PeerDown | Tick, at: Instant) -> list[NodeEffect]:
        match event:
            case PeerUp(peer):
                self.peers.add(peer)
            case PeerDown(peer):
                self.peers.discard(peer)
        return [effect for duty in self.all.values() for effect in duty.handle(event, at)]

    def on_frame(self, peer: bytes, frame: Frame, at: Instant) -> list[NodeEffect]:
        """What is for a chain in which it has no part is as good as lost."""
        duty = self.all.get(Chain(frame.epoch, frame.shard))
        return duty.on_message(peer, frame.message, at) if duty is not None else []

    def on_answer(self, chain: Chain, event: ChainEvent, at: Instant) -> list[NodeEffect]:
        duty = self.all.get(chain)
        if duty is not None:
            return duty.handle(event, at)
        return self.archive.on_query(chain, event.query) if isinstance(event, Asked) else []

    def on_closing(self, closing: Bulletin, at: Instant) -> list[NodeEffect]:
        """A shard's closing block is known."""
        duty = self.all.get(Chain(closing.epoch, closing.header.shard))
        return duty.expect(closing.header.height, at) if duty is not None and not duty.is_closed else []

    # -- from epoch to epoch ---------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[tuple[Chain, bool, bool]]:
        """How far its parts are, as far as others follow from that: when this changes, ``tend``."""
        return [(chain, duty.runs is None, duty.is_closed) for chain, duty in self.all.items()]

    @property
    def own(self) -> Chain | None:
        """That of its seat in this epoch."""
        document = self._chronicle.document
        seat = document.seat_of(self._key.public) if document is not None else None
        return Chain(document.number, seat[0]) if document is not None and seat is not None else None

    def tend(self) -> list[NodeEffect]:
        """Begin and end what follows from the chronicle, and from how far each part is."""
        document = self._chronicle.document
        if document is None:
            return []
        if self._prospect is not None and self._prospect.number <= document.number:
            self._prospect = None
        self._prospect = self._chronicle.prospect or self._prospect
        wanted = list(dict.fromkeys(self._wanted(document)))
        effects = [effect for chain in wanted if chain not in self.all for effect in self._begin(chain)]
        for chain in [chain for chain in self.all if chain not in wanted]:
            effects += [Unsubscribe(chain)] if self.all.pop(chain).has_seat else []
        effects += self.archive.tend(self._over(document))
        for duty in self.all.values():
            duty.let_in(self._guests_of(duty.chain))
        return [*effects, *self._open()]

    def _wanted(self, document: EpochDocument) -> Iterator[Chain]:
        for one in self._chronicle.documents[-2:]:
            if (seat := one.seat_of(self._key.public)) is not None:
                yield Chain(one.number, seat[0])
        if self._prospect is not None:
            yield from self._origins(self._prospect)
        if self.own is not None:
            duty = self.all.get(self.own)
            if duty is not None and isinstance(duty.runs, Observer):
                yield from self._origins(document)
            elif duty is None or duty.runs is None:
                yield from (chain for chain in self._origins(document) if chain in self.all)

    def _origins(self, document: EpochDocument) -> list[Chain]:
        """The chains that its shard in this document comes from."""
        seat = document.seat_of(self._key.public)
        return [Chain(document.number - 1, shard) for shard in document.origins_of(seat[0])] if seat is not None else []

    def _begin(self, chain: Chain) -> list[NodeEffect]:
        wanted = self._recover(chain)
        self.all[chain] = duty = Duty(wanted.rules, wanted.electorate, self._key, self._name, self.peers, self._keep_blocks)
        self._stored.add(chain)
        return duty.start(wanted)

    def _recover(self, chain: Chain) -> Recover:
        """How a chain is brought back, or opened, if it is of this epoch."""
        document = self._chronicle.documents[chain.epoch - 1]
        rules, electorate = self._rules(chain), document.electorates[chain.shard]
        if chain.epoch == 1 or chain.epoch < len(self._chronicle.documents):
            return Recover(rules, electorate)
        return Recover(rules, electorate, self._closed_origins(chain), document, self._chronicle.credits)

    def _closed_origins(self, chain: Chain) -> tuple[Origin, ...]:
        """Those that it comes from, as they ended; none, while one of them is not here up to there."""
        found: list[Origin] = []
        for closing in self._closings(chain):
            duty = self.all.get(Chain(closing.epoch, closing.header.shard))
            state = duty.state_at(closing.header) if duty is not None else None
            if state is None:
                return ()
            found.append(Origin(state, closing.header))
        return tuple(found)

    def _rules(self, chain: Chain) -> Rules:
        document = self._chronicle.documents[chain.epoch - 1]
        opened = max((closing.header.time for closing in self._closings(chain)), default=None)
        return Rules(self._genesis, document.network_id, chain.shard, document.shards, document, opened)

    def _closings(self, chain: Chain) -> list[Bulletin]:
        """Of the chains that it comes from, in the document's order."""
        if chain.epoch == 1:
            return []
        closings = {one.header.shard: one for one in self._chronicle.successions[chain.epoch - 2].closings}
        return [closings[origin] for origin in self._chronicle.documents[chain.epoch - 1].origins_of(chain.shard)]

    def _over(self, document: EpochDocument) -> list[Chain]:
        """Chains of which something is stored, in which it has no part any more, and nothing is to be opened from: told once."""
        is_open = self.own is None or self.all[self.own].replica is not None
        needed = [] if is_open else self._origins(document)
        over = [c for c in self._stored if c.epoch < document.number and c not in self.all and c not in needed]
        self._stored.difference_update(over)
        return sorted(over)

    def _open(self) -> list[NodeEffect]:
        """Its own chain from its origins, once all of them have come to their ends here."""
        own, document = self.own, self._chronicle.document
        if own is None or document is None or own in self._opened_with or not isinstance(self.all[own].runs, Observer):
            return []
        origins = self._origins(document)
        if not origins or not all(chain in self.all and self.all[chain].is_closed for chain in origins):
            return []
        self._opened_with.add(own)
        return self.all[own].start(self._recover(own))

    def _guests_of(self, chain: Chain) -> frozenset[bytes]:
        """Who comes after its committee, and has to follow it."""
        following = self._prospect if chain.epoch == len(self._chronicle.documents) else self._chronicle.document
        if following is None or following.number != chain.epoch + 1:
            return frozenset()
        children = following.children_of(chain.shard)
        return frozenset(m.public_key for one in following.committees if one.shard in children for m in one.members)

    @property
    def ready_for(self) -> bytes:
        """Hash of the prospect, if it has a seat there, and could begin soon after the origins come to their ends."""
        prospect = self._chronicle.prospect
        origins = self._origins(prospect) if prospect is not None else []
        is_ready = origins and all(chain in self.all and self.all[chain].is_current for chain in origins)
        return prospect.hash if prospect is not None and is_ready else b""

    def meet(self) -> Meet:
        """With its own committees, those before and after that its shards come from and go to: these with it as it with them."""
        known = [*self._chronicle.documents[-2:], *([self._prospect] if self._prospect is not None else [])]
        own: list[Committee] = []
        for place, document in enumerate(known):
            seat = document.seat_of(self._key.public)
            if seat is None:
                continue
            shards = {(place, seat[0])} | {(place - 1, origin) for origin in document.origins_of(seat[0]) if place}
            if place + 1 < len(known):
                shards |= {(place + 1, child) for child in known[place + 1].children_of(seat[0])}
            own += [c for i, one in enumerate(known) for c in one.committees if (i, c.shard) in shards]
        unique = tuple(dict.fromkeys(own))
        return Meet(unique, tuple(c for one in known for c in one.committees if c not in unique))
