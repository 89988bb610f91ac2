"""A node's part in one chain: what is stored of it is brought back, then a replica runs on it, or an observer, without a seat in
it or without a state; anew, once another ledger was handed over."""

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
from node.ledger.state import State
from node.membership import is_bound
from node.network.events import PeerDown, PeerUp
from node.protocol.block import Header
from node.protocol.certificate import Electorate
from node.protocol.crypto import KeyPair
from node.protocol.messages import PeerMessage
from node.protocol.reports import Notable
from node.replica.observer import Observer
from node.replica.replica import Replica

OBSERVE_INTERVAL = 200
"""Between two times an observer asks how high members are, ms: so far it is behind at most, and what it then asks for takes."""


class Duty:
    """Methods return what to do, in order. ``peers``: who is connected, kept up to date by whoever has them. ``keep_blocks``: see
    ``Node``.

    Attributes:
        electorate: who keeps the chain. has_seat: whether this node is one of them.
        runs: None while the ledger is brought back.

    Raises:
        Diverged: from any method: this node must stop.
    """

    def __init__(
        self, rules: Rules, electorate: Electorate, key: KeyPair, name: str, peers: Collection[bytes], keep_blocks: int
    ) -> None:
        self._rules, self._key, self._name = rules, key, name
        self._peers, self._keep_blocks = peers, keep_blocks
        self.electorate = electorate
        self.chain = electorate.chain
        self.has_seat = key.public in electorate.keys
        self.runs: Replica | Observer | None = None
        self._guests: frozenset[bytes] = frozenset()

    @property
    def replica(self) -> Replica | None:
        return self.runs if isinstance(self.runs, Replica) else None

    @property
    def is_current(self) -> bool:
        """Whether it is at most a few blocks behind."""
        match self.runs:
            case Observer() as observer:
                return observer.is_current
            case Replica() as replica:
                return replica.is_current
        return False

    @property
    def is_closed(self) -> bool:
        """Whether it has the closing block."""
        return self.runs is not None and self.runs.is_closed

    @property
    def deadline(self) -> int | None:
        """When ``on_tick`` is due (ms, monotonic); None: only events matter."""
        return self.runs.deadline if self.runs is not None else None

    def state_at(self, closing: Header) -> State | None:
        """The state after the closing block, if that is here and is this one."""
        runs = self.runs
        return runs.state if runs is not None and runs.closing is not None and runs.closing.header == closing else None

    def start(self, wanted: Recover) -> list[NodeEffect]:
        """Bring back what is stored: first thing after construction, and when there is more to open the chain from."""
        self.runs = None
        return self._in([wanted])

    def let_in(self, guests: frozenset[bytes]) -> None:
        """Who else may ask for the chain."""
        self._guests = guests
        if self.replica is not None:
            self.replica.guests = guests

    def expect(self, height: int, at: Instant) -> list[NodeEffect]:
        """Its closing block is at this height."""
        return self._after(self.runs.on_closed(height, at) if self.runs is not None else [])

    def handle(self, event: ChainEvent | PeerUp | PeerDown | Tick, at: Instant) -> list[NodeEffect]:
        """What is to be done about an event."""
        match event:
            case Recovered() | Missing() if self.runs is not None:
                return []  # two replicas with one key would contradict each other
            case Recovered() if self.has_seat:
                return self._vote(event, at)
            case Recovered():
                return self._observe(event, at)
            case Missing():
                return self._observe(None, at)
            case PeerUp() | PeerDown() | Tick() if self.runs is not None:
                return self._after(_pass_on(self.runs, event, at))
            case Transactions() | Entries() | Asked() | SignaturesChecked() | Mined() if self.replica is not None:
                return self._after(_to_replica(self.replica, event, at))
        return []

    def on_message(self, peer: bytes, message: PeerMessage, at: Instant) -> list[NodeEffect]:
        """A message for this chain from a node of the network."""
        return self._after(self.runs.on_message(peer, message, at) if self.runs is not None else [])

    def _vote(self, recovered: Recovered, at: Instant) -> list[NodeEffect]:
        """One replica at a time: two with one key would contradict each other. One that has lost its votes follows."""
        document, genesis = self._rules.document, self._rules.genesis
        assert document is not None, "rules of chains that nodes run have one"
        has_votes = is_bound(document, self._key.public, recovered.pledge)
        replica = Replica(genesis, document, self._key, self._name, recovered, at, has_votes, self._keep_blocks)
        replica.guests = self._guests
        text = f"mining in shard {replica.shard} as member {replica.member}, from height {replica.state.height}"
        is_register = replica.shard == document.register
        return [Subscribe(self.chain, is_register), *self._in([Notable(text)]), *self._run(replica, at)]

    def _observe(self, recovered: Recovered | None, at: Instant) -> list[NodeEffect]:
        """It has no seat; or no state, but that of a checkpoint others may have."""
        return self._run(Observer(self._rules, self.electorate, recovered, OBSERVE_INTERVAL, at), at)

    def _run(self, runs: Replica | Observer, at: Instant) -> list[NodeEffect]:
        self.runs = runs
        effects = [*runs.start(at)]
        for peer in sorted(self._peers):
            effects += runs.on_peer_up(peer, at)
        return self._in(effects)

    def _after(self, effects: Sequence[ChainEffect]) -> list[NodeEffect]:
        """What was done, and what follows once another ledger than the one that runs is stored."""
        done = self._in(effects)
        is_handed_over = self.runs is not None and self.runs.is_handed_over
        return [*done, *self.start(Recover(self._rules, self.electorate))] if is_handed_over else done

    def _in(self, effects: Sequence[ChainEffect]) -> list[NodeEffect]:
        return [In(self.chain, effect) for effect in effects]


def _pass_on(runs: Replica | Observer, event: PeerUp | PeerDown | Tick, at: Instant) -> list[ChainEffect]:
    match event:
        case PeerUp(peer):
            return runs.on_peer_up(peer, at)
        case PeerDown(peer):
            return runs.on_peer_down(peer, at)
        case Tick():
            return runs.on_tick(at)


def _to_replica(
    replica: Replica, event: Transactions | Entries | Asked | SignaturesChecked | Mined, at: Instant
) -> list[ChainEffect]:
    match event:
        case Transactions(batch):
            return replica.on_transactions(batch, at)
        case Entries(batch):
            return replica.on_entries(batch, at)
        case Asked(query):
            return replica.on_query(query, at)
        case SignaturesChecked(token, verdicts):
            return replica.on_signatures_checked(token, verdicts, at)
        case Mined(token, nonce):
            return replica.on_mined(token, nonce, at)
