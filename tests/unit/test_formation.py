"""How an epoch forms, in virtual time: the real coordinator and the nodes' real membership, through crashes, lost disks,
strangers that take seats and stay away, and coordinators that are killed."""

from collections import deque
from pathlib import Path
from random import Random

import pytest

from node.effects import AcceptDocument, Mine, Pledge, Tell
from node.events import Stored
from node.membership import Membership, MembershipEffect
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Announcement, Opening, Reveal, SignedDocument, commitment_to
from node.protocol.genesis import Phase
from node.protocol.puzzle import search
from signaling.phases import Announce, Coordinator, Drop, Effect, Persist, SendTo
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
        stored = Stored(self.world.chance.randbytes(32), self.accepted, self.pledge)
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


def honest(world: Formation) -> None:
    for number in range(8):
        world.add(number, key(f"node {number}"))


def test_a_calm_network_forms_within_the_first_announcements() -> None:
    world = Formation(1)
    honest(world)
    world.run_until_mining(1_000)
    world.check()
    assert world.coordinator.attempt == 1


@pytest.mark.parametrize("seed", range(20))
def test_whoever_crashes_or_loses_a_disk_while_it_forms_the_network_forms_and_nobody_votes_from_another_disk(seed: int) -> None:
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


@pytest.mark.parametrize("phase", [Phase.REVEAL, Phase.ASSIGNMENT, Phase.HANDOFF])
def test_eight_strangers_that_take_all_seats_and_stay_away_delay_the_network_by_one_attempt(phase: Phase) -> None:
    """The answer deadline they use up, the registration deadline of the next attempt, and a second for each phase."""
    world = Formation(3)
    for number in range(8):
        world.add(100 + number, key(f"stranger {number}"), stays_away_from=phase)
    world.receive(8)
    assert world.coordinator.phase is Phase.REVEAL
    honest(world)
    world.run_until_mining(ANSWER + REGISTRATION + 5_000)
    world.check()
    assert world.coordinator.attempt == 2


@pytest.mark.parametrize("seed", range(4))
def test_strangers_that_come_with_each_attempt_tell_their_secrets_and_then_stay_away_do_not_keep_it_for_ever(seed: int) -> None:
    """Two of them among ten: seats are drawn again until no committee has both."""
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
