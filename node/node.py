"""A node's whole mind: its membership in the network, and its duties in the chains, once mining has begun.

Pure: what was stored and events go in, effects come out. On libp2p ``runtime`` performs them; the simulator performs them on
virtual disks and networks. Neither decides anything.
"""

from node.duty import Duty
from node.effects import AcceptDocument, Ban, In, Meet, NodeEffect
from node.events import AskedAbout, Bulletined, Event, For, Instant, Mined, Stored, Tick
from node.membership import Membership, MembershipEffect
from node.network.events import Message, PeerDown, PeerUp
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument, Opening
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Frame
from node.protocol.reports import Notable
from node.replica.replica import Replica


class Node:
    """``addresses``: where peers reach it. ``keep_blocks``: how many final blocks it keeps; 0: all.

    Attributes:
        membership: what it believes of the coordinator.
        duties: its parts in chains, none before mining, and without a seat.

    Raises:
        InvalidDocument: from the constructor, when the stored document is damaged.
        Diverged: from ``handle``: this node must stop.
    """

    def __init__(
        self, genesis: Genesis, key: KeyPair, name: str, addresses: tuple[str, ...], stored: Stored, keep_blocks: int = 0
    ) -> None:
        self._genesis, self._key, self._name, self._keep_blocks = genesis, key, name, keep_blocks
        self.membership = Membership(genesis, key, name, addresses, stored)
        self.duties: dict[Chain, Duty] = {}
        self._has_met = b""  # the committees of the document with this hash
        self._peers: set[bytes] = set()

    def start(self) -> list[NodeEffect]:
        """First thing after construction."""
        return self._follow([])

    def handle(self, event: Event, at: Instant) -> list[NodeEffect]:
        """What is to be done about an event."""
        effects: list[NodeEffect] = []
        match event:
            case PeerUp(peer) | PeerDown(peer) | Message(peer) if peer == self._genesis.coordinator_key:
                effects = self._on_coordinator(event)
            case Message(peer, frame):
                effects = self._on_frame(peer, frame, at)
            case For(chain, news) if (duty := self.duties.get(chain)) is not None:
                effects = duty.handle(news, at)
            case Mined(_, nonce):
                effects = self._follow(self.membership.puzzle_solved(nonce))
            case PeerUp() | PeerDown() | Tick():
                effects = self._to_all(event, at)
            case For() | Bulletined() | AskedAbout():
                pass
        return effects + self._report_ready()

    @property
    def deadline(self) -> int | None:
        """When the next ``Tick`` is due (ms, monotonic); None: only events matter."""
        return min((duty.deadline for duty in self.duties.values() if duty.deadline is not None), default=None)

    @property
    def electorate(self) -> Electorate | None:
        """Of its shard, once it has a seat."""
        document, seat = self.membership.document, self.membership.seat
        return document.electorates[seat[0]] if document is not None and seat is not None else None

    @property
    def replicas(self) -> dict[Chain, Replica]:
        """Those that run."""
        return {chain: duty.replica for chain, duty in self.duties.items() if duty.replica is not None}

    @property
    def replica(self) -> Replica | None:
        """The one of the epoch that mines; None before that, without a seat, and while the ledger is brought back."""
        electorate = self.electorate
        return self.replicas.get(electorate.chain) if electorate is not None else None

    def _to_all(self, event: PeerUp | PeerDown | Tick, at: Instant) -> list[NodeEffect]:
        match event:
            case PeerUp(peer):
                self._peers.add(peer)
            case PeerDown(peer):
                self._peers.discard(peer)
        return [effect for duty in self.duties.values() for effect in duty.handle(event, at)]

    def _on_frame(self, peer: bytes, frame: bytes, at: Instant) -> list[NodeEffect]:
        """What is for a chain in which it has no part is as good as lost."""
        if not self.duties:
            return []
        try:
            decoded = decode(Frame, frame, MAX_FRAME_BYTES)
        except DecodeError as error:
            return [Ban(peer, f"it sent what is no message ({error})")]
        duty = self.duties.get(Chain(decoded.epoch, decoded.shard))
        return duty.on_message(peer, decoded.message, at) if duty is not None else []

    # -- membership ------------------------------------------------------------------------------------------------

    def _on_coordinator(self, event: PeerUp | PeerDown | Message) -> list[NodeEffect]:
        match event:
            case PeerUp():
                self.membership.connected()
                return [Notable("coordinator connected")]
            case PeerDown():
                return [Notable("coordinator lost; going on without it")]
            case Message(_, frame):
                return self._follow(self.membership.received(frame))

    def _follow(self, news: list[MembershipEffect]) -> list[NodeEffect]:
        """What membership says, and what follows from it."""
        effects: list[NodeEffect] = [*self._move_pledge(news), *news]
        document = self.membership.document
        if document is not None and document.hash != self._has_met:
            self._has_met = document.hash
            effects.append(self._meet(document))
        return effects + self._begin()

    def _move_pledge(self, news: list[MembershipEffect]) -> list[NodeEffect]:
        """When the first epoch begins, to where the votes will be."""
        pledge, electorate = self.membership.pledge, self.electorate
        begins = any(isinstance(effect, AcceptDocument) and isinstance(effect.accepted, Opening) for effect in news)
        if not begins or not self.membership.may_vote or pledge is None or electorate is None:
            return []
        return [In(electorate.chain, pledge)]

    def _meet(self, document: EpochDocument) -> Meet:
        """Whom to be connected with, and whom to know."""
        seat = self.membership.seat
        own = tuple(committee for committee in document.committees if seat is not None and committee.shard == seat[0])
        return Meet(own, tuple(committee for committee in document.committees if committee not in own))

    def _begin(self) -> list[NodeEffect]:
        """Once mining has begun: take up its duty, once."""
        document, electorate = self.membership.document, self.electorate
        if not self.membership.begun or document is None or electorate is None or electorate.chain in self.duties:
            return []
        duty = Duty(self._genesis, document, self._key, self._name, self._peers, self._keep_blocks)
        self.duties[duty.chain] = duty
        return duty.start()

    def _report_ready(self) -> list[NodeEffect]:
        """Tell the coordinator once a quorum of the committee can be reached."""
        if self.membership.phase is not Phase.HANDOFF:
            return []
        electorate = self.electorate
        if electorate is None or len(self._peers.intersection(electorate.keys)) + 1 < electorate.quorum:
            return []
        return list(self.membership.ready())
