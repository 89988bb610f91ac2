"""A whole network of real replicas on a discrete-event loop: virtual time, one seed, faults at stated rates.

It replaces the network, the clock, the disk and the mining; the replicas are the ones that run on libp2p.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from node.effects import (
    Broadcast,
    Checkpoint,
    CheckSignatures,
    Commit,
    Effect,
    Journal,
    Mine,
    Notable,
    Publish,
    Refuse,
    Send,
    SendBlocks,
    SendBundles,
)
from node.ledger.execution import execute
from node.ledger.rules import Rules
from node.ledger.state import State, recompute_totals
from node.protocol import puzzle
from node.protocol.address import address_of
from node.protocol.block import Outcome
from node.protocol.broker import Refusal
from node.protocol.certificate import CertifiedBlock
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument, Registration, first_document
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.messages import Blocks, BundleDelivery, PeerMessage
from node.protocol.transaction import Leg, Order, Transaction, decode_transaction
from node.replica import Instant, Replica

START = 1_700_000_000_000
ISSUER = KeyPair(bytes(31) + b"\x07")


@dataclass
class Faults:
    """Rates per message or per step, and delays in ms."""

    delay: tuple[int, int] = (1, 5)
    tail: float = 0.0
    """Share of messages that take up to two seconds."""
    loss: float = 0.0
    duplication: float = 0.0


@dataclass
class Disk:
    """What a node has stored; survives its crashes."""

    journal: dict[tuple[int, str], Journal] = field(default_factory=dict)
    blocks: list[CertifiedBlock] = field(default_factory=list)
    bundles: dict[tuple[int, int], CertifiedBundle] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def write(self, effect: Journal | Commit | Checkpoint) -> None:
        match effect:
            case Journal(view, slot, _):
                self.journal[(view, slot)] = effect
            case Commit(height, view, _, encoded, bundles):
                assert height == len(self.blocks) + 1, "blocks are stored in order"
                self.blocks.append(decode(CertifiedBlock, encoded, 1 << 24))
                self.journal = {key: record for key, record in self.journal.items() if key[0] > view}
                for destination, sequence, data in bundles:
                    self.bundles[(destination, sequence)] = decode(CertifiedBundle, data, 1 << 24)
            case Checkpoint(_, rows):
                for key, value in rows:
                    if value is None:
                        self.rows.pop(key, None)
                    else:
                        self.rows[key] = value


class Node:
    """A replica with its disk, up or down."""

    def __init__(self, network: "Network", name: str, key: KeyPair) -> None:
        self.network, self.name, self.key = network, name, key
        self.disk = Disk()
        self.replica: Replica | None = None
        self.life = 0
        """Grows with each start: what was under way in an earlier life is lost."""
        self.wakeup = 0

    def start(self) -> None:
        """Recover from disk as the runtime does, and begin."""
        network = self.network
        seat = network.document.seat_of(self.key.public)
        assert seat is not None
        rules = Rules(network.genesis, seat[0], network.document.shards)
        state = State.restore(rules, self.disk.rows.items()) if self.disk.rows else State.genesis(rules)
        for certified in self.disk.blocks:
            header = certified.block.header
            transactions = [(t.id, t) for t in map(decode_transaction, certified.block.transactions)]
            if header.height <= state.height:
                if header.time + rules.parameters.validity_window >= state.time:
                    for id, transaction in transactions:
                        state.remember(id, transaction.order.valid_until)
                continue
            bundles = [decode(CertifiedBundle, b, 1 << 24).bundle for b in certified.block.bundles]
            valid = Transaction.has_valid_signatures
            state.commit(execute(state, rules, header.height, header.time, bundles, transactions, valid))
            assert state.state_root == header.state_root
        last = self.disk.blocks[-1] if self.disk.blocks else None
        journal = [self.disk.journal[key] for key in sorted(self.disk.journal)]
        self.life += 1
        self.replica = Replica(network.genesis, network.document, self.key, state, last, journal, network.at)
        self.perform(self.replica.start(network.at))
        for other in network.nodes:
            if other is not self and other.replica is not None:
                self.perform(self.replica.on_peer_up(other.key.public, network.at))
                other.perform(other.replica.on_peer_up(self.key.public, network.at))

    def crash(self) -> None:
        self.replica = None
        for other in self.network.nodes:
            if other.replica is not None:
                other.perform(other.replica.on_peer_down(self.key.public, self.network.at))

    def handle(self, event: Callable[[Replica], list[Effect]]) -> None:
        if self.replica is not None:
            self.perform(event(self.replica))

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform effects in order, persistence first as the runtime does; then sleep until the deadline."""
        network = self.network
        for effect in effects:
            if isinstance(effect, Journal | Commit | Checkpoint):
                self.disk.write(effect)
                if isinstance(effect, Commit):
                    network.on_final(self, effect.block)
        for effect in effects:
            self._do(effect)
        if self.replica is not None:
            self._sleep(max(network.time + 1, self.replica.deadline))

    def _sleep(self, deadline: int) -> None:
        life = self.life
        if self.wakeup > self.network.time and self.wakeup <= deadline:
            return
        self.wakeup = deadline

        def wake() -> None:
            if self.life == life and self.replica is not None:
                self.wakeup = 0
                self.handle(lambda replica: replica.on_tick(self.network.at))

        self.network.after(deadline - self.network.time, wake)

    def _later(self, delay: int, event: Callable[[Replica], list[Effect]]) -> None:
        life = self.life
        self.network.after(delay, lambda: self.handle(event) if self.life == life else None)

    def _do(self, effect: Effect) -> None:
        network = self.network
        match effect:
            case Send(peer, message):
                network.send(self, peer, message)
            case Broadcast(message):
                assert self.replica is not None
                for key in self.replica.electorate.keys:
                    if key != self.key.public:
                        network.send(self, key, message)
            case CheckSignatures(token, transactions):
                verdicts = [t.has_valid_signatures() for t in transactions]
                self._later(1, lambda replica: replica.on_signatures_checked(token, verdicts, network.at))
            case Mine(token, prefix, bits):
                nonce = puzzle.search(prefix, bits, 0, 1 << 30)
                assert nonce is not None
                self._later(1, lambda replica: replica.on_mined(token, nonce, network.at))
            case SendBlocks(peer, first):
                network.send(self, peer, Blocks(tuple(self.disk.blocks[first - 1 : first + 49])))
            case SendBundles(peer, destination, sequence):
                for i in range(sequence, sequence + 20):
                    if (bundle := self.disk.bundles.get((destination, i))) is not None:
                        network.send(self, peer, BundleDelivery(bundle))
            case Refuse(items):
                network.refusals.extend(items)
            case Publish() | Notable() | _:
                pass


class Network:
    """K committees of N replicas, and the invariants that must hold after every event."""

    def __init__(self, seed: int, committees: int, size: int, faults: Faults | None = None, **parameters: int) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.time = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        settings = Parameters(
            committees=committees, committee_size=size, puzzle_difficulty_bits=0, block_difficulty_bits=0, **parameters
        )
        self.genesis = Genesis(
            name="simulation",
            time=START,
            coordinator=ISSUER.public.hex(),
            assets=(Asset("USD", 2, ISSUER.public.hex()),),
            parameters=settings,
        )
        keys = [KeyPair(self.random.randbytes(32)) for _ in range(committees * size)]
        network, address = self.genesis.network, ("/ip4/127.0.0.1/tcp/1",)
        applications = [
            Registration(network, 1, key.public, f"node-{i}", address, bytes(8)).signed(key) for i, key in enumerate(keys)
        ]
        self.document: EpochDocument = first_document(self.genesis, applications)
        self.nodes = [Node(self, f"node-{i}", key) for i, key in enumerate(keys)]
        self.by_key = {node.key.public: node for node in self.nodes}
        self.chains: dict[int, list[CertifiedBlock]] = {c.shard: [] for c in self.document.committees}
        self.outcomes: dict[bytes, dict[int, list[Outcome]]] = {}
        self.codes: dict[bytes, str] = {}
        self.refusals: list[Refusal] = []
        self.cut: Callable[[Node, Node], bool] = lambda a, b: False

    @property
    def at(self) -> Instant:
        return Instant(self.time, START + self.time)

    def after(self, delay: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.time + max(0, delay), next(self._order), event))

    def run(self, until: int, condition: Callable[[], bool] | None = None) -> bool:
        """Run events up to a time (ms), or until a condition holds; returns whether it does."""
        while self._heap and self._heap[0][0] <= until:
            if condition is not None and condition():
                return True
            self.time, _, event = heapq.heappop(self._heap)
            event()
        self.time = max(self.time, until) if condition is None else self.time
        return condition is not None and condition()

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def send(self, source: Node, key: bytes, message: PeerMessage) -> None:
        """Messages travel as bytes: nobody shares objects, and everything sent can be encoded."""
        target = self.by_key[key]
        faults, chance = self.faults, self.random
        if self.cut(source, target) or chance.random() < faults.loss:
            return
        frame = encode(message)
        for _ in range(2 if chance.random() < faults.duplication else 1):
            delay = chance.randint(*faults.delay)
            if chance.random() < faults.tail:
                delay += chance.randint(0, 2_000)
            life = target.life

            def arrive(target: Node = target, life: int = life) -> None:
                if target.life == life:
                    decoded: PeerMessage = decode(PeerMessage, frame, 1 << 24)  # type: ignore[arg-type]
                    target.handle(lambda replica: replica.on_message(source.key.public, decoded, self.at))

            self.after(delay, arrive)

    # -- what clients do -------------------------------------------------------------------------------------------

    def committee(self, shard: int) -> list[Node]:
        return [self.by_key[key] for key in self.document.electorates[shard].keys]

    def key_in(self, shard: int) -> KeyPair:
        """A fresh account in a shard."""
        while True:
            key = KeyPair(self.random.randbytes(32))
            if self.document.shards.shard_of(address_of(key.public)) == shard:
                return key

    def order(self, legs: Sequence[tuple[KeyPair, KeyPair, int]], lifetime: int = 60_000) -> Order:
        made = tuple(Leg(address_of(a.public), address_of(b.public), "USD", amount) for a, b, amount in legs)
        return Order(self.genesis.network, made, "", START + self.time + lifetime, self.random.randbytes(8))

    def submit(self, transaction: Transaction) -> bytes:
        """Hand a transaction to the members of its home shard that are up."""
        encoded = encode(transaction)
        shard = self.document.shards.shard_of(transaction.order.legs[0].payer)
        for node in self.committee(shard):
            node.handle(lambda replica: replica.on_transactions([encoded], self.at))
        return transaction.id

    def pay(self, *legs: tuple[KeyPair, KeyPair, int]) -> bytes:
        return self.submit(self.order(legs).sign([payer for payer, _, _ in legs]))

    def balance(self, key: KeyPair) -> int:
        """Available, as the furthest member of the account's shard has it."""
        address = address_of(key.public)
        nodes = self.committee(self.document.shards.shard_of(address))
        replica = max((n.replica for n in nodes if n.replica is not None), key=lambda r: r.state.height)
        return sum(balance.available for _, balance in replica.state.balances_of(address))

    def outcome(self, id: bytes) -> str:
        """What the home shard's chain says of a transaction: its last outcome, lower case; "" when none."""
        steps = [step for shard in self.outcomes.get(id, {}).values() for step in shard]
        final = [step for step in steps if step is not Outcome.PREPARED]
        return (final or steps or [None])[-1].name.lower() if steps else ""  # type: ignore[union-attr]

    # -- invariants ------------------------------------------------------------------------------------------------

    def on_final(self, node: Node, certified: CertifiedBlock) -> None:
        """Agreement, and each transaction decided once."""
        header = certified.block.header
        chain = self.chains[header.shard]
        assert certified.is_valid(self.document.electorates[header.shard]), "a stored block proves itself"
        if header.height <= len(chain):
            assert chain[header.height - 1].block.header.hash == header.hash, f"two blocks at {header.height}"
            return
        assert header.height == len(chain) + 1
        chain.append(certified)
        for receipt in certified.effects.receipts:
            steps = self.outcomes.setdefault(receipt.transaction_id, {}).setdefault(header.shard, [])
            assert not steps or steps == [Outcome.PREPARED], "decided twice"
            assert receipt.outcome not in steps
            steps.append(receipt.outcome)
            self.codes[receipt.transaction_id] = str(receipt.code)

    def check_conservation(self, minted: int) -> None:
        """All shards together hold what was minted, nothing is held or on its way."""
        states = []
        for shard in self.chains:
            replicas = [n.replica for n in self.committee(shard) if n.replica is not None]
            states.append(max(replicas, key=lambda r: r.state.height).state)
        for state in states:
            assert state.totals() == recompute_totals(state)
            assert state.totals().pending == 0
        totals = [asset for state in states for asset in state.totals().assets]
        assert sum(t.available + t.held for t in totals) == sum(t.minted - t.burned for t in totals) == minted
        assert sum(t.held for t in totals) == 0
        assert sum(p.exported - p.imported for t in totals for p in t.peers) == 0
