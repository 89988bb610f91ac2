"""A host: a node's real mind on a virtual disk, clock and network. It decides nothing.

What a batch of effects persists is one write, which takes time; events gather meanwhile. Only then is anything sent. A crash
can come before the write, after it, or between two sends.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from random import Random
from typing import TYPE_CHECKING, Any, cast

from node.effects import (
    Abandon,
    AcceptDocument,
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
    Row,
    Send,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    Tell,
)
from node.events import Event, For, Instant, Mined, Recovered, SignaturesChecked, Stored, Tick, Transactions
from node.handing_over import read_checkpoint, read_parts
from node.membership import Membership
from node.network.events import Message, PeerDown, PeerUp
from node.node import Node
from node.persisting import Persisting
from node.protocol import puzzle
from node.protocol.certificate import CertifiedBlock, FinalBlock
from node.protocol.chain import Chain
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Opening, SignedDocument
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import BundleDelivery, ChainReply, CheckpointReply, PartsReply, PeerMessage
from node.protocol.queries import GetBlocks
from node.protocol.reports import Notable
from node.recovery import bring_back
from node.replica.answering import sign_blocks
from node.replica.replica import Replica
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from tests.simulation.adversary import Adversary
    from tests.simulation.world import World

Rows = Sequence[tuple[Chain, Sequence[Row]]]

START = 1_700_000_000_000
_MAX_EVENTS = 2_000
_SERVE_BYTES = 1 << 20


class Host:
    """``index``: by seat, shard * size + member. ``entropy``: the same at each start, while the disk lasts, so that the document
    can be foreseen. ``life`` grows with each start: what an earlier one had under way is lost."""

    def __init__(self, world: "World", index: int, name: str, label: str, key: KeyPair, entropy: bytes, address: str) -> None:
        self.world, self.index, self.name, self.key = world, index, name, key
        self.label, self._address = label, address
        self.disks: defaultdict[Chain, Disk] = defaultdict(Disk)
        self._pledges: dict[int, Pledge] = {}
        """For epochs that have not begun."""
        self._document = b""
        """The first epoch's document, once accepted: a file of its own, which outlives the databases."""
        self._entropy = entropy
        self.chance = Random(f"{world.plan.seed}/node/{index}")
        self.adversary: Adversary | None = None
        self.node: Node | None = None
        self.life = 0
        self.skew = 0
        self.latency = 1
        self.stalled = False
        self.trap = ""
        self._own: set[bytes] = set()
        """The committee with which it stays connected, once it knows it."""
        self._events: list[Event] = []
        self.is_writing = False
        """Something is on its way to the disk."""
        self._wakeup = 0
        self._persisting = Persisting()
        self.handled_at = -1
        """When the node was told of something last."""

    def __repr__(self) -> str:
        return self.name

    @property
    def is_honest(self) -> bool:
        return self.adversary is None

    @property
    def is_up(self) -> bool:
        return self.node is not None

    @property
    def membership(self) -> Membership | None:
        return self.node.membership if self.node is not None else None

    @property
    def replica(self) -> Replica | None:
        return self.node.replica if self.node is not None else None

    @property
    def disk(self) -> Disk:
        """Of the chain that it keeps in the first epoch."""
        return self.disks[Chain(1, self.index // self.world.plan.size)]

    @property
    def pledge(self) -> Pledge | None:
        """For the first epoch, wherever it is."""
        return self._pledges.get(1) or self.disk.pledge()

    @property
    def at(self) -> Instant:
        return Instant(self.world.time, START + self.world.time + self.skew)

    # -- life and death --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Power is back: the node starts with what is on its disk."""
        if self.node is not None:
            return
        self.stalled, self.trap = False, ""
        self._events, self.is_writing, self._wakeup = [], False, 0
        self._persisting = Persisting()
        self.life += 1
        self.world.tell(self, "starts")
        union = cast(Any, SignedDocument | Opening)  # a union is no type for mypy
        accepted = decode(union, self._document, MAX_FRAME_BYTES) if self._document else None
        stored = Stored(self._entropy, accepted, tuple(self._pledges.values()), (), frozenset(self.disks))
        self.node = Node(self.world.genesis, self.key, self.label, (self._address,), stored, self.world.plan.keep_blocks)
        self.world.coordinator.meet(self)
        self._perform(self.node.start())

    def end(self) -> None:
        """What may wait for the disk is stored, as at every clean end of a node."""
        self._written(self._persisting.flush(), [], [])

    def crash(self) -> None:
        if self.node is None:
            return
        self.world.tell(self, "crashes")
        self.node, self._events = None, []
        self.world.coordinator.part(self)
        met = [other for other in self.world.nodes if self._is_met(other)]
        self._own = set()
        for other in [*met, *self.world.network.connections.part(self)]:
            other.put(PeerDown(self.key.public))

    def lose_disk(self) -> None:
        """The database is gone, with the epoch document or without: the node starts with a new one. Not before seats are
        assigned: then somebody else would have this one."""
        if not self.world.coordinator.has_assigned:
            return
        self.crash()
        self.world.tell(self, "loses its database")
        self.disks.clear()
        self._pledges.clear()
        self._entropy = self.chance.randbytes(32)
        if self.chance.random() < 0.5:
            self._document = b""
        self.world.monitor.on_lost_disk(self)

    def stall(self, lasting: int) -> None:
        """The process stands still, what arrives waits."""
        if self.is_up:
            self.stalled = True
            self.world.tell(self, f"stands still for {lasting} ms")
            self.later(lasting, self.wake_up)

    def wake_up(self) -> None:
        """The process goes on."""
        if self.stalled:
            self.stalled = False
            self._work()

    def later(self, delay: int, event: Callable[[], None]) -> None:
        """Unless the node crashes meanwhile."""
        life = self.life
        self.world.after(delay, lambda: event() if self.is_up and self.life == life else None)

    # -- the loop --------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """An event for the node: handled now, or when the process has time. When too much waits, messages are lost."""
        is_lossy = isinstance(event, Message) or (isinstance(event, For) and isinstance(event.event, Transactions))
        if self.node is not None and (len(self._events) < _MAX_EVENTS or not is_lossy):
            self._events.append(event)
            self._work()

    def _work(self) -> None:
        if self.is_writing or self.stalled or self.node is None:
            return
        events, self._events = self._events, []
        effects: list[NodeEffect] = []
        self.handled_at = self.world.time
        with self.world.monitor.guard(self):
            for event in events:
                effects += self.node.handle(event, self.at)
            if not events or (self.node.deadline or 0) <= self.world.time:
                effects += self.node.handle(Tick(), self.at)
            self._perform(effects)

    def _perform(self, effects: list[NodeEffect]) -> None:
        rows = self._persisting.take(effects, self.world.time)
        records = [effect for effect in effects if isinstance(effect, Persist)]
        if not rows and not records:
            self._send_all(effects)
        elif self.trap == "before the write":
            self.crash()
        else:
            self.is_writing = True
            self.later(self.latency, lambda: self._written(rows, records, effects))

    def _written(self, rows: Rows, records: Sequence[Persist], effects: list[NodeEffect]) -> None:
        """Each chain's rows are one transaction, what the node remembers another."""
        for chain, part in rows:
            self.disks[chain].write(part)
        self._remember(records)
        self.is_writing = False
        persist: list[Row | Persist] = [*(row for _, part in rows for row in part), *records]
        if self.world.story is not None:
            self.world.story.persisted(self.world.time, self, persist)
        self.world.monitor.on_written(self, persist)
        if self.adversary is not None:
            for effect in persist:
                if isinstance(effect, Commit):
                    self.adversary.stored(effect)
        if self.trap == "after the write":
            self.crash()
            return
        self._send_all(effects)
        if self._events:
            self._work()

    def _remember(self, records: Sequence[Persist]) -> None:
        for record in records:
            match record:
                case Pledge():
                    self._pledges[record.epoch] = record
                case AcceptDocument(accepted):
                    self.world.monitor.on_document(self, accepted)
                    self._document = encode(accepted)
                    if isinstance(accepted, Opening):
                        self._pledges.pop(accepted.document.number, None)
                case Begin(succession):
                    self._pledges.pop(succession.number, None)
                case Abandon(chain):
                    self.disks.pop(chain, None)

    def _send_all(self, effects: list[NodeEffect]) -> None:
        """Those of one chain after the other, in order."""
        for chain, some in groupby(effects, lambda effect: effect.chain if isinstance(effect, In) else None):
            said: list[Any] = [effect.effect if isinstance(effect, In) else effect for effect in some]
            if self.adversary is not None:
                said = self.adversary.tamper(said)
            else:
                self.world.monitor.on_sending(self, said)
            for effect in said:
                if self.trap == "between two sends" and isinstance(effect, Send | Broadcast) and self.chance.random() < 0.3:
                    self.crash()
                if not self.is_up:
                    return
                self._do(chain, effect)
        self._sleep()

    def _sleep(self) -> None:
        """Be woken at the node's deadline."""
        if self.node is None or (due := self.node.deadline) is None:
            return
        now = self.world.time
        self.world.monitor.on_sleep(self, due)
        deadline = max(now + 1, due)
        if now < self._wakeup <= deadline:
            return
        self._wakeup = deadline

        def wake() -> None:
            if self._wakeup == deadline:
                self._wakeup = 0
                self._work()

        self.later(deadline - now, wake)

    # -- effects ---------------------------------------------------------------------------------------------------

    def _do(self, chain: Chain | None, effect: ChainEffect | NodeEffect) -> None:
        """An effect that is not about the disk, as the runtime performs it."""
        match effect:
            case Tell(message):
                self.world.monitor.on_told(self, message)
                self.world.coordinator.hear(self, encode(message))
            case Meet(own, _):
                self._meet({member.public_key for committee in own for member in committee.members})
            case Mine(token, prefix, bits):
                nonce = puzzle.search(prefix, bits, 0, 1 << 30)
                assert nonce is not None
                mined = Mined(token, nonce)
                self.later(self.chance.randint(1, 20), lambda: self.put(mined if chain is None else For(chain, mined)))
            case Publish(topic, body):
                self.world.broker.publish(self, topic, body)
            case Ban(peer, reason):
                self.world.monitor.on_ban(self, self.world.by_key[peer], reason)
            case Notable(text):
                self.world.tell(self, "notes", text)
            case _ if chain is not None:
                self._do_in(chain, effect)

    def _do_in(self, chain: Chain, effect: ChainEffect | NodeEffect) -> None:
        """One that concerns a chain."""
        match effect:
            case Send(peer, message, None) if self.adversary is not None:
                self.send(peer, message)  # whichever the receiver keeps
            case Send(peer, message, shard):
                self.send(peer, message, chain if shard is None else Chain(chain.epoch, shard))
            case Broadcast(message):
                assert self.node is not None
                for key in self.node.duties[chain].electorate.keys:
                    if key != self.key.public:
                        self.send(key, message, chain)
            case Recover():
                self.later(1, lambda: self._recover(chain, effect))
            case CheckSignatures(token, transactions):
                checked = SignaturesChecked(token, tuple(t.has_valid_signatures() for t in transactions))
                self.later(1, lambda: self.put(For(chain, checked)))
            case ReplyBlocks(query):
                request, disk = query.request, self.disks[chain]
                assert isinstance(request, GetBlocks)
                assert self.node is not None
                found = disk.blocks(request.first, _SERVE_BYTES, request.count)
                seat = self.node.seat_in(chain)
                assert seat is not None
                self._do(chain, sign_blocks(seat, query, found, disk.oldest))
            case SendBlocks() | SendBundles() | SendCheckpoint() | SendParts():
                self._serve(chain, effect)

    def _serve(self, chain: Chain, effect: SendBlocks | SendBundles | SendCheckpoint | SendParts) -> None:
        """Read from disk what a peer asked for."""
        disk = self.disks[chain]
        match effect:
            case SendBlocks(peer, first):
                stored = [decode(CertifiedBlock, data, MAX_FRAME_BYTES) for data in disk.blocks(first, _SERVE_BYTES)]
                if stored:
                    self.send(peer, ChainReply(tuple(FinalBlock(block.block, block.finality) for block in stored)), chain)
            case SendBundles(peer, destination, sequence, is_alone):
                for data in disk.bundles(destination, sequence, 0 if is_alone else _SERVE_BYTES):
                    delivery = BundleDelivery(decode(CertifiedBundle, data, MAX_FRAME_BYTES))
                    self.send(peer, delivery, Chain(chain.epoch, destination))
            case SendCheckpoint(peer, height, certified_at, root):
                with suppress(DecodeError):
                    self.send(peer, CheckpointReply(read_checkpoint(cast(Any, disk), height, certified_at, root)), chain)
            case SendParts(peer, height, parts):
                self.send(peer, PartsReply(height, read_parts(cast(Any, disk), height, parts)), chain)

    def _meet(self, own: set[bytes]) -> None:
        """Connected are the members of a committee that know each other; with others see ``Network``."""
        self._own = own
        for other in self.world.nodes:
            if other is not self and self._is_met(other):
                self.put(PeerUp(other.key.public))
                other.put(PeerUp(self.key.public))

    def shares_committee(self, other: "Host") -> bool:
        return self.index // self.world.plan.size == other.index // self.world.plan.size

    def _is_met(self, other: "Host") -> bool:
        return other.key.public in self._own and self.key.public in other._own

    def _recover(self, chain: Chain, wanted: Recover) -> None:
        with self.world.monitor.guard(self):
            answer = bring_back(wanted, cast(Any, self.disks.__getitem__))
            if isinstance(answer, Recovered):
                self.world.monitor.on_recovered(self, answer)
            self.put(For(chain, answer))

    def send(self, key: bytes, message: PeerMessage, chain: Chain | None = None) -> None:
        """``chain``: of the receiver; None: the one of its committee in the first epoch."""
        self.world.monitor.on_sent(self, message)
        self.world.network.send(self, self.world.by_key[key], message, chain)
