"""A node's whole mind: its membership in the network, and the replica it runs once mining has begun.

Pure: what was stored and events go in, effects come out. On libp2p ``runtime`` performs them; the simulator performs them on
virtual disks and networks. Neither decides anything.
"""

from typing import Any, cast

from node.effects import Ban, Effect, Meet, Recover, Subscribe
from node.events import Asked, Event, Instant, Mined, Recovered, SignaturesChecked, Stored, Tick, Transactions
from node.ledger.rules import Rules
from node.membership import PUZZLE, Membership, MembershipEffect
from node.network.events import Message, PeerDown, PeerUp
from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import PeerMessage
from node.protocol.reports import Notable
from node.replica.replica import Replica


class Node:
    """``addresses``: where peers reach it. ``keep_blocks``: how many final blocks it keeps; 0: all.

    Attributes:
        membership: what it believes of the coordinator. ``replica``: None before mining, and without a seat.

    Raises:
        InvalidDocument: from the constructor, when the stored document is damaged.
        Diverged: from ``handle``: this node must stop.
    """

    def __init__(
        self, genesis: Genesis, key: KeyPair, name: str, addresses: tuple[str, ...], stored: Stored, keep_blocks: int = 0
    ) -> None:
        self._genesis, self._key, self._name, self._keep_blocks = genesis, key, name, keep_blocks
        self.membership = Membership(genesis, key, name, addresses, stored)
        self.replica: Replica | None = None
        self._has_met = b""  # the committees of the document with this hash
        self._is_recovering = False
        self._has_lost_votes = False
        self._peers: set[bytes] = set()

    def start(self) -> list[Effect]:
        """First thing after construction."""
        return self._follow([])

    def handle(self, event: Event, at: Instant) -> list[Effect]:
        """What is to be done about an event."""
        match event:
            case PeerUp(peer) | PeerDown(peer) | Message(peer) if peer == self._genesis.coordinator_key:
                effects = self._on_coordinator(event)
            case Mined(token, nonce) if token == PUZZLE:
                effects = self._follow(self.membership.puzzle_solved(nonce))
            case PeerUp(peer):
                self._peers.add(peer)
                effects = self.replica.on_peer_up(peer, at) if self.replica is not None else []
            case PeerDown(peer):
                self._peers.discard(peer)
                effects = self.replica.on_peer_down(peer, at) if self.replica is not None else []
            case Recovered():
                effects = self._start_replica(event, at)
            case _:
                effects = self._to_replica(self.replica, event, at) if self.replica is not None else []
        if self.replica is not None and self.replica.is_handed_over:
            self._has_lost_votes = not self.replica.consensus.has_votes  # what the next one would not know
            self.replica, self._is_recovering = None, False
            effects += self._begin()
        return effects + self._report_ready()

    @property
    def electorate(self) -> Electorate | None:
        """Of its shard, once it has a seat."""
        document, seat = self.membership.document, self.membership.seat
        return document.electorates[seat[0]] if document is not None and seat is not None else None

    @property
    def deadline(self) -> int | None:
        """When the next ``Tick`` is due (ms, monotonic); None: only events matter."""
        return None if self.replica is None else self.replica.deadline

    def _to_replica(
        self, replica: Replica, event: Message | Transactions | Asked | SignaturesChecked | Mined | Tick, at: Instant
    ) -> list[Effect]:
        match event:
            case Message(peer, frame):
                try:
                    message = decode(cast(Any, PeerMessage), frame, MAX_FRAME_BYTES)  # a union is no type for mypy
                except DecodeError as error:
                    return [Ban(peer, f"it sent what is no message ({error})")]
                return replica.on_message(peer, message, at)
            case Transactions(batch):
                return replica.on_transactions(batch, at)
            case Asked(query):
                return replica.on_query(query, at)
            case SignaturesChecked(token, verdicts):
                return replica.on_signatures_checked(token, verdicts, at)
            case Mined(token, nonce):
                return replica.on_mined(token, nonce, at)
            case Tick():
                return replica.on_tick(at)

    # -- membership ------------------------------------------------------------------------------------------------

    def _on_coordinator(self, event: PeerUp | PeerDown | Message) -> list[Effect]:
        match event:
            case PeerUp():
                self.membership.connected()
                return [Notable("coordinator connected")]
            case PeerDown():
                return [Notable("coordinator lost; going on without it")]
            case Message(_, frame):
                return self._follow(self.membership.received(frame))

    def _follow(self, news: list[MembershipEffect]) -> list[Effect]:
        """What membership says, and what follows from it."""
        document = self.membership.document
        if document is None or document.hash == self._has_met:
            return [*news, *self._begin()]
        self._has_met = document.hash
        return [*news, self._meet(document), *self._begin()]

    def _meet(self, document: EpochDocument) -> Meet:
        """Whom to be connected with, and whom to know."""
        seat = self.membership.seat
        own = next((committee for committee in document.committees if seat is not None and committee.shard == seat[0]), None)
        return Meet(own, tuple(committee for committee in document.committees if committee is not own))

    def _begin(self) -> list[Effect]:
        """Once mining has begun: bring the ledger back, to start the replica on it. Once only: two replicas with one key would
        contradict each other. One that may not vote follows."""
        document, seat = self.membership.document, self.membership.seat
        if not self.membership.begun or document is None or seat is None or self._is_recovering:
            return []
        self._is_recovering = True
        return [Recover(Rules(self._genesis, document.network_id, seat[0], document.shards), document.electorates[seat[0]])]

    def _start_replica(self, recovered: Recovered, at: Instant) -> list[Effect]:
        document = self.membership.document
        assert document is not None, "it was asked for with a document"
        may_vote, keep = self.membership.may_vote and not self._has_lost_votes, self._keep_blocks
        replica = Replica(self._genesis, document, self._key, self._name, recovered, at, may_vote, keep)
        self.replica = replica
        text = f"mining in shard {replica.shard} as member {replica.member}, from height {replica.state.height}"
        effects = [Subscribe(replica.shard), Notable(text), *replica.start(at)]
        for peer in sorted(self._peers):
            effects += replica.on_peer_up(peer, at)
        return effects

    def _report_ready(self) -> list[Effect]:
        """Tell the coordinator once a quorum of the committee can be reached."""
        if self.membership.phase is not Phase.HANDOFF:
            return []
        electorate = self.electorate
        if electorate is None or len(self._peers.intersection(electorate.keys)) + 1 < electorate.quorum:
            return []
        return list(self.membership.ready())
