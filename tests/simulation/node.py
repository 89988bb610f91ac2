"""A node: the real membership and replica, run as the runtime runs them, on a virtual disk and network.

What a batch of effects persists is one write, which takes time; events gather meanwhile. Only then is anything sent. A crash
can come before the write, after it, or between two sends.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, cast

from node.effects import (
    Abstain,
    Broadcast,
    Checkpoint,
    CheckSignatures,
    Commit,
    Effect,
    Journal,
    Mine,
    Notable,
    Persist,
    Publish,
    Send,
    SendBlocks,
    SendBundles,
)
from node.ledger.rules import Rules
from node.protocol import puzzle
from node.protocol.certificate import CertifiedBlock, FinalBlock
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Application, SignedDocument
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import BundleDelivery, ChainReply, PeerMessage
from node.recovery import recover
from node.registration import Membership, MembershipEffect, PersistBegun, PersistDocument, SolvePuzzle, Tell
from node.replica import Instant, Replica
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from tests.simulation.adversaries import Adversary
    from tests.simulation.world import World

START = 1_700_000_000_000
_MAX_EVENTS = 2_000
_SERVE_BYTES = 1 << 20

Event = Callable[[Replica], list[Effect]]


class Node:
    """``index``: by seat, shard * size + member. ``life`` grows with each start: what an earlier one had under way is lost."""

    def __init__(self, world: "World", index: int, name: str, label: str, key: KeyPair, address: str) -> None:
        self.world, self.index, self.name, self.key = world, index, name, key
        self._label, self._address = label, address
        self.disk = Disk()
        self._document = b""
        """The epoch document accepted: a file of its own, which outlives the database."""
        self.chance = Random(f"{world.plan.seed}/node/{index}")
        self.adversary: Adversary | None = None
        self.is_up = False
        self.life = 0
        self.membership: Membership | None = None
        self.replica: Replica | None = None
        self.skew = 0
        self.latency = 1
        self.stalled = False
        self.trap = ""
        self._events: list[Event] = []
        self._writing = False
        self._wakeup = 0

    def __repr__(self) -> str:
        return self.name

    @property
    def is_honest(self) -> bool:
        return self.adversary is None

    @property
    def at(self) -> Instant:
        return Instant(self.world.time, START + self.world.time + self.skew)

    # -- life and death --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Power is back: recover from disk, as the runtime does."""
        if self.is_up:
            return
        self.is_up, self.stalled, self.trap = True, False, ""
        self._events, self._writing, self._wakeup = [], False, 0
        self.life += 1
        self.world.tell(self, "starts")
        signed = decode(SignedDocument, self._document, MAX_FRAME_BYTES) if self._document else None
        begun = self.disk.begun or (signed is not None and self.disk.abstains_through() is None)
        self.membership = Membership(self.world.genesis, self.key, self._label, (self._address,), signed, begun)
        self.world.coordinator.meet(self)
        self._perform_membership([])

    def crash(self) -> None:
        if not self.is_up:
            return
        self.world.tell(self, "crashes")
        self.is_up, self.replica, self.membership = False, None, None
        self._events = []
        self.world.coordinator.part(self)
        for other in self.world.nodes:
            if other is not self and other.replica is not None:
                other.put(lambda replica, other=other: replica.on_peer_down(self.key.public, other.at))  # type: ignore[misc]

    def lose_disk(self) -> None:
        """The database is gone: the node starts with a new one."""
        self.crash()
        self.world.tell(self, "loses its database")
        self.disk = Disk()
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

    # -- membership ------------------------------------------------------------------------------------------------

    def on_coordinator(self, frame: bytes) -> None:
        """A frame from the coordinator."""
        assert self.membership is not None
        self._perform_membership(self.membership.received(frame))
        if self.membership is None:  # it crashed over that
            return
        document, seat = self.membership.document, self.membership.seat
        if document is not None and seat is not None and self.membership.phase is Phase.HANDOFF:
            electorate = document.electorates[seat[0]]
            reached = sum(node.is_up for node in self.world.nodes if node.key.public in electorate.keys)
            if reached >= electorate.quorum:
                self._perform_membership(self.membership.ready(0))

    def on_coordinator_up(self) -> None:
        assert self.membership is not None
        self._perform_membership(self.membership.connected())

    def _perform_membership(self, effects: list[MembershipEffect]) -> None:
        membership = self.membership
        if membership is None:
            return
        for effect in effects:
            match effect:
                case PersistDocument(signed):
                    self.world.monitor.on_document(self, signed)
                    self._document = encode(signed)
                    if membership.phase is not Phase.MINING:
                        self.disk.write([Abstain(0)])
                case PersistBegun():
                    self.disk.begun = True
                case SolvePuzzle(prefix, bits):
                    self._solve(membership, prefix, bits)
                case Tell(message):
                    if isinstance(message, Application) and self.disk.abstains_through() is None:
                        self.disk.write([Abstain(0)])
                    self.world.coordinator.hear(self, encode(message))
                case Notable(text):
                    self.world.tell(self, "notes", text)
        if membership.begun and membership.seat is not None and self.replica is None:
            self._start_replica()

    def _solve(self, membership: Membership, prefix: bytes, bits: int) -> None:
        nonce = puzzle.search(prefix, bits, 0, 1 << 30)
        assert nonce is not None
        self.later(5, lambda: self._perform_membership(membership.puzzle_solved(nonce)))

    def _start_replica(self) -> None:
        world = self.world
        document, seat = self.membership.document, self.membership.seat  # type: ignore[union-attr]
        assert document is not None
        assert seat is not None
        rules = Rules(world.genesis, seat[0], document.shards)
        with world.monitor.guard(self):
            recovered = recover(cast(Any, self.disk), rules, document.electorates[seat[0]])
            state, last, journal = recovered.state, recovered.last, recovered.journal
            abstain = self.disk.abstains_through()
            self.replica = Replica(world.genesis, document, self.key, state, last, journal, self.at, abstain)
        if self.replica is None:
            return
        world.monitor.on_recovered(self, recovered)
        self.put(lambda replica: replica.start(self.at))
        for other in world.nodes:
            if other is not self and other.replica is not None:
                self.put(lambda replica, other=other: replica.on_peer_up(other.key.public, self.at))  # type: ignore[misc]
                other.put(lambda replica, other=other: replica.on_peer_up(self.key.public, other.at))  # type: ignore[misc]

    # -- the loop --------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """An event for the replica: handled now, or when the process has time."""
        if self.replica is not None and len(self._events) < _MAX_EVENTS:
            self._events.append(event)
            self._work()

    def _work(self) -> None:
        if self._writing or self.stalled or self.replica is None:
            return
        events, self._events = self._events, []
        effects: list[Effect] = []
        with self.world.monitor.guard(self):
            for event in events:
                effects += event(self.replica)
            if not events or len(events) > 1:
                effects += self.replica.on_tick(self.at)
            self._perform(effects)

    def _perform(self, effects: list[Effect]) -> None:
        persist: list[Persist] = [e for e in effects if isinstance(e, Journal | Commit | Checkpoint | Abstain)]
        if not persist:
            self._send_all(effects)
        elif self.trap == "before the write":
            self.crash()
        else:
            self._writing = True
            self.later(self.latency, lambda: self._written(persist, effects))

    def _written(self, persist: list[Persist], effects: list[Effect]) -> None:
        self.disk.write(persist)
        self._writing = False
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

    def _send_all(self, effects: list[Effect]) -> None:
        if self.adversary is not None:
            effects = self.adversary.tamper(effects)
        for effect in effects:
            if self.trap == "between two sends" and isinstance(effect, Send | Broadcast) and self.chance.random() < 0.3:
                self.crash()
            if not self.is_up:
                return
            self._do(effect)
        self._sleep()

    def _sleep(self) -> None:
        """Be woken at the replica's deadline."""
        if self.replica is None:
            return
        now = self.world.time
        deadline = max(now + 1, self.replica.deadline)
        if now < self._wakeup <= deadline:
            return
        self._wakeup = deadline

        def wake() -> None:
            if self._wakeup == deadline:
                self._wakeup = 0
                self._work()

        self.later(deadline - now, wake)

    def _do(self, effect: Effect) -> None:
        """An effect that is not about the disk, as the runtime performs it."""
        match effect:
            case Send(peer, message):
                self.send(peer, message)
            case Broadcast(message):
                assert self.replica is not None
                for key in self.replica.electorate.keys:
                    if key != self.key.public:
                        self.send(key, message)
            case CheckSignatures(token, transactions):
                verdicts = [t.has_valid_signatures() for t in transactions]
                checked: Event = lambda replica: replica.on_signatures_checked(token, verdicts, self.at)  # noqa: E731
                self.later(1, lambda: self.put(checked))
            case Mine(token, prefix, bits):
                nonce = puzzle.search(prefix, bits, 0, 1 << 30)
                assert nonce is not None
                mined: Event = lambda replica: replica.on_mined(token, nonce, self.at)  # noqa: E731
                self.later(self.chance.randint(1, 20), lambda: self.put(mined))
            case SendBlocks(peer, first):
                stored = [decode(CertifiedBlock, data, MAX_FRAME_BYTES) for data in self.disk.blocks(first, _SERVE_BYTES)]
                if stored:
                    self.send(peer, ChainReply(tuple(FinalBlock(block.block, block.finality) for block in stored)))
            case SendBundles(peer, destination, sequence):
                for data in self.disk.bundles(destination, sequence, _SERVE_BYTES):
                    self.send(peer, BundleDelivery(decode(CertifiedBundle, data, MAX_FRAME_BYTES)))
            case Publish(encoded):
                assert self.replica is not None
                self.world.broker.publish_block(self, self.replica.shard, encoded)
            case Notable(text):
                self.world.tell(self, "notes", text)
            case _:
                pass

    def send(self, key: bytes, message: PeerMessage) -> None:
        self.world.monitor.on_sent(self, message)
        self.world.network.send(self, self.world.by_key[key], message)
