"""A member's part in one chain: what is stored of it is brought back, then a replica runs on it; anew, once another ledger was
handed over."""

from collections.abc import Collection, Sequence

from node.effects import ChainEffect, In, NodeEffect, Recover, Subscribe
from node.events import (
    Asked,
    ChainEvent,
    Entries,
    Instant,
    Mined,
    Missing,
    Recovered,
    SignaturesChecked,
    Tick,
    Transactions,
)
from node.ledger.rules import Rules
from node.membership import is_bound
from node.network.events import PeerDown, PeerUp
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.messages import PeerMessage
from node.protocol.reports import Notable
from node.replica.replica import Replica

_ForReplica = Transactions | Entries | Asked | Missing | SignaturesChecked | Mined | PeerUp | PeerDown | Tick


class Duty:
    """Methods return what to do, in order. ``peers``: who is connected, kept up to date by whoever has them. ``keep_blocks``: see
    ``Node``.

    Attributes:
        electorate: who keeps the chain. replica: None while the ledger is brought back.

    Raises:
        ValueError: from the constructor, without a seat in the document.
        Diverged: from any method: this node must stop.
    """

    def __init__(
        self, genesis: Genesis, document: EpochDocument, key: KeyPair, name: str, peers: Collection[bytes], keep_blocks: int
    ) -> None:
        seat = document.seat_of(key.public)
        if seat is None:
            raise ValueError("this node has no seat in the epoch")
        self._genesis, self._document, self._key, self._name = genesis, document, key, name
        self._peers, self._keep_blocks = peers, keep_blocks
        self._rules = Rules(genesis, document.network_id, seat[0], document.shards)
        self.electorate = document.electorates[seat[0]]
        self.chain = self.electorate.chain
        self.replica: Replica | None = None

    def start(self) -> list[NodeEffect]:
        """First thing after construction: bring back what is stored."""
        return self._in([Recover(self._rules, self.electorate)])

    @property
    def deadline(self) -> int | None:
        """When ``on_tick`` is due (ms, monotonic); None: only events matter."""
        return self.replica.deadline if self.replica is not None else None

    def handle(self, event: ChainEvent | PeerUp | PeerDown | Tick, at: Instant) -> list[NodeEffect]:
        """What is to be done about an event."""
        if isinstance(event, Recovered):
            return self._begin(event, at)
        return self._after(self._to_replica(self.replica, event, at) if self.replica is not None else [])

    def on_message(self, peer: bytes, message: PeerMessage, at: Instant) -> list[NodeEffect]:
        """A message for this chain from a node of the network."""
        return self._after(self.replica.on_message(peer, message, at) if self.replica is not None else [])

    def _to_replica(self, replica: Replica, event: _ForReplica, at: Instant) -> list[ChainEffect]:
        match event:
            case Transactions(batch):
                return replica.on_transactions(batch, at)
            case Asked(query):
                return replica.on_query(query, at)
            case SignaturesChecked(token, verdicts):
                return replica.on_signatures_checked(token, verdicts, at)
            case Mined(token, nonce):
                return replica.on_mined(token, nonce, at)
            case PeerUp(peer):
                return replica.on_peer_up(peer, at)
            case PeerDown(peer):
                return replica.on_peer_down(peer, at)
            case Tick():
                return replica.on_tick(at)
            case Entries(batch):
                return replica.on_entries(batch, at)
            case Missing():
                return []

    def _begin(self, recovered: Recovered, at: Instant) -> list[NodeEffect]:
        """One replica at a time: two with one key would contradict each other. One that has lost its votes follows."""
        has_votes = is_bound(self._document, self._key.public, recovered.pledge)
        replica = Replica(self._genesis, self._document, self._key, self._name, recovered, at, has_votes, self._keep_blocks)
        self.replica = replica
        text = f"mining in shard {replica.shard} as member {replica.member}, from height {replica.state.height}"
        is_register = replica.shard == self._document.committees[0].shard
        effects: list[ChainEffect] = [Notable(text), *replica.start(at)]
        for peer in sorted(self._peers):
            effects += replica.on_peer_up(peer, at)
        return [Subscribe(self.chain, is_register), *self._in(effects)]

    def _after(self, effects: Sequence[ChainEffect]) -> list[NodeEffect]:
        """What was done, and what follows once another ledger than the replica's is stored."""
        done = self._in(effects)
        if self.replica is not None and self.replica.is_handed_over:
            self.replica = None
            done += self.start()
        return done

    def _in(self, effects: Sequence[ChainEffect]) -> list[NodeEffect]:
        return [In(self.chain, effect) for effect in effects]
