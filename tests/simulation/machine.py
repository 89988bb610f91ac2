"""A node on its virtual machine: one core, a line up and down, a disk, connections. It decides nothing.

Events that wait are handled together, as ``node.runtime`` does it. What they would have cost the core (``Costs``) passes before
anything is said; frames up to ``URGENT_BYTES`` overtake larger ones on the line.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgspec import structs

from node.effects import (
    Abandon,
    Ban,
    Begin,
    Broadcast,
    ChainEffect,
    CheckSignatures,
    Commit,
    In,
    Journal,
    Meet,
    Mine,
    NodeEffect,
    Publish,
    Recover,
    Row,
    Send,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    Subscribe,
    Unsubscribe,
)
from node.events import Event, For, Mined, SignaturesChecked, Stored, Tick, Transactions
from node.handing_over import read_checkpoint, read_parts
from node.network.events import Message, PeerDown, PeerUp
from node.network.framing import URGENT_BYTES
from node.network.links import VISITS
from node.node import Node
from node.persisting import Persisting
from node.protocol import puzzle
from node.protocol.certificate import CertifiedBlock, FinalBlock
from node.protocol.chain import Chain
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import decode
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import BundleDelivery, ChainReply, CheckpointReply, PartsReply, PeerMessage
from node.recovery import bring_back
from tests.simulation.disk import Disk
from tests.simulation.violation import violated

if TYPE_CHECKING:
    from tests.simulation.large import World

FRAME_BYTES = 80
"""What a frame costs on the line beyond its content: TCP and IP headers, encryption, multiplexing."""
ROUNDS = 6
"""Times that something goes from one side to the other before the first frame of a new connection."""
_SERVE_BYTES = 1 << 20


class Costs(NamedTuple):
    """CPU of one core, in us. ``event``: a vote or another message, decoded and handled, but for signatures. ``byte``: of a
    message beyond that. ``taken``, ``executed``, ``committed``: a transaction from a client, in a proposal, in a final block.
    ``wire``: a frame at either end, ``wire_byte``: its bytes. ``handshake``: of a new connection, at either end. ``disk``: a
    durable write; no CPU, but nothing is said before it."""

    check: float = 33.0
    sign: float = 25.0
    event: float = 60.0
    byte: float = 0.005
    taken: float = 9.0
    executed: float = 12.0
    committed: float = 3.0
    wire: float = 8.0
    wire_byte: float = 0.0024
    handshake: float = 1_000.0
    disk: float = 2_000.0


class Line(NamedTuple):
    """``megabits``: a second, up as down. ``latency``: one way, ms."""

    megabits: float = 20.0
    latency: float = 100.0


class Pipe:
    """One direction of a node's line: one frame after the other, small ones before large ones. ``bytes``: that passed."""

    def __init__(self, megabits: float) -> None:
        self._per_ms = megabits * 125
        self._urgent = self._bulk = 0.0
        self.bytes = self.frames = 0

    def carry(self, size: int, now: float, copies: int = 1) -> float:
        """When so many copies of a frame are through, if they begin now."""
        self.bytes += size * copies
        self.frames += copies
        took = size * copies / self._per_ms
        if size <= URGENT_BYTES:
            self._urgent = max(now, self._urgent) + took
            self._bulk = max(now, self._bulk) + took
            return self._urgent
        self._bulk = max(now, self._bulk, self._urgent) + took
        return self._bulk


class OneDisk(Disk):
    """Keeps each block once for all members, and no votes: nobody starts again."""

    def __init__(self, shared: dict[tuple[Chain, int], bytes], chain: Chain) -> None:
        super().__init__()
        self._shared, self._chain = shared, chain

    def write(self, effects: Sequence[Row]) -> None:
        super().write([self._once(effect) for effect in effects if not isinstance(effect, Journal)])

    def _once(self, effect: Row) -> Row:
        if not isinstance(effect, Commit):
            return effect
        return structs.replace(effect, encoded=self._shared.setdefault((self._chain, effect.height), effect.encoded))


class Host:
    """A node on its virtual machine.

    Attributes:
        up, down: its line. busy: ms its core was. visits: connections with members of other committees, by when they were used.
        most: connections at once. made: new ones. events: that it handled.
    """

    def __init__(self, world: "World", number: int, pair: KeyPair) -> None:
        self.world, self.number, self.key = world, number, pair
        self.up, self.down = Pipe(world.line.megabits), Pipe(world.line.megabits)
        self.disks: dict[Chain, Disk] = {}
        self.own: frozenset[bytes] = frozenset()
        self.hears: dict[Chain, bool] = {}
        self.visits: OrderedDict[bytes, float] = OrderedDict()
        self.busy = 0.0
        self.made = self.most = self.events = 0
        self.last: dict[Chain, CertifiedBlock] = {}
        self._free = 0.0
        self._inbox: list[tuple[float, int, Event, int]] = []
        self._persisting = Persisting()
        self._next = -1.0
        self._is_running = False

    def start(self) -> None:
        """As a node that has been up for long: it is connected with its committee."""
        network, seat = self.world.network, self.world.network.document.seat_of(self.key.public)
        chains = {Chain(1, seat[0])} if seat is not None else set()
        self.disks = {chain: self.world.disk_of(chain, self.key.public) for chain in chains}
        stored = Stored(self.key.secret, network.opening, (), (), frozenset(chains))
        address = f"/ip4/10.{self.number >> 8 & 255}.{self.number & 255}.1/tcp/8100"
        self.node = Node(network.genesis, self.key, f"node-{self.number}", (address,), stored)
        self._perform(self.node.start())

    # -- the core --------------------------------------------------------------------------------------------------

    def put(self, ready: float, event: Event, size: int = 0) -> None:
        """An event that is here at ``ready``. ``size``: of the frame it came in."""
        heappush(self._inbox, (ready, next(self.world.order), event, size))
        if not self._is_running:
            self._plan(ready)

    def _plan(self, wanted: float) -> None:
        at = max(self.world.now, self._free, wanted)
        if self._next < 0 or at < self._next:
            self._next = at
            self.world.at(at, lambda: self._run(at))

    def _run(self, planned: float) -> None:
        if self._next != planned:
            return
        self._next, now, meter = -1.0, self.world.now, self.world.meter
        if now < self._free:
            self._plan(now)
            return
        costs, at, before = self.world.costs, self.world.instant, meter.read()
        effects: list[NodeEffect] = []
        spent = 0.0
        while self._inbox and self._inbox[0][0] <= now:
            _, _, event, size = heappop(self._inbox)
            spent += self._cost(event, size)
            effects += self.world.handle(self, event, at)
            self.events += 1
        if (self.node.deadline or 0) <= at.now:
            spent += costs.event
            effects += self.world.handle(self, Tick(), at)
        checks, signs, executed = (b - a for a, b in zip(before, meter.read(), strict=True))
        spent += checks * costs.check + signs * costs.sign + executed * costs.executed
        rows = self._persisting.take(effects, at.now)
        for chain, some in rows:
            self._disk(chain).write(some)
        spent += costs.committed * sum(map(_final_transactions, effects))
        self._is_running = True
        self.busy += spent / 1e3
        done = now + spent / 1e3 + (costs.disk / 1e3 if rows else 0.0)
        self.world.at(done, lambda: self._finish(effects))

    def _cost(self, event: Event, size: int) -> float:
        costs = self.world.costs
        match event:
            case Message():
                return costs.event + costs.wire + size * (costs.byte + costs.wire_byte)
            case For(_, Transactions(batch)):
                return costs.event + len(batch) * costs.taken
        return costs.event + size * costs.byte

    def _finish(self, effects: list[NodeEffect]) -> None:
        self._free = self.world.now
        self._perform(effects)
        self._is_running = False
        due = self.node.deadline
        waiting = [self._inbox[0][0]] if self._inbox else []
        if due is not None or waiting:
            self._plan(min([*waiting, *([float(due)] if due is not None else [])]))

    def occupy(self, us: float) -> None:
        """The core has this to do, too."""
        self._free = max(self._free, self.world.now) + us / 1e3
        self.busy += us / 1e3

    # -- effects ---------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[NodeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, In):
                self._do_in(effect.chain, effect.effect)
            else:
                self._do(effect)

    def _do(self, effect: NodeEffect) -> None:
        match effect:
            case Meet(own, _):
                self._meet(frozenset(m.public_key for c in own for m in c.members) - {self.key.public})
            case Subscribe(chain, entries):
                self.hears[chain] = entries
            case Unsubscribe(chain):
                self.hears.pop(chain, None)
            case Abandon(chain):
                self.disks.pop(chain, None)
            case Begin(succession):
                self.world.began[succession.number].append(self.world.now)
            case Publish(topic, body):
                self.world.publish(self, topic, body)
            case Mine():
                self._mine(effect, lambda mined: mined)
            case Ban(_, reason):
                violated("ban", reason)

    def _do_in(self, chain: Chain, effect: ChainEffect) -> None:
        match effect:
            case Send(peer, message, shard):
                self.world.send(self, [peer], message, chain if shard is None else Chain(chain.epoch, shard))
            case Broadcast(message):
                self.world.send(self, self.world.others(self, chain), message, chain)
            case CheckSignatures(token, transactions):
                before = self.world.meter.checks
                verdicts = tuple(transaction.has_valid_signatures() for transaction in transactions)
                self.occupy((self.world.meter.checks - before) * self.world.costs.check)
                self.put(self._free, For(chain, SignaturesChecked(token, verdicts)))
            case Commit(block=block):
                self.last[chain] = block
                self.world.committed(chain, block)
            case Recover():
                self.put(self.world.now, For(chain, bring_back(effect, cast(Any, self._disk))))
            case Mine():
                self._mine(effect, lambda mined: For(chain, mined))
            case SendBlocks() | SendBundles() | SendCheckpoint() | SendParts() if chain in self.disks:
                self._serve(chain, self.disks[chain], effect)
            case Publish() | Ban():
                self._do(effect)

    def _disk(self, chain: Chain) -> Disk:
        return self.disks.setdefault(chain, OneDisk(self.world.blocks, chain))

    def _mine(self, wanted: Mine, event: Callable[[Mined], Event]) -> None:
        nonce = puzzle.search(wanted.prefix, wanted.bits, 0, 1 << 30)
        assert nonce is not None
        self.put(self.world.now, event(Mined(wanted.token, nonce)))

    def _serve(self, chain: Chain, disk: Disk, effect: SendBlocks | SendBundles | SendCheckpoint | SendParts) -> None:
        message: PeerMessage
        match effect:
            case SendBlocks(peer, first):
                stored = [decode(CertifiedBlock, data, MAX_FRAME_BYTES) for data in disk.blocks(first, _SERVE_BYTES)]
                if not stored:
                    return
                message = ChainReply(tuple(FinalBlock(block.block, block.finality) for block in stored))
            case SendBundles(peer, destination, sequence, is_alone):
                for data in disk.bundles(destination, sequence, 0 if is_alone else _SERVE_BYTES):
                    delivery = BundleDelivery(decode(CertifiedBundle, data, MAX_FRAME_BYTES))
                    self.world.send(self, [peer], delivery, Chain(chain.epoch, destination))
                return
            case SendCheckpoint(peer, height, certified_at, root):
                message = CheckpointReply(read_checkpoint(cast(Any, disk), height, certified_at, root))
            case SendParts(peer, height, parts):
                message = PartsReply(height, read_parts(cast(Any, disk), height, parts))
        self.world.send(self, [peer], message, chain)

    # -- connections -----------------------------------------------------------------------------------------------

    def _meet(self, own: frozenset[bytes]) -> None:
        """Who has been connected for long is not told; of later ones both are, once there was time for it."""
        before, self.own = self.own, own
        if self.world.is_starting:
            self.node._duties.peers.update(own)
        else:
            for public in sorted(before ^ own):
                other = self.world.by_key[public]
                if self.key.public in other.own:
                    self._tell(other, is_up=public in own)
        self.most = max(self.most, len(own) + len(self.visits))

    def _tell(self, other: "Host", *, is_up: bool) -> None:
        event = PeerUp if is_up else PeerDown
        for one, peer in ((self, other), (other, self)):
            one.made += is_up
            if is_up:
                one.occupy(self.world.costs.handshake)
            one.put(self.world.now + ROUNDS * self.world.line.latency * is_up, event(peer.key.public))

    def reach(self, other: "Host") -> float:
        """How long a frame waits for a connection, ms."""
        if other.key.public in self.own:
            return 0.0
        now, public = self.world.now, other.key.public
        is_there = public in self.visits
        for one, peer in ((self, other), (other, self)):
            one.visits.pop(peer.key.public, None)
            one.visits[peer.key.public] = now
        if is_there:
            return 0.0
        for one in (self, other):
            one.occupy(self.world.costs.handshake)
            one.made += 1
            one.let_go()
            one.most = max(one.most, len(one.own) + len(one.visits))
        return ROUNDS * self.world.line.latency

    def let_go(self) -> None:
        """Of the connections that are unused for long, or too many."""
        now = self.world.now
        while self.visits:
            public, used = next(iter(self.visits.items()))
            if len(self.visits) <= VISITS.most and used + 1e3 * VISITS.seconds > now:
                return
            del self.visits[public]
            self.world.by_key[public].visits.pop(self.key.public, None)


def _final_transactions(effect: NodeEffect) -> int:
    """How many it makes final."""
    if isinstance(effect, In) and isinstance(effect.effect, Commit):
        return len(effect.effect.block.block.transactions)
    return 0
