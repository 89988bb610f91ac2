"""The coordinator's rules, and the node's side of them, without a network: every message is handed over by the test."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.effects import Abstain, AcceptDocument, Begin, Mine, Tell
from node.events import Stored
from node.membership import Membership, MembershipEffect
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair, digest
from node.protocol.epoch import (
    Acknowledgement,
    Announcement,
    Application,
    ApplicationRefused,
    InvalidDocument,
    PhaseNotice,
    Readiness,
    Registration,
    SignedDocument,
    ToCoordinator,
    first_document,
)
from node.protocol.genesis import Asset, Genesis, Parameters, Phase
from node.protocol.puzzle import identity_prefix, is_solution, search
from node.protocol.reports import Notable
from signaling.phases import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES_PER_SECOND,
    Announce,
    Coordinator,
    Drop,
    Effect,
    Persist,
    PersistPhase,
    PersistRegistration,
    Saved,
    SendTo,
)
from signaling.storage import Storage, StorageError

KEY = KeyPair(digest("test", b"coordinator"))
NODES = [KeyPair(digest("test", bytes([i]))) for i in range(12)]
BITS = 6
DEADLINE = 60_000
GENESIS = Genesis(
    name="test",
    time=1_000,
    coordinator=KEY.public.hex(),
    assets=(Asset("USD", 2, KEY.public.hex()),),
    parameters=Parameters(committees=2, committee_size=4, puzzle_difficulty_bits=BITS),
)
NEW = Saved(Phase.REGISTRATION, 0)


def solve(key: KeyPair) -> bytes:
    nonce = search(identity_prefix(GENESIS.network, 1, GENESIS.hash, key.public), BITS, 0, 1 << 20)
    assert nonce is not None
    return nonce


NONCES = [solve(key) for key in NODES]


def registration(index: int, *, name: str = "", address: str = "", nonce: bytes = b"") -> Registration:
    key = NODES[index]
    address = address or f"/ip4/10.0.0.{index + 1}/tcp/8100"
    unsigned = Registration(GENESIS.network, 1, key.public, name or f"node-{index}", (address,), nonce or NONCES[index])
    return unsigned.signed(key)


def coordinator(saved: Saved = NEW) -> Coordinator:
    return Coordinator(GENESIS, KEY, DEADLINE, saved)


def say(c: Coordinator, peers: Iterable[bytes], message: ToCoordinator, now: int = 1) -> list[Effect]:
    """What comes of each of ``peers`` connecting and saying the same."""
    effects: list[Effect] = []
    for peer in peers:
        c.connect(peer, now)
        effects += c.receive(peer, encode(message), now)
    return effects


def apply(c: Coordinator, index: int, what: Registration | None = None, now: int = 1) -> list[Effect]:
    return say(c, [NODES[index].public], Application(what or registration(index)), now)


def kinds(effects: Iterable[object]) -> list[type]:
    return [type(effect) for effect in effects]


def refusals(effects: Iterable[Effect]) -> list[str]:
    return [e.message.reason for e in effects if isinstance(e, SendTo) and isinstance(e.message, ApplicationRefused)]


def seated(c: Coordinator, per_committee: int) -> list[bytes]:
    assert c.document
    return [m.public_key for committee in c.document.document.committees for m in committee.members[:per_committee]]


def phase(c: Coordinator) -> Phase:
    return c.phase


def assigned() -> Coordinator:
    c = coordinator()
    for i in range(8):
        apply(c, i)
    assert phase(c) is Phase.ASSIGNMENT
    return c


def acknowledgement(c: Coordinator) -> Acknowledgement:
    assert c.document
    return Acknowledgement(1, c.document.document.hash)


# --- the coordinator: registration


def test_a_registration_is_stored_before_it_is_confirmed() -> None:
    effects = apply(coordinator(), 0)
    assert kinds(effects) == [PersistRegistration, SendTo, Notable]
    assert isinstance(effects[1], SendTo)
    assert isinstance(effects[1].message, Announcement)
    assert effects[1].message.notice.registered == 1


def test_the_last_wanted_node_ends_registration() -> None:
    c = coordinator()
    for i in range(7):
        apply(c, i)
    assert phase(c) is Phase.REGISTRATION
    effects = apply(c, 7, now=5)
    assert phase(c) is Phase.ASSIGNMENT
    assert kinds(effects) == [PersistRegistration, SendTo, Notable, PersistPhase, Announce, Notable]
    announcement = next(e.announcement for e in effects if isinstance(e, Announce))
    assert announcement.document
    announcement.document.check(GENESIS)
    assert announcement.notice.since == 5


@pytest.mark.parametrize(
    ("index", "bad", "why"),
    [
        (0, registration(1), "another node's"),
        (0, registration(0, name="node-5"), "is taken"),
        (0, registration(0, address="/ip4/0.0.0.0/tcp/8100"), "nobody can dial"),
        (0, registration(0, address="/ip4/10.0.0.1/tcp/0"), "nobody can dial"),
        (0, registration(0, address="mallory"), "nobody can dial"),
        (0, replace(registration(0), name="other"), "not signed"),
        (0, replace(registration(0), epoch=2).signed(NODES[0]), "another network or epoch"),
        (0, replace(registration(0), network=bytes(8)).signed(NODES[0]), "another network or epoch"),
    ],
)
def test_a_bad_registration_is_refused_with_the_reason_and_changes_nothing(index: int, bad: Registration, why: str) -> None:
    c = coordinator()
    apply(c, 5)
    before = dict(c.registrations)
    effects = apply(c, index, bad)
    assert kinds(effects) == [SendTo]
    assert why in refusals(effects)[0]
    assert c.registrations == before
    assert apply(c, 0)[0] == PersistRegistration(registration(0)), "a good one is still welcome"


def test_a_forged_puzzle_is_refused() -> None:
    prefix = identity_prefix(GENESIS.network, 1, GENESIS.hash, NODES[0].public)
    unsolved = next(n.to_bytes(8, "big") for n in range(1 << 16) if not is_solution(prefix, n.to_bytes(8, "big"), BITS))
    assert "puzzle not solved" in refusals(apply(coordinator(), 0, registration(0, nonce=unsolved)))[0]
    assert "puzzle not solved" in refusals(apply(coordinator(), 0, registration(0, nonce=NONCES[1])))[0]


def test_a_node_may_move_while_registration_is_open_and_counts_once() -> None:
    c = coordinator()
    apply(c, 0)
    moved = registration(0, address="/dns4/node.example/tcp/9")
    assert apply(c, 0, moved)[0] == PersistRegistration(moved)
    assert c.registrations == {NODES[0].public: moved}
    assert kinds(apply(c, 0, moved)) == [SendTo], "the same again writes nothing"


def test_registration_is_closed_afterwards() -> None:
    c = assigned()
    document = c.document
    assert "closed" in refusals(apply(c, 8))[0]
    assert "closed" in refusals(apply(c, 0, registration(0, address="/ip4/10.9.9.9/tcp/1")))[0]
    assert c.document is document
    assert refusals(apply(c, 0)) == [], "one that got in and asks again is told where things stand"


def test_at_the_deadline_one_full_committee_is_enough() -> None:
    c = coordinator()
    for i in range(5):
        apply(c, i)
    c.tick(DEADLINE - 1)
    assert phase(c) is Phase.REGISTRATION
    effects = c.tick(DEADLINE)
    assert phase(c) is Phase.ASSIGNMENT
    assert isinstance(effects[0], PersistPhase)
    assert c.document
    assert (len(c.document.document.committees), len(c.document.document.standby)) == (1, 1)


def test_past_the_deadline_the_first_full_committee_starts() -> None:
    c = coordinator()
    for i in range(3):
        apply(c, i)
    c.tick(DEADLINE + 1)
    assert phase(c) is Phase.REGISTRATION
    apply(c, 3, now=DEADLINE + 2)
    assert phase(c) is Phase.ASSIGNMENT


# --- the coordinator: later phases


def test_assignment_ends_with_a_quorum_of_each_committee() -> None:
    c = assigned()
    quorum = seated(c, 3)
    say(c, [*quorum[:-1], quorum[0]], acknowledgement(c))
    assert phase(c) is Phase.ASSIGNMENT
    effects = say(c, quorum[-1:], acknowledgement(c))
    assert phase(c) is Phase.HANDOFF
    assert kinds(effects) == [PersistPhase, Announce, Notable]


def test_handoff_ends_with_a_quorum_of_each_committee() -> None:
    c = assigned()
    quorum = seated(c, 3)
    say(c, quorum, Readiness(1, 0))
    assert not c.ready, "too early to be ready"
    say(c, quorum, acknowledgement(c))
    say(c, quorum[:-1], Readiness(1, 0))
    assert phase(c) is Phase.HANDOFF
    effects = say(c, quorum[-1:], Readiness(1, 0))
    assert phase(c) is Phase.MINING
    assert kinds(effects) == [PersistPhase, Announce, Notable]


def test_who_has_no_seat_does_not_count() -> None:
    c = coordinator()
    for i in range(7):
        apply(c, i)
    c.tick(DEADLINE)
    assert c.document
    outsiders = [r.public_key for r in c.document.document.standby] + [NODES[10].public]
    say(c, outsiders, acknowledgement(c))
    assert not c.acknowledged


def test_whoever_connects_late_or_again_is_told_where_things_stand() -> None:
    c = assigned()
    for peer in (NODES[0].public, NODES[11].public):
        told = c.connect(peer, 9)[0]
        assert isinstance(told, SendTo)
        assert told.peer == peer
        assert isinstance(told.message, Announcement)
        assert told.message.document == c.document
        assert told.message.notice.is_valid(GENESIS)
        assert told.message.notice.phase is Phase.ASSIGNMENT


def test_everybody_is_told_every_second() -> None:
    assert Announce in kinds(coordinator().tick(1))
    assert Announce in kinds(assigned().tick(2))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        encode([9, 1]),
        encode(Application(registration(0))) + b"\x00",
        bytes(MAX_MESSAGE_BYTES + 1),
        encode(Acknowledgement(1, bytes(32))),
        encode(Acknowledgement(2, bytes(32))),
        encode(Readiness(2, 0)),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_dropped_and_no_longer_heard(frame: bytes) -> None:
    c = assigned()
    peer = NODES[9].public
    c.connect(peer, 1)
    assert kinds(c.receive(peer, frame, 1)) == [Drop]
    assert c.receive(peer, frame, 1) == []
    assert c.disconnect(peer, 1) == []


def test_a_peer_that_talks_too_much_is_dropped() -> None:
    c = coordinator()
    peer, frame = NODES[0].public, encode(Application(registration(0)))
    c.connect(peer, 1)
    for _ in range(3):
        assert Drop not in {k for _ in range(MAX_MESSAGES_PER_SECOND) for k in kinds(c.receive(peer, frame, 1))}
        c.tick(2)
    assert [kinds(c.receive(peer, frame, 3)) for _ in range(MAX_MESSAGES_PER_SECOND + 1)][-1] == [Drop]


def test_registrations_of_the_largest_size_fit_a_message() -> None:
    long = tuple(f"/dns4/{str(i) * 244}/tcp/1" for i in range(4))
    c = coordinator()
    moved = replace(registration(0), name="n" * 32, addresses=long).signed(NODES[0])
    assert isinstance(apply(c, 0, moved)[0], PersistRegistration)


# --- crashes


class Disk:
    """A stand-in for storage that keeps every write as it comes."""

    def __init__(self, saved: Saved = NEW) -> None:
        self.saved = saved

    def write(self, effect: Persist) -> None:
        if isinstance(effect, PersistPhase):
            document = effect.document or self.saved.document
            self.saved = replace(self.saved, phase=effect.phase, since=effect.since, document=document)
        else:
            others = tuple(r for r in self.saved.registrations if r.public_key != effect.registration.public_key)
            self.saved = replace(self.saved, registrations=(*others, effect.registration))


def perform(effects: Iterable[Effect], disk: Disk, limit: int) -> Iterator[SignedDocument]:
    """Perform the first ``limit`` effects; yields the documents that left the process."""
    for _, effect in zip(range(limit), effects, strict=False):
        if isinstance(effect, Persist):
            disk.write(effect)
        told = effect.announcement if isinstance(effect, Announce) else effect.message if isinstance(effect, SendTo) else None
        if isinstance(told, Announcement) and told.document:
            yield told.document


def test_no_two_documents_are_published_whenever_it_crashes() -> None:
    """Power off after each single effect; then other nodes come first, so a forgetful coordinator would assign anew."""
    script = [(i, registration(i)) for i in range(8)]
    later = [(i, registration(i)) for i in range(11, 3, -1)]
    crashes = 0
    for step in range(len(script)):
        for performed in range(6):
            disk, published = Disk(), set[bytes]()
            c = coordinator()
            for number, (index, what) in enumerate(script[: step + 1]):
                limit = performed if number == step else 100
                published |= {encode(d) for d in perform(apply(c, index, what), disk, limit)}
            c = coordinator(disk.saved)
            for index, what in later:
                published |= {encode(d) for d in perform(apply(c, index, what, now=2), disk, 100)}
            published |= {encode(d) for d in perform(c.tick(3), disk, 100)}
            assert len(published) == 1
            crashes += 1
    assert crashes == 48


def test_after_a_crash_it_is_in_the_same_phase_with_the_same_document(tmp_path: Path) -> None:
    """A whole epoch on the real database, killed and started again after every event."""
    path = tmp_path / "coordinator.db"
    Storage(path, GENESIS.hash).close()
    applications = [(NODES[i].public, Application(registration(i))) for i in range(8)]
    document = first_document(GENESIS, [registration(i) for i in range(8)])
    quorum = [m.public_key for committee in document.committees for m in committee.members[:3]]
    accepted: list[tuple[bytes, ToCoordinator]] = [(p, Acknowledgement(1, document.hash)) for p in quorum]
    ready: list[tuple[bytes, ToCoordinator]] = [(p, Readiness(1, 0)) for p in quorum]
    for event in [*applications, *accepted, *ready]:
        storage = Storage(path, GENESIS.hash)
        c = coordinator(storage.load(0))
        published = c.document
        # The members repeat themselves on each announcement, so what was said before the crash is heard again.
        again = {Phase.ASSIGNMENT: accepted, Phase.HANDOFF: ready}.get(c.phase, [])
        for peer, message in [event, *again]:
            c.connect(peer, 1)
            if effects := [e for e in c.receive(peer, encode(message), 1) if isinstance(e, Persist)]:
                storage.write(effects)
        known = c.phase, c.since, c.document, dict(c.registrations)
        storage.close()
        reopened = Storage(path, GENESIS.hash)
        back = coordinator(reopened.load(99))
        assert (back.phase, back.since, back.document, dict(back.registrations)) == known
        assert published is None or published == back.document
        reopened.close()
    assert back.phase is Phase.MINING
    assert back.document == SignedDocument(document, KEY.sign(document.hash))


def test_storage_holds_one_document_per_epoch(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "db", GENESIS.hash)
    first, second = (first_document(GENESIS, [registration(i) for i in range(n, n + 4)]) for n in (0, 4))
    storage.load(0)
    storage.write([PersistPhase(1, Phase.ASSIGNMENT, 1, SignedDocument(first, KEY.sign(first.hash)))])
    with pytest.raises(Exception, match="UNIQUE"):
        storage.write(
            [
                PersistRegistration(registration(9)),
                PersistPhase(1, Phase.ASSIGNMENT, 2, SignedDocument(second, KEY.sign(second.hash))),
            ]
        )
    saved = storage.load(0)
    assert saved.document
    assert (saved.document.document, saved.since, saved.registrations) == (first, 1, ())
    storage.close()


def test_a_database_is_one_networks_and_one_processs(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "db", GENESIS.hash)
    with pytest.raises(StorageError, match="in use by another coordinator"):
        Storage(tmp_path / "db", GENESIS.hash)
    storage.close()
    with pytest.raises(StorageError, match="another network"):
        Storage(tmp_path / "db", bytes(32))


def test_damage_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError):
        Storage(tmp_path / "db", GENESIS.hash)
    document = first_document(GENESIS, [registration(i) for i in range(8)])
    with pytest.raises(InvalidDocument):
        coordinator(Saved(Phase.MINING, 1, (), SignedDocument(document, bytes(64))))
    with pytest.raises(InvalidDocument):
        coordinator(Saved(Phase.MINING, 1))
    with pytest.raises(InvalidDocument):
        coordinator(Saved(Phase.REGISTRATION, 1, (replace(registration(0), name="other"),)))


# --- the node's side


DOCUMENT = first_document(GENESIS, [registration(i) for i in range(8)])
SIGNED = SignedDocument(DOCUMENT, KEY.sign(DOCUMENT.hash))


def member(index: int = 0, signed: SignedDocument | None = None, begun: bool = False) -> Membership:
    address = f"/ip4/10.0.0.{index + 1}/tcp/8100"
    return Membership(GENESIS, NODES[index], f"node-{index}", (address,), Stored(signed, begun, 0 if signed else None))


def word(phase: Phase, document: SignedDocument | None = None, key: KeyPair = KEY, epoch: int = 1) -> bytes:
    """An announcement as the coordinator would send it."""
    return encode(Announcement(PhaseNotice(GENESIS.network, epoch, phase, 1, 8).signed(key), document))


def texts(effects: Iterable[MembershipEffect]) -> str:
    return "; ".join(e.text for e in effects if isinstance(e, Notable))


def test_a_node_solves_its_puzzle_and_applies_once_per_connection() -> None:
    m = member()
    m.connected()
    assert kinds(m.received(word(Phase.REGISTRATION))) == [Mine]
    assert m.received(word(Phase.REGISTRATION)) == [], "it is at it already"
    assert m.puzzle_solved(NONCES[0]) == [Abstain(0), Tell(Application(registration(0)))]
    assert m.received(word(Phase.REGISTRATION)) == []
    m.connected()
    assert m.received(word(Phase.REGISTRATION)) == [Tell(Application(registration(0)))]


def test_a_puzzle_solved_while_the_coordinator_is_away_is_used_when_it_is_back() -> None:
    m = member()
    m.connected()
    m.received(word(Phase.REGISTRATION))
    m.connected()
    assert m.puzzle_solved(NONCES[0]) == []
    assert kinds(m.received(word(Phase.REGISTRATION))) == [Abstain, Tell]


def test_a_node_stores_the_document_before_it_acknowledges() -> None:
    m = member()
    effects = m.received(word(Phase.ASSIGNMENT, SIGNED))
    assert effects[:2] == [Abstain(0), AcceptDocument(SIGNED)]
    assert effects[-1] == Tell(Acknowledgement(1, DOCUMENT.hash))
    assert (m.document, m.seat, m.phase, m.begun) == (DOCUMENT, DOCUMENT.seat_of(NODES[0].public), Phase.ASSIGNMENT, False)
    assert m.received(word(Phase.ASSIGNMENT, SIGNED)) == [Tell(Acknowledgement(1, DOCUMENT.hash))], "repeated, not stored"


def test_a_node_without_a_seat_accepts_and_stays_silent() -> None:
    m = member(11)
    effects = m.received(word(Phase.ASSIGNMENT, SIGNED))
    assert kinds(effects) == [Abstain, AcceptDocument, Notable, Notable]
    assert m.seat is None
    m.ready(0)
    assert Tell not in kinds(m.received(word(Phase.HANDOFF, SIGNED)))


@pytest.mark.parametrize("ready_first", [True, False])
def test_readiness_is_told_in_handoff_and_repeated(ready_first: bool) -> None:
    m = member()
    m.received(word(Phase.ASSIGNMENT, SIGNED))
    told = m.ready(7) if ready_first else []
    assert told == []
    told = m.received(word(Phase.HANDOFF, SIGNED))
    if not ready_first:
        assert Tell not in kinds(told)
        told = m.ready(7)
        assert m.ready(7) == [], "the next announcement repeats it, not the caller"
    assert told[-1] == Tell(Readiness(1, 7))
    m.connected()
    assert m.received(word(Phase.HANDOFF, SIGNED)) == [Tell(Readiness(1, 7))]


def test_mining_begins_once_and_a_restart_needs_no_coordinator() -> None:
    m = member()
    m.received(word(Phase.HANDOFF, SIGNED))
    assert not m.begun
    effects = m.received(word(Phase.MINING, SIGNED))
    assert effects[0] == Begin()
    assert m.begun
    assert m.received(word(Phase.MINING, SIGNED)) == []
    again = member(0, SIGNED, begun=True)
    assert (again.begun, again.phase, again.seat) == (True, Phase.MINING, m.seat)
    assert not member(0, SIGNED).begun
    assert not member(0, None, begun=True).begun, "nothing to run without a document"


def test_a_late_joiner_takes_its_seat_in_any_phase() -> None:
    m = member()
    effects = m.received(word(Phase.MINING, SIGNED))
    assert kinds(effects)[0] is AcceptDocument
    assert Begin in kinds(effects)
    assert m.begun


def test_a_second_document_is_reported_not_believed() -> None:
    other = first_document(GENESIS, [registration(i) for i in range(4, 12)])
    second = SignedDocument(other, KEY.sign(other.hash))
    for m in (member(0, SIGNED), member(5)):
        m.received(word(Phase.ASSIGNMENT, SIGNED))
        effects = m.received(word(Phase.MINING, second))
        assert kinds(effects) == [Notable]
        assert "equivocates" in texts(effects)
        assert (m.document, m.phase, m.begun) == (DOCUMENT, Phase.ASSIGNMENT, False)
        assert m.received(word(Phase.MINING, second)) == [], "said once"
    m = member(0, SIGNED)
    forged = SignedDocument(other, NODES[3].sign(other.hash))
    assert "not signed" in texts(m.received(word(Phase.MINING, forged))), "who did not sign it did not equivocate"


def resign(document: SignedDocument, key: KeyPair = KEY) -> SignedDocument:
    return SignedDocument(document.document, key.sign(document.document.hash))


def moved_seat() -> SignedDocument:
    a, b = DOCUMENT.committees
    a, b = (
        replace(a, members=(b.members[0], *a.members[1:])),
        replace(b, members=(a.members[0], *b.members[1:])),
    )
    return resign(SignedDocument(replace(DOCUMENT, committees=(a, b)), bytes(64)))


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (word(Phase.ASSIGNMENT, moved_seat()), "does not follow"),
        (word(Phase.ASSIGNMENT, resign(SIGNED, NODES[1])), "not signed by the coordinator"),
        (word(Phase.ASSIGNMENT, SIGNED, key=NODES[1]), "announcement not signed"),
        (word(Phase.ASSIGNMENT, SIGNED, epoch=2), "one epoch"),
        (word(Phase.MINING), "wrong document, or without one"),
        (word(Phase.REGISTRATION, SIGNED), "wrong document, or without one"),
        (b"\xc1", "no message"),
        (encode(ApplicationRefused("the name x is taken")), "the name x is taken"),
    ],
)
def test_what_is_wrong_changes_nothing_and_is_said_once(frame: bytes, why: str) -> None:
    m = member()
    effects = m.received(frame)
    assert kinds(effects) == [Notable]
    assert why in texts(effects)
    assert m.received(frame) == []
    assert (m.document, m.phase, m.begun) == (None, Phase.REGISTRATION, False)
    assert AcceptDocument in kinds(m.received(word(Phase.ASSIGNMENT, SIGNED)))


def test_a_coordinator_that_lost_its_memory_does_not_make_nodes_lose_theirs() -> None:
    m = member(0, SIGNED, begun=True)
    m.connected()
    effects = m.received(word(Phase.REGISTRATION))
    assert kinds(effects) == [Notable]
    assert "went back" in texts(effects)
    assert (m.begun, m.phase) == (True, Phase.MINING)


def test_a_damaged_document_on_disk_is_not_believed() -> None:
    with pytest.raises(InvalidDocument):
        member(0, moved_seat())


# --- both sides together


def test_coordinator_and_nodes_reach_mining() -> None:
    c = coordinator()
    members = {NODES[i].public: member(i) for i in range(8)}
    queue: list[tuple[bytes, list[MembershipEffect]]] = []

    def deliver(effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendTo):
                queue.append((effect.peer, members[effect.peer].received(encode(effect.message))))
            if isinstance(effect, Announce):
                queue.extend((p, m.received(encode(effect.announcement))) for p, m in members.items())

    for peer, m in members.items():
        m.connected()
        deliver(c.connect(peer, 0))
        m.ready(0)
    while queue:
        peer, todo = queue.pop(0)
        for effect in todo:
            if isinstance(effect, Mine):
                nonce = search(effect.prefix, effect.bits, 0, 1 << 20)
                assert nonce
                queue.append((peer, members[peer].puzzle_solved(nonce)))
            if isinstance(effect, Tell):
                deliver(c.receive(peer, encode(effect.message), 1))
    assert phase(c) is Phase.MINING
    assert all(m.begun and m.signed == c.document and m.seat for m in members.values())
    assert sorted(m.seat for m in members.values() if m.seat) == [(shard, i) for shard in range(2) for i in range(4)]


def test_a_phase_this_version_does_not_know_does_not_keep_a_node_from_mining() -> None:
    m = member()
    m.received(word(Phase.ASSIGNMENT, SIGNED))
    assert "settlement" in texts(m.received(word(Phase.SETTLEMENT, SIGNED)))
    m.received(word(Phase.MINING, SIGNED))
    assert m.begun
