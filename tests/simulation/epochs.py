"""A network of whole nodes over several epochs: virtual clock, disks, connections and broker. It decides nothing.

Simpler than ``world``: messages are late, but nothing is lost unless a test says so, and nobody lies. What effects persist is on
disk before anything is sent; a node can be ended and started again at any event. The second implementation executes every block
that anybody has made final (``oracle``).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, cast

from msgpack import packb  # type: ignore[import-untyped]
from msgspec import to_builtins

from node.effects import (
    Abandon,
    Ban,
    Begin,
    Broadcast,
    ChainEffect,
    CheckSignatures,
    Commit,
    In,
    Meet,
    Mine,
    NodeEffect,
    Persist,
    Pledge,
    Publish,
    Recover,
    ReplyBlocks,
    Retire,
    Send,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    Subscribe,
    Unsubscribe,
)
from node.events import (
    Asked,
    AskedAbout,
    Bulletined,
    Entries,
    Event,
    For,
    Instant,
    Mined,
    SignaturesChecked,
    Stored,
    Tick,
    Transactions,
)
from node.handing_over import read_checkpoint, read_parts
from node.network.events import Message, PeerDown, PeerUp
from node.node import Node
from node.persisting import Persisting
from node.protocol import puzzle
from node.protocol.certificate import CertifiedBlock, FinalBlock
from node.protocol.chain import Chain
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.entries import Disclosure, Entry, decode_entry
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import BundleDelivery, ChainReply, CheckpointReply, Frame, PartsReply, PeerMessage
from node.protocol.queries import GetBlocks, Query
from node.protocol.reports import Notable
from node.protocol.succession import Succession
from node.protocol.topics import asks_topic, bulletins_topic, entries_topic, replies_topic
from node.protocol.transaction import Transaction
from node.recovery import bring_back
from node.replica.answering import sign_blocks
from tests.chains import TIME, Network, key
from tests.simulation.disk import Disk
from tests.simulation.oracle import Oracle
from tests.simulation.violation import violated
from tests.vectors.change_reference import REGISTRATION

if TYPE_CHECKING:
    from tests.simulation.boundary_liars import Liar

_SERVE_BYTES = 1 << 20
SOON = {"heartbeat": 400, "view_timeout": 800, "commit_timeout": 1_200, "settle_time": 10_000}
SOON |= {"checkpoint_interval": 10, "epoch_pause": 1_000, "epoch_time": 4_000, "reveal_time": 4_000, "handoff_time": 30_000}
"""Parameters with which epochs are a few seconds long."""

CLIENT = "client"
"""Who asks."""


class Host:
    """A node on its virtual machine. ``life`` grows with each start: what an earlier one had under way is lost."""

    def __init__(self, world: "World", number: int, pair: KeyPair) -> None:
        self.world, self.name, self.key = world, f"node-{number}", pair
        self._address = f"/ip4/192.0.2.{number + 1}/tcp/8100"
        self.disks: defaultdict[Chain, Disk] = defaultdict(Disk)
        self.pledges: dict[int, Pledge] = {}
        self.begun: list[Succession] = []
        self.node: Node | None = None
        self.life = 0
        self.known: set[bytes] = set()
        self.own: set[bytes] = set()
        self.chains: dict[Chain, bool] = {}
        """Whose transactions it hears, and whether it hears entries, too."""
        self.retired: set[Chain] = set()
        """Of which it hears only questions."""
        self.notes: list[str] = []
        self.liar: Liar | None = None
        self.trap = ""
        """What it does not live to say: it ends when it has persisted an effect of this name, before anything is sent."""
        self._persisting = Persisting()
        self._wakeup = 0

    def start(self) -> None:
        """With what is on its disk."""
        if self.node is not None:
            return
        self.life += 1
        self._persisting = Persisting()
        entropy = self.world.chance.randbytes(32)
        pledges = tuple(pledge for epoch, pledge in self.pledges.items() if epoch > len(self.begun) + 1)
        stored = Stored(entropy, self.world.network.opening, pledges, tuple(self.begun), frozenset(self.disks))
        addresses, keep_blocks = (self._address,), self.world.keep_blocks
        self.node = Node(self.world.network.genesis, self.key, self.name, addresses, stored, keep_blocks)
        self._perform(self.node.start())
        self.put(Tick())

    def stop(self) -> None:
        self.node = None
        for other in self.world.hosts:
            if other.key.public in self.own and self.key.public in other.own:
                other.put(PeerDown(self.key.public))
        self.own, self.known, self.chains, self.retired = set(), set(), {}, set()

    @property
    def epoch(self) -> int:
        return len(self.node.chronicle.documents) if self.node is not None else 0

    def put(self, event: Event) -> None:
        if self.node is not None:
            self._perform(self.node.handle(event, Instant(self.world.now, TIME + self.world.now)))

    def later(self, delay: int, event: Callable[[], None]) -> None:
        """Unless the node is ended meanwhile."""
        life = self.life
        self.world.after(delay, lambda: event() if self.node is not None and self.life == life else None)

    def _perform(self, effects: list[NodeEffect]) -> None:
        for chain, rows in self._persisting.take(effects, self.world.now):
            self.disks[chain].write(rows)
        for effect in effects:
            if isinstance(effect, Persist):
                self._remember(effect)
            elif isinstance(effect, In) and isinstance(effect.effect, Commit):
                self.world.oracle.stored(self.name, effect.chain, effect.effect.encoded, effect.effect.bundles)
        if self.trap and any(type(effect).__name__ == self.trap for effect in effects) and self.world.may_end(self):
            self.trap = ""
            self.stop()
            self.world.after(self.world.chance.randint(1, 2_000), self.start)
            return
        for effect in effects:
            if isinstance(effect, In):
                self._do_in(effect.chain, effect.effect)
            else:
                self._do(effect)
        if self.node is not None and (due := self.node.deadline) is not None:
            due = max(due, self.world.now + 1)
            if not self.world.now < self._wakeup <= due:
                self._wakeup = due
                self.later(due - self.world.now, lambda: self._wake(due))

    def _wake(self, due: int) -> None:
        if self._wakeup == due:
            self._wakeup = 0
            self.put(Tick())

    def _remember(self, record: Persist) -> None:
        match record:
            case Pledge():
                self.pledges[record.epoch] = record
            case Begin(succession):
                self.world.check_begun(self, succession.number)
                self.begun.append(succession)
                self.pledges.pop(succession.number, None)
            case Abandon(chain):
                self.disks.pop(chain, None)

    def _do(self, effect: NodeEffect) -> None:
        match effect:
            case Meet(own, others):
                self._meet({m.public_key for c in own for m in c.members}, {m.public_key for c in others for m in c.members})
            case Subscribe(chain, entries):
                self.chains[chain] = entries
            case Unsubscribe(chain):
                self.chains.pop(chain, None)
                self.retired.discard(chain)
            case Retire(chain):
                self.retired.add(chain)
            case Publish(topic, body):
                self._publish(topic, body)
            case Mine():
                self._mine(effect, lambda mined: mined)
            case Notable(text):
                self.notes.append(f"{self.world.now} {text}")
            case Ban(peer, reason) if self.world.by_key[peer].liar is None:
                violated("ban", f"{self.name} bans {self.world.by_key[peer].name}: {reason}")

    def _publish(self, topic: str, body: bytes) -> None:
        if self.liar is None and topic == entries_topic(self.world.network.genesis.network):
            self.world.check_said(self, decode_entry(body))
        for said in self.liar.says(topic, body) if self.liar is not None else [body]:
            self.world.publish(topic, said)

    def _mine(self, wanted: Mine, event: Callable[[Mined], Event]) -> None:
        nonce = puzzle.search(wanted.prefix, wanted.bits, 0, 1 << 30)
        assert nonce is not None
        self.later(self.world.chance.randint(1, 10), lambda: self.put(event(Mined(wanted.token, nonce))))

    def _do_in(self, chain: Chain, effect: ChainEffect) -> None:
        match effect:
            case Send(peer, message, shard):
                self._send(peer, message, chain if shard is None else Chain(chain.epoch, shard))
            case Broadcast(message):
                assert self.node is not None
                duty = self.node.duties.get(chain)
                for peer in duty.electorate.keys if duty is not None else ():
                    self._send(peer, message, chain)
            case Recover():
                self.later(1, lambda: self._recover(chain, effect))
            case CheckSignatures(token, transactions):
                checked = SignaturesChecked(token, tuple(t.has_valid_signatures() for t in transactions))
                self.later(1, lambda: self.put(For(chain, checked)))
            case Mine():
                self._mine(effect, lambda mined: For(chain, mined))
            case ReplyBlocks(query) if isinstance(query.request, GetBlocks):
                assert self.node is not None
                seat, disk = self.node.seat_in(chain), self.disks[chain]
                assert seat is not None
                found = disk.blocks(query.request.first, _SERVE_BYTES, query.request.count)
                self._do(sign_blocks(seat, query, found, disk.oldest))
            case SendBlocks() | SendBundles() | SendCheckpoint() | SendParts() if chain in self.disks:
                self._serve(chain, self.disks[chain], effect)
            case Ban() | Publish() | Notable():
                self._do(effect)

    def _serve(self, chain: Chain, disk: Disk, effect: SendBlocks | SendBundles | SendCheckpoint | SendParts) -> None:
        match effect:
            case SendBlocks(peer, first):
                stored = [decode(CertifiedBlock, data, MAX_FRAME_BYTES) for data in disk.blocks(first, _SERVE_BYTES)]
                if stored:
                    self._send(peer, ChainReply(tuple(FinalBlock(block.block, block.finality) for block in stored)), chain)
            case SendBundles(peer, destination, sequence, is_alone):
                for data in disk.bundles(destination, sequence, 0 if is_alone else _SERVE_BYTES):
                    delivery = BundleDelivery(decode(CertifiedBundle, data, MAX_FRAME_BYTES))
                    self._send(peer, delivery, Chain(chain.epoch, destination))
            case SendCheckpoint(peer, height, certified_at, root):
                self._send(peer, CheckpointReply(read_checkpoint(cast(Any, disk), height, certified_at, root)), chain)
            case SendParts(peer, height, parts):
                self._send(peer, PartsReply(height, read_parts(cast(Any, disk), height, parts)), chain)

    def _recover(self, chain: Chain, wanted: Recover) -> None:
        self.put(For(chain, bring_back(wanted, cast(Any, self.disks.__getitem__))))

    def _meet(self, own: set[bytes], others: set[bytes]) -> None:
        before = {other.key.public for other in self.world.hosts if self._is_met(other)}
        self.own, self.known = own - {self.key.public}, (own | others) - {self.key.public}
        for other in self.world.hosts:
            if other is not self and self._is_met(other) != (other.key.public in before):
                event = PeerDown if other.key.public in before else PeerUp
                self._tell(event(other.key.public))
                other._tell(event(self.key.public))

    def _tell(self, event: Event) -> None:
        self.later(1, lambda: self.put(event))

    def _is_met(self, other: "Host") -> bool:
        return other.node is not None and other.key.public in self.own and self.key.public in other.own

    def _send(self, peer: bytes, message: PeerMessage, chain: Chain) -> None:
        """To who lets it in."""
        target = self.world.by_key[peer]
        if target is self or target.node is None or self.key.public not in target.known:
            return
        if self.world.chance.random() < self.world.loss:
            return
        said = self.liar.sends(message) if self.liar is not None else message
        frame = encode(Frame(chain.epoch, chain.shard, said))
        target.later(self.world.chance.randint(1, self.world.delay), lambda: target.put(Message(self.key.public, frame)))


class World:
    """``network``: its nodes have the seats of the first epoch. ``hosts``: they, then ``more`` others, who are not started.

    ``loss``: of messages between nodes; ``delay``: theirs, ms at most. ``broker_loss``: of those over the broker.
    """

    def __init__(
        self,
        network: Network,
        more: int = 0,
        seed: int = 0,
        loss: float = 0.0,
        broker_loss: float = 0.0,
        keep_blocks: int = 0,
        delay: int = 10,
    ) -> None:
        self.network, self.chance, self.now = network, Random(seed), 0
        self.loss, self.broker_loss, self.delay = loss, broker_loss, delay
        self.keep_blocks, self.replies = keep_blocks, list[bytes]()
        self.oracle = Oracle(to_builtins(network.genesis), encode(network.document), {}, violated)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        pairs = [*network.nodes.values(), *(key(f"newcomer {number}") for number in range(more))]
        self.hosts = [Host(self, number, pair) for number, pair in enumerate(pairs)]
        self.by_key = {host.key.public: host for host in self.hosts}
        for host in self.hosts:
            seat = network.document.seat_of(host.key.public)
            if seat is not None:
                secret = network.secrets[host.key.public]
                host.disks[Chain(1, seat[0])].write([Pledge(attempt=1, secret=secret, roll=network.roll.hash)])
                host.start()

    def after(self, delay: int, event: Callable[[], None]) -> None:
        heappush(self._events, (self.now + delay, next(self._order), event))

    def run(self, until: Callable[[], bool], at_most: int) -> None:
        """Until this holds at the end of a millisecond. Raises AssertionError if it does not within so many."""
        end = self.now + at_most
        while not until():
            assert self._events, "nothing happens any more"
            assert self._events[0][0] <= end, f"not within {at_most} ms"
            self.now = self._events[0][0]
            while self._events and self._events[0][0] == self.now:
                _, _, event = heappop(self._events)
                event()

    def publish(self, topic: str, body: bytes) -> None:
        label = self.network.genesis.network
        if topic == replies_topic(label, CLIENT):
            self.replies.append(body)
        for host in self.hosts:
            if self.chance.random() < self.broker_loss:
                continue
            if topic == bulletins_topic(label):
                host.later(3, lambda host=host: host.put(Bulletined(body)))  # type: ignore[misc]
            elif topic == asks_topic(label):
                host.later(3, lambda host=host: host.put(AskedAbout(body)))  # type: ignore[misc]
            elif topic == entries_topic(label):
                for chain in [chain for chain, hears in host.chains.items() if hears]:
                    host.later(3, lambda host=host, chain=chain: host.put(For(chain, Entries((body,)))))  # type: ignore[misc]

    def ask(self, chain: Chain, query: Query) -> None:
        """A client's question, to those who hear any of this chain. What is answered is among ``replies``."""
        for host in self.hosts:
            if chain in host.chains or chain in host.retired:
                host.later(3, lambda host=host: host.put(For(chain, Asked(query))))  # type: ignore[misc]

    def submit(self, transactions: Sequence[Transaction]) -> None:
        """Each to the members of its home, unless it is lost."""
        by_home = defaultdict[Chain, list[bytes]](list)
        for transaction in transactions:
            home = self.document.shards.shard_of(transaction.order.payers[0])
            by_home[self.document.electorates[home].chain].append(encode(transaction))
        for chain, said in by_home.items():
            for host in self.hosts:
                if chain in host.chains:
                    heard = tuple(one for one in said if self.chance.random() >= self.broker_loss)
                    event = For(chain, Transactions(heard))
                    host.later(self.chance.randint(1, 10), lambda host=host, event=event: host.put(event))  # type: ignore[misc]

    @property
    def document(self) -> EpochDocument:
        """Of the latest epoch that any node knows of."""
        known = [host.node.chronicle.documents[-1] for host in self.hosts if host.node is not None]
        return max(known, key=lambda document: document.number, default=self.network.document)  # all are down

    def may_end(self, host: Host) -> bool:
        """Whether of each committee, of this epoch and of a prospect, no more are down or liars then than tolerated."""
        gone = {other.key.public for other in self.hosts if other.node is None or other.liar is not None} | {host.key.public}
        prospects = [other.node.chronicle.prospect for other in self.hosts if other.node is not None]
        documents = [self.document, *(prospect for prospect in prospects if prospect is not None)]
        committees = [electorate for document in documents for electorate in document.electorates.values()]
        return all(len(gone.intersection(one.keys)) <= one.faults_tolerated for one in committees)

    def check_begun(self, host: Host, epoch: int) -> None:
        """A node begins only what the second implementation begins, too."""
        assert host.node is not None
        document = host.node.chronicle.documents[epoch - 1]
        if self.oracle.epoch < epoch:
            violated("document", f"{host.name} begins epoch {epoch}, though not all shards of the one before have closed")
        if encode(document) != packb(self.oracle.documents[epoch - 1]):
            violated("document", f"{host.name} begins epoch {epoch} with a document that does not follow")

    def check_said(self, host: Host, entry: Entry) -> None:
        """Nobody tells a secret while anybody may still register."""
        if not isinstance(entry, Disclosure):
            return
        registers = [chain.ledger for chain in self.oracle.chains_of(self.oracle.epoch).values() if chain.ledger.is_register]
        for ledger in registers:
            is_open = (ledger.register.phase, ledger.attempt, ledger.epoch) == (REGISTRATION, entry.attempt, host.epoch)
            if is_open:
                violated("secret", f"{host.name} tells its secret before the roll is closed")

    @property
    def is_open(self) -> bool:
        """Whether every member of the latest epoch that is up keeps its chain, and has a block of it."""
        electorates = self.document.electorates.values()
        members = [self.by_key[key_] for electorate in electorates for key_ in electorate.keys]
        replicas = [host.node.replica for host in members if host.node is not None]
        return all(r is not None and r.electorate.epoch == self.document.number and r.state.height > 0 for r in replicas)
