"""The coordinator's rules, and the node's side of them, without a network: every message is handed over by the test."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.effects import Abstain, AcceptDocument, Begin, Mine, Tell
from node.events import Stored
from node.membership import Membership
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
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
from node.protocol.genesis import Phase
from node.protocol.puzzle import identity_prefix, is_solution
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
from tests.chains import Network

NETWORK = Network(standby=4, puzzle_difficulty_bits=6)
GENESIS, KEY, REGISTRATIONS = NETWORK.genesis, NETWORK.coordinator, NETWORK.registrations
NODES = list(NETWORK.nodes.values())
DEADLINE = 60_000
NEW = Saved(Phase.REGISTRATION, 0)
DOCUMENT = first_document(GENESIS, REGISTRATIONS[:8])
SIGNED = NETWORK.sign_document(DOCUMENT)
QUORUMS = [member.public_key for committee in DOCUMENT.committees for member in committee.members[:3]]
ACCEPTED, READY = Acknowledgement(1, DOCUMENT.hash), Readiness(1, 0)
ENTERED = [PersistPhase, Announce, Notable]


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
    return say(c, [NODES[index].public], Application(what or REGISTRATIONS[index]), now)


def kinds(effects: Iterable[object]) -> list[type]:
    return [type(effect) for effect in effects]


def refusal(effects: list[Effect]) -> str:
    """The reason in the only effect."""
    (effect,) = effects
    return effect.message.reason if isinstance(effect, SendTo) and isinstance(effect.message, ApplicationRefused) else ""


def assigned() -> Coordinator:
    c = coordinator()
    for i in range(8):
        apply(c, i)
    assert c.document == SIGNED
    return c


def changed(**fields: object) -> Registration:
    """Node 0's registration, with its signature."""
    return replace(REGISTRATIONS[0], **fields).signed(NODES[0])


def unsolved() -> bytes:
    prefix, numbers = identity_prefix(GENESIS.network, 1, GENESIS.hash, NODES[0].public), range(1 << 16)
    return next(nonce for n in numbers if not is_solution(prefix, nonce := n.to_bytes(8, "big"), 6))


# --- the coordinator


def test_each_phase_ends_with_the_last_word_it_waits_for_and_is_persisted_before_it_is_told() -> None:
    c = coordinator()
    for i in range(7):
        effects = apply(c, i)
        assert kinds(effects) == [PersistRegistration, SendTo, Notable]
        assert effects[1] == SendTo(NODES[i].public, c.announcement)
        assert (c.announcement.notice.registered, c.announcement.notice.phase) == (i + 1, Phase.REGISTRATION)
    effects = apply(c, 7, now=5)
    assert kinds(effects) == [PersistRegistration, SendTo, Notable, *ENTERED]
    assert effects[4] == Announce(c.announcement)
    assert (c.document, c.announcement.document, c.announcement.notice.since) == (SIGNED, SIGNED, 5)
    assert c.announcement.notice.is_valid(GENESIS)
    assert say(c, QUORUMS, READY) == []
    for message, said, phase in ((ACCEPTED, c.acknowledged, Phase.HANDOFF), (READY, c.ready, Phase.MINING)):
        assert not said, "what was said too early does not count"
        assert say(c, [*QUORUMS[:-1], QUORUMS[0]], message) == []
        assert kinds(say(c, QUORUMS[-1:], message)) == ENTERED
        assert c.phase is phase


def test_from_the_deadline_on_one_full_committee_is_enough() -> None:
    c = coordinator()
    for i in range(5):
        apply(c, i)
    assert kinds(c.tick(DEADLINE - 1)) == [Announce]
    assert kinds(c.tick(DEADLINE)) == [*ENTERED, Announce]
    assert c.document
    document = c.document.document
    assert (len(document.committees), len(document.standby)) == (1, 1)
    say(c, [document.standby[0].public_key, NODES[10].public], Acknowledgement(1, document.hash))
    assert not c.acknowledged, "who has no seat does not count"
    c = coordinator()
    for i in range(3):
        apply(c, i)
    assert kinds(c.tick(DEADLINE + 1)) == [Announce]
    assert kinds(apply(c, 3, now=DEADLINE + 2))[-3:] == ENTERED


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (REGISTRATIONS[1], "another node's"),
        (changed(name="node-5"), "is taken"),
        (changed(addresses=("/ip4/0.0.0.0/tcp/8100",)), "nobody can dial"),
        (changed(addresses=("/ip4/10.0.0.1/tcp/0",)), "nobody can dial"),
        (changed(addresses=("mallory",)), "nobody can dial"),
        (replace(REGISTRATIONS[0], name="other"), "not signed"),
        (changed(epoch=2), "another network or epoch"),
        (changed(network=bytes(8)), "another network or epoch"),
        (changed(nonce=unsolved()), "puzzle not solved"),
    ],
)
def test_a_bad_registration_is_refused_with_the_reason_and_changes_nothing(bad: Registration, why: str) -> None:
    c = coordinator()
    apply(c, 5)
    before = dict(c.registrations)
    assert why in refusal(apply(c, 0, bad))
    assert c.registrations == before
    assert apply(c, 0)[0] == PersistRegistration(REGISTRATIONS[0]), "a good one is still welcome"


def test_a_node_may_move_while_registration_is_open_and_counts_once() -> None:
    c, far = coordinator(), tuple(f"/dns4/{str(i) * 244}/tcp/1" for i in range(4))
    apply(c, 0)
    moved = changed(name="n" * 32, addresses=far)  # the largest there is fits a message
    assert apply(c, 0, moved)[0] == PersistRegistration(moved)
    assert c.registrations == {NODES[0].public: moved}
    assert apply(c, 0, moved) == [SendTo(NODES[0].public, c.announcement)], "the same again writes nothing"
    c = assigned()
    assert "closed" in refusal(apply(c, 8))
    assert "closed" in refusal(apply(c, 0, moved))
    for index in (0, 11):
        assert c.connect(NODES[index].public, 9)[0] == SendTo(NODES[index].public, c.announcement)
    assert apply(c, 0) == [SendTo(NODES[0].public, c.announcement)], "one that got in and asks again learns where things stand"
    assert (c.document, c.announcement.document) == (SIGNED, SIGNED)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        encode([9, 1]),
        encode(Application(REGISTRATIONS[0])) + b"\x00",
        bytes(MAX_MESSAGE_BYTES + 1),
        encode(Acknowledgement(1, bytes(32))),
        encode(Acknowledgement(2, DOCUMENT.hash)),
        encode(Readiness(2, 0)),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_dropped_and_no_longer_heard(frame: bytes) -> None:
    c, peer = assigned(), NODES[9].public
    c.connect(peer, 1)
    assert kinds(c.receive(peer, frame, 1)) == [Drop]
    assert (c.receive(peer, frame, 1), c.disconnect(peer, 1)) == ([], [])


def test_a_peer_that_talks_too_much_is_dropped() -> None:
    c, peer, frame = coordinator(), NODES[0].public, encode(Application(REGISTRATIONS[0]))
    c.connect(peer, 1)
    for _ in range(3):
        assert all(Drop not in kinds(c.receive(peer, frame, 1)) for _ in range(MAX_MESSAGES_PER_SECOND))
        c.tick(2)
    assert [kinds(c.receive(peer, frame, 3)) for _ in range(MAX_MESSAGES_PER_SECOND + 1)][-1] == [Drop]


# --- crashes


def perform(effects: Sequence[Effect], storage: Storage, published: set[bytes]) -> None:
    """Write one by one; note the documents that leave the process."""
    for effect in effects:
        if isinstance(effect, Persist):
            storage.write([effect])
        told = effect.announcement if isinstance(effect, Announce) else effect.message if isinstance(effect, SendTo) else None
        if isinstance(told, Announcement) and told.document:
            published.add(encode(told.document))


def test_whenever_it_crashes_the_epoch_goes_on_where_it_was_and_no_two_documents_are_published() -> None:
    """Power off after each single effect; then other nodes come first, so a forgetful coordinator would assign anew."""
    events: list[tuple[bytes, ToCoordinator]] = [(NODES[i].public, Application(REGISTRATIONS[i])) for i in range(8)]
    events += [(peer, message) for message in (ACCEPTED, READY) for peer in QUORUMS]
    for crash, performed in product(range(len(events)), range(7)):
        storage, published = Storage(Path(":memory:"), GENESIS.hash), set[bytes]()
        c = coordinator(storage.load(0))
        for peer, message in events[:crash]:
            perform(say(c, [peer], message), storage, published)
        peer, message = events[crash]
        perform(say(c, [peer], message)[:performed], storage, published)
        back = coordinator(storage.load(99))
        if performed == 6:
            assert (back.phase, back.since, back.document, back.registrations) == (c.phase, c.since, c.document, c.registrations)
        for i in range(11, 3, -1):
            perform(apply(back, i, now=2), storage, published)
        assert back.document
        members = [member.public_key for committee in back.document.document.committees for member in committee.members]
        # They repeat themselves on each announcement, so what was said before the crash is heard again.
        for message in (Acknowledgement(1, back.document.document.hash), READY):
            perform(say(back, members, message), storage, published)
        perform(back.tick(3), storage, published)
        assert published == {encode(back.document)}
        assert storage.load(0).phase is Phase.MINING
        storage.close()


def test_a_database_holds_one_document_per_epoch_and_is_one_networks_and_one_processs(tmp_path: Path) -> None:
    path, other = tmp_path / "db", NETWORK.sign_document(first_document(GENESIS, REGISTRATIONS[4:]))
    storage = Storage(path, GENESIS.hash)
    storage.load(0)
    storage.write([PersistPhase(1, Phase.ASSIGNMENT, 1, SIGNED)])
    with pytest.raises(Exception, match="UNIQUE"):
        storage.write([PersistRegistration(REGISTRATIONS[9]), PersistPhase(1, Phase.ASSIGNMENT, 2, other)])
    with pytest.raises(StorageError, match="in use by another coordinator"):
        Storage(path, GENESIS.hash)
    storage.close()
    storage = Storage(path, GENESIS.hash)
    assert storage.load(9) == Saved(Phase.ASSIGNMENT, 1, (), SIGNED)
    storage.close()
    with pytest.raises(StorageError, match="another network"):
        Storage(path, bytes(32))
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError):
        Storage(path, GENESIS.hash)


@pytest.mark.parametrize(
    "saved",
    [
        Saved(Phase.MINING, 1, (), SignedDocument(DOCUMENT, bytes(64))),
        Saved(Phase.MINING, 1),
        Saved(Phase.REGISTRATION, 1, (), SIGNED),
        Saved(Phase.REGISTRATION, 1, (replace(REGISTRATIONS[0], name="other"),)),
    ],
)
def test_what_is_stored_is_not_believed_when_it_makes_no_sense(saved: Saved) -> None:
    with pytest.raises(InvalidDocument):
        coordinator(saved)


# --- the node's side; what a restart believes is a matter of the whole node (test_node)


def member(index: int = 0, signed: SignedDocument | None = None, begun: bool = False) -> Membership:
    stored = Stored(signed, begun, 0 if signed else None)
    return Membership(GENESIS, NODES[index], REGISTRATIONS[index].name, REGISTRATIONS[index].addresses, stored)


def word(phase: Phase, document: SignedDocument | None = None, key: KeyPair = KEY, epoch: int = 1) -> bytes:
    """An announcement as the coordinator would send it."""
    return encode(Announcement(PhaseNotice(GENESIS.network, epoch, phase, 1, 8).signed(key), document))


def test_a_node_solves_its_puzzle_once_and_applies_once_per_connection() -> None:
    m, opened, applied = member(), word(Phase.REGISTRATION), Tell(Application(REGISTRATIONS[0]))
    m.connected()
    assert kinds(m.received(opened)) == [Mine]
    assert m.received(opened) == [], "it is at it already"
    m.connected()
    assert m.puzzle_solved(REGISTRATIONS[0].nonce) == [], "the coordinator is not back yet"
    assert m.received(opened) == [Abstain(0), applied]
    assert m.received(opened) == []
    m.connected()
    assert m.received(opened) == [applied]
    m = member()
    m.received(opened)
    assert m.puzzle_solved(REGISTRATIONS[0].nonce) == [Abstain(0), applied]


@pytest.mark.parametrize("ready_first", [True, False])
def test_a_member_stores_the_document_before_it_acknowledges_and_repeats_what_each_phase_asks(ready_first: bool) -> None:
    m, accepted, ready = member(), Tell(ACCEPTED), Tell(Readiness(1, 7))
    effects = m.received(word(Phase.ASSIGNMENT, SIGNED))
    assert (effects[:2], effects[-1]) == ([Abstain(0), AcceptDocument(SIGNED)], accepted)
    assert (m.document, m.seat, m.phase) == (DOCUMENT, DOCUMENT.seat_of(NODES[0].public), Phase.ASSIGNMENT)
    assert m.received(word(Phase.ASSIGNMENT, SIGNED)) == [accepted], "repeated, not stored"
    if ready_first:
        assert m.ready(7) == [], "not yet asked"
    told = m.received(word(Phase.HANDOFF, SIGNED))
    if not ready_first:
        assert kinds(told) == [Notable]
        told = m.ready(7)
    assert told[-1] == ready
    assert m.ready(7) == [], "the next announcement repeats it, not the caller"
    m.connected()
    assert m.received(word(Phase.HANDOFF, SIGNED)) == [ready]
    assert not m.begun
    assert m.received(word(Phase.MINING, SIGNED))[0] == Begin()
    assert m.begun
    assert m.received(word(Phase.MINING, SIGNED)) == []


def test_a_node_without_a_seat_accepts_and_stays_silent_and_a_late_joiner_takes_its_seat_in_any_phase() -> None:
    m = member(11)
    assert kinds(m.received(word(Phase.ASSIGNMENT, SIGNED))) == [Abstain, AcceptDocument, Notable, Notable]
    assert m.seat is None
    m.ready(0)
    assert kinds(m.received(word(Phase.HANDOFF, SIGNED))) == [Notable]
    m = member()
    assert kinds(m.received(word(Phase.MINING, SIGNED))) == [AcceptDocument, Notable, Begin, Notable]
    assert m.begun


def moved_seat() -> SignedDocument:
    """Signed, but not what follows from the registrations."""
    a, b = DOCUMENT.committees
    swapped = replace(a, members=(b.members[0], *a.members[1:])), replace(b, members=(a.members[0], *b.members[1:]))
    return NETWORK.sign_document(replace(DOCUMENT, committees=swapped))


OTHER = first_document(GENESIS, REGISTRATIONS[4:])


@pytest.mark.parametrize(
    ("stored", "frame", "why"),
    [
        (None, word(Phase.ASSIGNMENT, moved_seat()), "does not follow"),
        (None, word(Phase.ASSIGNMENT, SignedDocument(DOCUMENT, NODES[1].sign(DOCUMENT.hash))), "not signed by the coordinator"),
        (None, word(Phase.ASSIGNMENT, SIGNED, key=NODES[1]), "announcement not signed"),
        (None, word(Phase.ASSIGNMENT, SIGNED, epoch=2), "one epoch"),
        (None, word(Phase.MINING), "wrong document, or without one"),
        (None, word(Phase.REGISTRATION, SIGNED), "wrong document, or without one"),
        (None, b"\xc1", "no message"),
        (None, encode(ApplicationRefused("the name x is taken")), "the name x is taken"),
        (Phase.ASSIGNMENT, word(Phase.SETTLEMENT, SIGNED), "settlement"),
        (Phase.ASSIGNMENT, word(Phase.MINING, NETWORK.sign_document(OTHER)), "equivocates"),
        (Phase.ASSIGNMENT, word(Phase.MINING, SignedDocument(OTHER, NODES[3].sign(OTHER.hash))), "document is not signed"),
        (Phase.MINING, word(Phase.REGISTRATION), "went back"),
    ],
)
def test_what_is_wrong_changes_nothing_and_is_said_once(stored: Phase | None, frame: bytes, why: str) -> None:
    m = member(0, SIGNED if stored else None, begun=stored is Phase.MINING)
    before = m.document, m.phase, m.begun
    (said,) = m.received(frame)
    assert isinstance(said, Notable)
    assert why in said.text
    assert m.received(frame) == []
    assert (m.document, m.phase, m.begun) == before
    m.received(word(Phase.MINING, SIGNED))
    assert (m.document, m.begun) == (DOCUMENT, True)


def test_a_damaged_document_on_disk_is_not_believed() -> None:
    with pytest.raises(InvalidDocument):
        member(0, moved_seat())
