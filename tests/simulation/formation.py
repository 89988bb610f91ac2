"""How an epoch forms, in virtual time: the real coordinator and the nodes' real membership.

Nodes crash and lose disks, strangers take seats and stay away, others break every rule, and the coordinator is killed."""

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from msgspec import structs

from node.effects import AcceptDocument, Mine, Pledge, Tell
from node.events import Stored
from node.membership import Membership, MembershipEffect
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import (
    Announcement,
    Application,
    ApplicationRefused,
    Opening,
    Readiness,
    Registration,
    Reveal,
    SignedDocument,
    commitment_to,
)
from node.protocol.genesis import Phase
from node.protocol.puzzle import identity_prefix, is_solution, search
from signaling.phases import MAX_MESSAGES_PER_SECOND, Announce, Coordinator, Drop, Effect, Persist, SendTo
from signaling.storage import Storage
from tests.chains import Network, key

NETWORK = Network(puzzle_difficulty_bits=2)
REGISTRATION, ANSWER = 6_000, 3_000


class FormingNode:
    """Membership and its disk. ``stays_away_from``: the phase from which on it says nothing."""

    def __init__(self, world: "Formation", number: int, pair: KeyPair, stays_away_from: Phase | None = None) -> None:
        self.world, self.number, self.key, self.stays_away_from = world, number, pair, stays_away_from
        self.pledge: Pledge | None = None
        self.accepted: SignedDocument | Opening | None = None
        self.begun: set[bytes] = set()
        self.rolls: dict[int, bytes] = {}
        self.membership: Membership
        self.is_up = False
        self.start()

    def start(self) -> None:
        stored = Stored(self.world.chance.randbytes(32), self.accepted, (self.pledge,) if self.pledge is not None else ())
        address = f"/ip4/192.0.2.{self.number % 250 + 1}/tcp/8100"
        self.membership = Membership(NETWORK.genesis, self.key, f"node-{self.number}", (address,), stored)
        self.is_up = True

    def crash(self, *, loses_disk: bool) -> None:
        self.is_up = False
        self.world.part(self.key.public)
        if loses_disk:
            self.pledge = None

    def hear(self, frame: bytes) -> None:
        self.perform(self.membership.received(frame))
        document = self.membership.document
        if self.is_up and document is not None and self.membership.seat is not None:
            committee = document.electorates[self.membership.seat[0]]
            if sum(self.world.is_there(member) for member in committee.keys) >= committee.quorum:
                self.perform(self.membership.ready())

    def perform(self, effects: list[MembershipEffect]) -> None:
        """What persists first; a crash may come before or after."""
        if self.world.chance.random() < self.world.crash_rate:
            self.crash(loses_disk=False)
            return
        for effect in effects:
            if isinstance(effect, Pledge):
                self.pledge = effect
            elif isinstance(effect, AcceptDocument):
                self.accepted = effect.accepted
                if isinstance(self.accepted, Opening):
                    self.begun.add(self.accepted.document.hash)
        for effect in effects:
            if isinstance(effect, Mine):
                nonce = search(effect.prefix, effect.bits, 0, 1 << 20)
                assert nonce is not None
                self.perform(self.membership.puzzle_solved(nonce))
            elif isinstance(effect, Tell) and self.is_up:
                self.tell(effect)

    def tell(self, effect: Tell) -> None:
        order = list(Phase)
        if self.stays_away_from and order.index(self.membership.phase) >= order.index(self.stays_away_from):
            return
        if isinstance(effect.message, Reveal):
            assert self.pledge is not None
            assert (self.pledge.secret, bool(self.pledge.roll)) == (effect.message.secret, True), "to a roll on its disk only"
            assert self.rolls.setdefault(self.pledge.attempt, self.pledge.roll) == self.pledge.roll, "one in an attempt"
        self.world.deliver(self.key.public, encode(effect.message))

    @property
    def votes(self) -> bool:
        return self.is_up and self.membership.begun and self.membership.may_vote


class Formation:
    """Eight honest nodes, and what else a test brings. A tick a second."""

    def __init__(self, seed: int, crash_rate: float = 0.0) -> None:
        self.chance, self.crash_rate, self.now = Random(seed), crash_rate, 0
        self.storage = Storage(Path(":memory:"), NETWORK.genesis.hash)
        self.contents: dict[tuple[int, str], bytes] = {}
        self.nodes: dict[bytes, FormingNode] = {}
        self.connected: set[bytes] = set()
        self.frames: deque[tuple[bytes, bytes]] = deque()
        self.start_coordinator()

    def start_coordinator(self) -> None:
        saved = self.storage.load(self.now)
        self.coordinator = Coordinator(NETWORK.genesis, NETWORK.coordinator, REGISTRATION, ANSWER, saved)
        self.connected = set()

    def add(self, number: int, pair: KeyPair, stays_away_from: Phase | None = None) -> FormingNode:
        node = self.nodes[pair.public] = FormingNode(self, number, pair, stays_away_from)
        self.connect(node)
        return node

    def is_there(self, public_key: bytes) -> bool:
        node = self.nodes[public_key]
        return node.is_up and node.stays_away_from is None

    def connect(self, node: FormingNode) -> None:
        if node.is_up and node.key.public not in self.connected:
            self.connected.add(node.key.public)
            node.membership.connected()
            self.perform(self.coordinator.connect(node.key.public, self.now))

    def part(self, peer: bytes) -> None:
        if peer in self.connected:
            self.connected.discard(peer)
            self.coordinator.disconnect(peer, self.now)

    def deliver(self, peer: bytes, frame: bytes) -> None:
        if peer in self.connected:
            self.frames.append((peer, frame))

    def receive(self, count: int) -> None:
        """The coordinator takes in as many frames, if there are."""
        while self.frames and count:
            count -= 1
            peer, frame = self.frames.popleft()
            self.perform(self.coordinator.receive(peer, frame, self.now))

    def perform(self, effects: list[Effect]) -> None:
        self.storage.write([effect for effect in effects if isinstance(effect, Persist)])
        for effect in effects:
            assert not isinstance(effect, Drop), effect
            if isinstance(effect, SendTo) and effect.peer in self.connected:
                self.nodes[effect.peer].hear(encode(effect.message))
            elif isinstance(effect, Announce):
                self.note(effect.announcement)
                for peer in sorted(self.connected):
                    self.nodes[peer].hear(encode(effect.announcement))

    def note(self, announcement: Announcement) -> None:
        """Of each phase of an attempt one content is seen, whatever crashes."""
        place, content = (announcement.notice.attempt, announcement.notice.phase.value), encode(announcement.content)
        assert self.contents.setdefault(place, content) == content

    def pester(self) -> None:
        """A stranger, and a member that lies, break each rule. Nothing may come of it but that they are refused or dropped."""
        before = dict(self.coordinator.registrations), dict(self.coordinator.secrets), dict(self.coordinator.ready)
        pair = key("pest")
        known = next(iter(self.coordinator.registrations.values()), None)
        if known is not None and self.coordinator.phase is Phase.REGISTRATION:
            for registration in (known, *_wrong_registrations(known, pair)):
                assert self._is_refused(pair.public, encode(Application(registration)))
        assert self._is_dropped(pair.public, b"junk")
        assert self._is_dropped(pair.public, bytes(2_000))
        assert self._is_dropped(pair.public, *[encode(Reveal(1, bytes(32)))] * (MAX_MESSAGES_PER_SECOND + 1))
        assert not self._is_dropped(pair.public, *[encode(Reveal(1, bytes(32)))] * MAX_MESSAGES_PER_SECOND)
        document = self.coordinator.document
        if self.coordinator.phase is Phase.REVEAL:
            assert known is not None
            assert self._is_dropped(known.public_key, encode(Reveal(self.coordinator.attempt, bytes(32))))
            assert self._is_refused(pair.public, encode(Application(known)))
        elif self.coordinator.phase is Phase.HANDOFF and document is not None:
            silent = [m.public_key for c in document.committees for m in c.members if m.public_key not in self.coordinator.ready]
            assert self._is_dropped(silent[0], encode(Readiness(document.hash, bytes(64))))
            assert not self._is_dropped(pair.public, encode(Readiness(document.hash, bytes(64))))
        self.coordinator.disconnect(pair.public, self.now)
        assert before == (self.coordinator.registrations, self.coordinator.secrets, self.coordinator.ready)

    def _is_dropped(self, peer: bytes, *frames: bytes) -> bool:
        """Whether it is, at the last of the frames and not before; it comes back."""
        self.coordinator.connect(peer, self.now)
        answers = [self.coordinator.receive(peer, frame, self.now) for frame in frames]
        assert not any(isinstance(effect, Drop) for answer in answers[:-1] for effect in answer)
        is_dropped = any(isinstance(effect, Drop) for effect in answers[-1])
        if is_dropped:
            assert self.coordinator.receive(peer, frames[-1], self.now) == []
            self.coordinator.connect(peer, self.now)
        return is_dropped

    def _is_refused(self, peer: bytes, frame: bytes) -> bool:
        self.coordinator.connect(peer, self.now)
        answers = self.coordinator.receive(peer, frame, self.now)
        return any(isinstance(effect, SendTo) and isinstance(effect.message, ApplicationRefused) for effect in answers)

    def second(self, frames: int = 1_000) -> None:
        """``frames``: as many reach the coordinator at most."""
        self.now += 1_000
        for node in self.nodes.values():
            self.connect(node)
        self.receive(frames)
        self.perform(self.coordinator.tick(self.now))

    def run_until_mining(self, limit: int) -> None:
        """``limit``: ms of virtual time."""
        while not all(node.membership.begun for node in self.nodes.values() if node.stays_away_from is None):
            assert self.now < limit, f"{self.coordinator.doing}, attempt {self.coordinator.attempt}"
            self.second()

    def check(self) -> None:
        """One document; and a member votes only if it is the disk that registered."""
        assert len({document for node in self.nodes.values() for document in node.begun}) == 1
        assert isinstance(self.coordinator.content, Opening)
        self.coordinator.content.check(NETWORK.genesis)
        members = [m for committee in self.coordinator.content.document.committees for m in committee.members]
        for member in members:
            node = self.nodes[member.public_key]
            owns = node.pledge is not None and commitment_to(node.pledge.secret) == member.commitment
            assert node.votes == (owns and node.is_up and node.membership.begun)
        for committee in self.coordinator.content.document.electorates.values():
            assert sum(self.nodes[member].votes for member in committee.keys) >= committee.quorum


def _wrong_registrations(known: Registration, pair: KeyPair) -> list[Registration]:
    """Where nobody can dial; with a puzzle that is not solved; for another attempt; not signed."""
    prefix = identity_prefix(known.network, known.epoch, NETWORK.genesis.hash, pair.public)
    bits = NETWORK.genesis.parameters.puzzle_difficulty_bits
    solved = search(prefix, bits, 0, 1 << 20)
    assert solved is not None
    unsolved = next(nonce for i in range(256) if not is_solution(prefix, nonce := i.to_bytes(8, "big"), bits))
    own = structs.replace(known, public_key=pair.public, nonce=solved)
    changes = {"addresses": ("/ip4/0.0.0.0/tcp/8100",)}, {"nonce": unsolved}, {"attempt": known.attempt + 1}
    return [*(structs.replace(own, **change).signed(pair) for change in changes), own]


def honest(world: Formation) -> None:
    for number in range(8):
        world.add(number, key(f"node {number}"))


def survive_crashes(seed: int) -> None:
    """Whoever crashes or loses a disk while it forms, the network forms, and nobody votes from another disk."""
    world = Formation(seed, crash_rate=0.05)
    honest(world)
    loses_disk_at = world.chance.randrange(15)
    for second in range(25):
        if world.coordinator.phase is Phase.MINING:
            break
        world.second(world.chance.randrange(12))
        if second == loses_disk_at:
            world.chance.choice(list(world.nodes.values())).crash(loses_disk=True)
        if world.chance.random() < 0.2:
            world.start_coordinator()
        for node in world.nodes.values():
            if not node.is_up and world.chance.random() < 0.5:
                node.start()
    world.crash_rate = 0.0
    for node in world.nodes.values():
        if not node.is_up:
            node.start()
    world.run_until_mining(world.now + 60_000)
    world.check()


def be_delayed_by_strangers(phase: Phase) -> None:
    """Eight that take all seats and stay away from a phase on cost one attempt: the answer deadline they use up, the registration
    deadline of the next attempt, and a second for each phase."""
    world = Formation(3)
    for number in range(8):
        world.add(100 + number, key(f"stranger {number}"), stays_away_from=phase)
    world.receive(8)
    assert world.coordinator.phase is Phase.REVEAL
    honest(world)
    world.run_until_mining(ANSWER + REGISTRATION + 5_000)
    world.check()
    assert world.coordinator.attempt == 2


def outlast_strangers(seed: int) -> None:
    """Two among ten that come with each attempt, tell their secrets and then stay away: seats are drawn again until no committee
    has both."""
    world = Formation(seed)
    honest(world)
    attempts = 0
    while not isinstance(world.coordinator.content, Opening):
        if world.coordinator.phase is Phase.REGISTRATION and world.coordinator.attempt > attempts:
            attempts = world.coordinator.attempt
            for number in range(2):
                world.add(100 + number, key(f"{attempts}/{number}"), stays_away_from=Phase.ASSIGNMENT)
        world.second()
        assert world.now < 40 * (REGISTRATION + ANSWER)
    world.run_until_mining(world.now + 5_000)


def drop_who_breaks_rules() -> None:
    """Between any two messages somebody breaks every rule, and is refused or dropped for it; nobody else notices."""
    world, phases = Formation(5), set()
    honest(world)
    while not all(node.membership.begun for node in world.nodes.values()):
        assert world.now < 5_000, world.coordinator.doing
        world.second(frames=0)
        while world.frames:
            phases.add(world.coordinator.phase)
            world.pester()
            world.receive(1)
    world.pester()
    world.check()
    assert phases >= {Phase.REGISTRATION, Phase.REVEAL, Phase.ASSIGNMENT, Phase.HANDOFF}


SCENES: tuple[Callable[[], None], ...] = (
    *(partial(survive_crashes, seed) for seed in range(20)),
    *(partial(be_delayed_by_strangers, phase) for phase in (Phase.REVEAL, Phase.ASSIGNMENT, Phase.HANDOFF)),
    *(partial(outlast_strangers, seed) for seed in range(4)),
    drop_who_breaks_rules,
)
