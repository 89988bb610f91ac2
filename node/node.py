"""A node's whole mind: its membership in the network, what it knows of the epochs, and its duties in the chains.

Pure: what was stored and events go in, effects come out. On libp2p ``runtime`` performs them; the simulator performs them on
virtual disks and networks. Neither decides anything.
"""

from node.chronicle import Chronicle, NewBulletin, NewDocument, News, Refused
from node.consensus.round import Seat
from node.departure import Departure
from node.duties import Duties
from node.duty import Duty
from node.effects import AcceptDocument, Ban, Begin, In, Meet, NodeEffect, Publish, Tell
from node.events import AskedAbout, Bulletined, Event, For, Instant, Mined, Stored, Tick
from node.membership import PUZZLE, Membership, MembershipEffect, is_bound
from node.network.events import Message, PeerDown, PeerUp
from node.protocol.bulletins import GetChange, decode_ask
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.change import Stage
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument, Opening
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Frame
from node.protocol.reports import Notable
from node.protocol.topics import asks_topic, bulletins_topic
from node.renewal import Renewal
from node.replica.replica import Replica

LOOK_INTERVAL, REST_INTERVAL = 500, 2_000
"""Between two looks at what is missing of the change of epochs, if nothing was heard of it, ms; and while none is under way."""


class Node:
    """``addresses``: where peers reach it. ``keep_blocks``: how many final blocks it keeps; 0: all.

    Attributes:
        membership: what it believes of the coordinator, until the first epoch begins. chronicle: of the epochs from then on.
        renewal: what it does for a seat in the next.

    Raises:
        InvalidDocument: from the constructor, when a stored succession is damaged.
        Diverged: from ``handle``: this node must stop.
    """

    def __init__(
        self, genesis: Genesis, key: KeyPair, name: str, addresses: tuple[str, ...], stored: Stored, keep_blocks: int = 0
    ) -> None:
        self._genesis, self._key = genesis, key
        self.membership = Membership(genesis, key, name, addresses, stored)
        self.chronicle = Chronicle(genesis)
        if self.membership.begun and self.membership.document is not None:
            self.chronicle.begin(self.membership.document)
            for succession in stored.begun:
                self.chronicle.restore(succession)
        pledged = max((pledge for pledge in stored.pledges if pledge.epoch > 1), key=lambda p: p.epoch, default=None)
        self.renewal = Renewal(genesis, key, name, addresses, stored.entropy, pledged)
        self._departure = Departure(key.public, self.chronicle)
        self._duties = Duties(genesis, key, name, keep_blocks, self.chronicle, stored.chains)
        self._met: Meet | None = None
        self._next_look = 0

    def start(self) -> list[NodeEffect]:
        """First thing after construction."""
        return self._follow([])

    def handle(self, event: Event, at: Instant) -> list[NodeEffect]:
        """What is to be done about an event."""
        effects: list[NodeEffect] = []
        before = self._duties.steps
        match event:
            case PeerUp(peer) | PeerDown(peer) | Message(peer) if peer == self._genesis.coordinator_key:
                effects = self._on_coordinator(event)
            case Message(peer, frame):
                effects = self._on_frame(peer, frame, at)
            case For(chain, answer):
                effects = self._duties.on_answer(chain, answer, at)
            case Mined(token, nonce) if token == PUZZLE:
                effects = self._follow(self.membership.puzzle_solved(nonce))
            case Mined(epoch, nonce):
                self.renewal.solved(epoch, nonce)
                self._next_look = at.now
            case PeerUp() | PeerDown() | Tick():
                effects = self._duties.on_all(event, at)
            case Bulletined(body):
                effects = self._hear(body, at)
            case AskedAbout(body):
                effects = self._answer(body, at)
        if self._duties.steps != before:
            self._next_look = at.now
        return effects + self._report_ready() + self._look(at)

    @property
    def deadline(self) -> int | None:
        """When the next ``Tick`` is due (ms, monotonic); None: only events matter."""
        if not self.membership.begun:
            return None
        return min(self._next_look, self.renewal.deadline, self._duties.deadline or self._next_look)

    @property
    def duties(self) -> dict[Chain, Duty]:
        """Its parts in chains: none before the first epoch begins."""
        return self._duties.all

    @property
    def document(self) -> EpochDocument | None:
        """Of this epoch, or of the first before it begins."""
        return self.chronicle.document or self.membership.document

    @property
    def electorate(self) -> Electorate | None:
        """Of its shard, once it has a seat."""
        document = self.document
        seat = document.seat_of(self._key.public) if document is not None else None
        return document.electorates[seat[0]] if document is not None and seat is not None else None

    @property
    def replicas(self) -> dict[Chain, Replica]:
        """Those that run."""
        return {chain: duty.replica for chain, duty in self.duties.items() if duty.replica is not None}

    @property
    def replica(self) -> Replica | None:
        """The one of this epoch; None before that, without a seat, and while the ledger is brought back."""
        own = self._duties.own
        return self.replicas.get(own) if own is not None else None

    def seat_in(self, chain: Chain) -> Seat | None:
        """That as which it answers clients' questions about a chain; None: it does not, or not now."""
        replica = self.replicas.get(chain)
        return replica.seat if replica is not None else self._duties.archive.seats.get(chain)

    def leave(self) -> None:
        """It wants no seat any more. To be said again after a restart."""
        self.renewal.leave()
        self._departure.begin()

    @property
    def has_left(self) -> bool:
        """Whether it was to leave, and may end for good."""
        return self._departure.is_over

    def _on_frame(self, peer: bytes, frame: bytes, at: Instant) -> list[NodeEffect]:
        if not self.duties:
            return []
        try:
            return self._duties.on_frame(peer, decode(Frame, frame, MAX_FRAME_BYTES), at)
        except DecodeError as error:
            return [Ban(peer, f"it sent what is no message ({error})")]

    # -- membership ------------------------------------------------------------------------------------------------

    def _on_coordinator(self, event: PeerUp | PeerDown | Message) -> list[NodeEffect]:
        match event:
            case PeerUp():
                self.membership.connected()
                return [Notable("coordinator connected")]
            case PeerDown():
                return [Notable("coordinator lost; going on without it")]
            case Message(_, frame):
                return [*self._follow(self.membership.received(frame)), *self._wish()]

    def _wish(self) -> list[NodeEffect]:
        """Why it would like the epoch to end, if it does."""
        document, replica = self.chronicle.document, self.replica
        may_vote = replica is None or replica.consensus.has_votes
        wish = self.renewal.wish(document, may_vote) if document is not None else None
        return [Tell(wish)] if wish is not None else []

    def _follow(self, news: list[MembershipEffect]) -> list[NodeEffect]:
        """What membership says, and what follows from it."""
        effects: list[NodeEffect] = [*self._move_pledge(news), *news]
        document = self.membership.document
        if document is not None and self.membership.begun:
            self.chronicle.begin(document)
        return [*effects, *self._meet(), *self._duties.tend()]

    def _move_pledge(self, news: list[MembershipEffect]) -> list[NodeEffect]:
        """When the first epoch begins, to where the votes will be."""
        document = self.membership.document
        begins = any(isinstance(effect, AcceptDocument) and isinstance(effect.accepted, Opening) for effect in news)
        if not begins or document is None or (pledge := self.membership.pledge) is None:
            return []
        seat = self.membership.seat
        return [In(Chain(1, seat[0]), pledge)] if seat is not None and self.membership.may_vote else []

    def _meet(self) -> list[NodeEffect]:
        """Whom to be connected with, and whom to know, when that is news."""
        document = self.membership.document
        if self.chronicle.document is not None:
            wanted = self._duties.meet()
        elif document is not None:
            seat = self.membership.seat
            own = tuple(committee for committee in document.committees if seat is not None and committee.shard == seat[0])
            wanted = Meet(own, tuple(committee for committee in document.committees if committee not in own))
        else:
            return []
        is_news, self._met = wanted != self._met, wanted
        return [wanted] if is_news else []

    def _report_ready(self) -> list[NodeEffect]:
        """Tell the coordinator once a quorum of the committee can be reached."""
        if self.membership.phase is not Phase.HANDOFF:
            return []
        electorate = self.electorate
        if electorate is None or len(self._duties.peers.intersection(electorate.keys)) + 1 < electorate.quorum:
            return []
        return list(self.membership.ready())

    # -- the change of epochs --------------------------------------------------------------------------------------

    def _hear(self, body: bytes, at: Instant) -> list[NodeEffect]:
        """A message of the bulletins topic."""
        news = self.chronicle.hear(body)
        self._departure.hear(body)
        if any(not isinstance(one, Refused) for one in news):
            self._next_look = at.now
        elif self.chronicle.is_changing:
            self._next_look = min(self._next_look, at.now + LOOK_INTERVAL)
        return [effect for one in news for effect in self._follow_news(one, at)]

    def _follow_news(self, news: News, at: Instant) -> list[NodeEffect]:
        match news:
            case NewBulletin(bulletin) if bulletin.change.stage is Stage.CLOSED:
                return self._duties.on_closing(bulletin, at)
            case NewDocument(_, succession):
                ends = [effect for closing in succession.closings for effect in self._duties.on_closing(closing, at)]
                return [*ends, *self._go_on(news)]
        return []

    def _go_on(self, news: NewDocument) -> list[NodeEffect]:
        """An epoch begins: its pledge goes to where the votes will be; then there is no way back."""
        document, pledge, own = news.document, self.renewal.pledge, self._duties.own
        seat = f"a seat in shard {own.shard}" if own is not None else "no seat"
        moved: list[NodeEffect] = []
        if own is not None and pledge is not None and pledge.epoch == document.number:
            moved = [In(own, pledge)] if is_bound(document, self._key.public, pledge) else []
        return [*moved, Begin(news.succession), Notable(f"epoch {document.number} begins: {seat}")]

    def _answer(self, body: bytes, at: Instant) -> list[NodeEffect]:
        """A message of the asks topic: who keeps a chain tells of it, and the register's members of all that is past."""
        try:
            asked = decode_ask(body)
        except DecodeError:
            return []
        replica = self.replicas.get(Chain(asked.epoch, asked.shard)) if isinstance(asked, GetChange) else None
        own, document = self._duties.own, self.chronicle.document
        if replica is None and (own is None or document is None or own.shard != document.register):
            return []
        found = self.chronicle.answer(body, at.now, replica.bulletin if replica is not None else None)
        return [Publish(bulletins_topic(self._genesis.network), found)] if found is not None else []

    def _look(self, at: Instant) -> list[NodeEffect]:
        """What is missing, what follows from what is there, and what there is to say."""
        if self.chronicle.document is None or at.now < min(self._next_look, self.renewal.deadline):
            return []
        is_resting = not self.chronicle.is_changing and not self._departure.is_wanted
        self._next_look = at.now + (REST_INTERVAL if is_resting else LOOK_INTERVAL)
        topic = asks_topic(self._genesis.network)
        asked = [Publish(topic, ask) for ask in (*self.chronicle.asks(at.now), *self._departure.asks())]
        tended = self._duties.tend()
        return [*asked, *self._meet(), *tended, *self.renewal.act(self.chronicle, self._duties.ready_for, at.now)]
