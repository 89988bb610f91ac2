"""The node's side of the coordinator's rules; what a restart believes is a matter of the whole node (test_node)."""

import pytest
from msgspec.structs import replace

from node.effects import AcceptDocument, Mine, Pledge, Tell
from node.events import Stored
from node.membership import Membership
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import (
    Announcement,
    Application,
    ApplicationRefused,
    Content,
    Opening,
    PhaseNotice,
    Reveal,
    SignedDocument,
    commitment_to,
    first_document,
)
from node.protocol.genesis import Phase
from node.protocol.reports import Notable
from tests.unit.forming import (
    ACCEPTED,
    DOCUMENT,
    GENESIS,
    KEY,
    NETWORK,
    NODES,
    OPENING,
    REGISTRATIONS,
    ROLL,
    SIGNED,
    again,
    changed,
    kinds,
    readiness,
)


def pledged(index: int, roll: bytes = b"", attempt: int = 1) -> Pledge:
    return Pledge(attempt, NETWORK.secrets[NODES[index].public], roll)


def member(index: int = 0, accepted: SignedDocument | Opening | None = None, pledge: Pledge | None = None) -> Membership:
    stored = Stored(bytes([index]) * 32, accepted, (pledge,) if pledge is not None else ())
    return Membership(GENESIS, NODES[index], REGISTRATIONS[index].name, REGISTRATIONS[index].addresses, stored)


def word(phase: Phase, content: Content | None = None, key: KeyPair = KEY, epoch: int = 1, attempt: int = 1) -> bytes:
    """An announcement as the coordinator would send it."""
    return encode(Announcement(PhaseNotice(GENESIS.network, epoch, attempt, phase, 1, 8).signed(key), content))


def secret_of(m: Membership) -> bytes:
    assert m.pledge is not None
    return m.pledge.secret


def test_a_node_solves_its_puzzle_once_and_applies_once_per_connection_with_a_secret_that_is_on_its_disk() -> None:
    m, opened = member(), word(Phase.REGISTRATION)
    m.connected()
    assert kinds(m.received(opened)) == [Mine]
    assert m.received(opened) == [], "it is at it already"
    m.connected()
    assert m.puzzle_solved(REGISTRATIONS[0].nonce) == [], "the coordinator is not back yet"
    pledge, told = m.received(opened)
    assert pledge == m.pledge == Pledge(1, secret_of(m))
    registration = changed(commitment=commitment_to(secret_of(m)))
    assert told == Tell(Application(registration))
    assert m.received(opened) == []
    m.connected()
    assert m.received(opened) == [told], "with the same secret"
    registration.check(GENESIS, 1, 1, GENESIS.hash)


def test_each_disk_and_each_attempt_has_a_secret_of_its_own() -> None:
    secrets = set()
    for entropy in (bytes(32), bytes(31) + b"1"):
        m = Membership(GENESIS, NODES[0], "n", ("/ip4/192.0.2.1/tcp/1",), Stored(entropy))
        m.puzzle_solved(bytes(8))
        for attempt in (1, 2, 5):
            assert Pledge in kinds(m.received(word(Phase.REGISTRATION, attempt=attempt)))
            secrets.add(secret_of(m))
    assert len(secrets) == 6


def test_a_refused_node_applies_again_for_what_stood_against_it_may_pass() -> None:
    m, opened = member(), word(Phase.REGISTRATION)
    m.puzzle_solved(REGISTRATIONS[0].nonce)
    (_, told) = m.received(opened)
    assert m.received(opened) == []
    m.received(encode(ApplicationRefused("others come first")))
    assert m.received(opened) == [told]


def test_a_node_tells_its_secret_only_to_a_roll_that_it_has_stored_and_that_has_it() -> None:
    m = member(0, pledge=pledged(0))
    secret = NETWORK.secrets[NODES[0].public]
    bound, entered, told = m.received(word(Phase.REVEAL, ROLL))
    assert bound == pledged(0, ROLL.roll.hash)
    assert (kinds([entered]), told) == ([Notable], Tell(Reveal(1, secret)))
    assert m.received(word(Phase.REVEAL, ROLL)) == [told], "repeated, not stored"
    m = member(0, pledge=pledged(0, ROLL.roll.hash))
    assert m.received(word(Phase.REVEAL, ROLL)) == [told], "after a restart, too"


@pytest.mark.parametrize(
    ("index", "pledge", "said"),
    [
        (9, pledged(9), "leaves this node out"),
        (0, Pledge(1, bytes(32)), "a secret that is not on its disk"),
        (0, None, ""),
        (0, pledged(0, attempt=0), ""),
    ],
    ids=["not on the roll", "registered from another disk", "never applied", "applied in another attempt"],
)
def test_a_node_without_a_part_in_the_roll_has_nothing_to_tell(index: int, pledge: Pledge | None, said: str) -> None:
    m = member(index, pledge=pledge)
    effects = [*m.received(word(Phase.REVEAL, ROLL)), *m.received(word(Phase.REVEAL, ROLL))]
    assert set(kinds(effects)) == {Notable}
    assert any(isinstance(effect, Notable) and said in effect.text for effect in effects)
    assert m.pledge == pledge


@pytest.mark.parametrize("ready_first", [True, False])
def test_a_member_stores_the_document_before_it_acknowledges_and_repeats_what_each_phase_asks(ready_first: bool) -> None:
    m = member(0, pledge=pledged(0, ROLL.roll.hash))
    accepted, ready = Tell(ACCEPTED), Tell(readiness(NODES[0].public))
    effects = m.received(word(Phase.ASSIGNMENT, SIGNED))
    assert (effects[0], effects[-1]) == (AcceptDocument(SIGNED), accepted)
    assert (m.document, m.seat, m.phase) == (DOCUMENT, DOCUMENT.seat_of(NODES[0].public), Phase.ASSIGNMENT)
    assert m.received(word(Phase.ASSIGNMENT, SIGNED)) == [accepted], "repeated, not stored"
    if ready_first:
        assert m.ready() == [], "not yet asked"
    told = m.received(word(Phase.HANDOFF, SIGNED))
    if not ready_first:
        assert told[1:] == [accepted], "it is there"
        told = m.ready()
    assert told[-2:] == [accepted, ready]
    assert m.ready() == [], "the next announcement repeats it, not the caller"
    m.connected()
    assert m.received(word(Phase.HANDOFF, SIGNED)) == [accepted, ready]
    assert not m.begun
    assert m.received(word(Phase.MINING, OPENING))[0] == AcceptDocument(OPENING)
    assert (m.begun, m.may_vote) == (True, True)
    assert m.received(word(Phase.MINING, OPENING)) == []


def test_a_node_without_a_seat_accepts_and_stays_silent_and_a_late_joiner_follows_in_any_phase() -> None:
    m = member(11)
    assert kinds(m.received(word(Phase.ASSIGNMENT, SIGNED))) == [AcceptDocument, Notable, Notable]
    assert m.seat is None
    m.ready()
    assert kinds(m.received(word(Phase.HANDOFF, SIGNED))) == [Notable]
    m = member()
    assert kinds(m.received(word(Phase.MINING, OPENING))) == [AcceptDocument, Notable, Notable]
    assert (m.begun, m.may_vote) == (True, False)


def told_registration() -> Membership:
    """A node that lost its whole data folder, and whose coordinator says that registration is open."""
    m = member()
    m.received(word(Phase.REGISTRATION))
    assert kinds(m.puzzle_solved(REGISTRATIONS[0].nonce)) == [Pledge, Tell]
    return m


@pytest.mark.parametrize(
    "m",
    [
        member(0, SIGNED),
        member(0, OPENING),
        member(0, SIGNED, Pledge(1, bytes(32), ROLL.roll.hash)),
        member(0, SIGNED, pledged(1, ROLL.roll.hash)),
        told_registration(),
    ],
    ids=["database lost", "database lost in force", "another secret", "another node's database", "talked into registering"],
)
def test_a_member_without_the_secret_of_its_registration_on_its_disk_takes_no_part_and_never_votes(m: Membership) -> None:
    for frame in (word(Phase.ASSIGNMENT, SIGNED), word(Phase.HANDOFF, SIGNED)):
        told = [*m.received(frame), *m.ready()]
        assert not [effect for effect in told if isinstance(effect, Tell)], "it must not be counted on"
    m.received(word(Phase.MINING, OPENING))
    assert (m.document, m.begun, m.may_vote) == (DOCUMENT, True, False)


def test_an_accepted_document_is_taken_back_for_a_later_attempt_until_it_is_in_force() -> None:
    later = NETWORK.roll_of([again(index) for index in range(8)], attempt=2)
    second = first_document(GENESIS, later, NETWORK.secrets)
    m = member(0, SIGNED, pledged(0, ROLL.roll.hash))
    m.puzzle_solved(REGISTRATIONS[0].nonce)
    _, pledge, _ = m.received(word(Phase.REGISTRATION, attempt=2))
    assert isinstance(pledge, Pledge)
    assert (m.attempt, pledge.attempt, m.may_vote) == (2, 2, False), "of attempt 1 it has no secret any more"
    (said,) = m.received(word(Phase.MINING, OPENING))
    assert isinstance(said, Notable)
    assert "went back" in said.text
    assert not m.begun, "though it may have signed that it is ready"
    restarted = member(0, SIGNED, pledge)
    assert (restarted.attempt, restarted.phase, restarted.may_vote) == (2, Phase.REGISTRATION, False)
    m = member(0, SIGNED, pledged(0, later.hash, attempt=2))
    signed = NETWORK.sign_document(second)
    assert m.received(word(Phase.ASSIGNMENT, signed, attempt=2))[0] == AcceptDocument(signed)
    opening = NETWORK.open_document(second)
    assert m.received(word(Phase.MINING, opening, attempt=2))[0] == AcceptDocument(opening)
    assert m.may_vote


def test_a_coordinator_that_puts_one_attempt_in_force_for_some_and_begins_another_has_nobody_in_both() -> None:
    """All signed that they are ready. Two of each committee are shown the opening, the others and four more the next attempt."""
    early = {member.public_key for committee in DOCUMENT.committees for member in committee.members[:2]}
    nodes = {pair.public: member(i, SIGNED if i < 8 else None, pledged(i, ROLL.roll.hash)) for i, pair in enumerate(NODES)}
    registrations, secrets = [], {}
    for i, (public_key, m) in enumerate(nodes.items()):
        if public_key in early:
            m.received(word(Phase.MINING, OPENING))
        else:
            m.puzzle_solved(REGISTRATIONS[i].nonce)
            *_, told = m.received(word(Phase.REGISTRATION, attempt=2))
            assert isinstance(told, Tell)
            assert isinstance(told.message, Application)
            registrations.append(told.message.registration)
            secrets[public_key] = secret_of(m)
    roll = NETWORK.sign_roll(NETWORK.roll_of(registrations, attempt=2))
    second = NETWORK.open_document(first_document(GENESIS, roll.roll, secrets))
    for m in nodes.values():
        m.received(word(Phase.REVEAL, roll, attempt=2))
        m.received(word(Phase.MINING, second, attempt=2))
        m.received(word(Phase.MINING, OPENING))
    begun = {public_key: m.document.hash for public_key, m in nodes.items() if m.begun and m.may_vote and m.document}
    assert begun == {public_key: (DOCUMENT if public_key in early else second.document).hash for public_key in nodes}
    for electorate in DOCUMENT.electorates.values():
        assert sum(begun[public_key] == DOCUMENT.hash for public_key in electorate.keys) < electorate.quorum, "it stands still"


def moved_seat() -> SignedDocument:
    """Signed, but not what follows from roll and secrets."""
    a, b = DOCUMENT.committees
    swapped = replace(a, members=(b.members[0], *a.members[1:])), replace(b, members=(a.members[0], *b.members[1:]))
    return NETWORK.sign_document(replace(DOCUMENT, committees=swapped))


OTHER_ROLL = NETWORK.sign_roll(NETWORK.roll_of([*REGISTRATIONS[:4], *REGISTRATIONS[5:9]]))
OTHER = first_document(GENESIS, OTHER_ROLL.roll, NETWORK.secrets)
DROPPED = first_document(GENESIS, ROLL.roll, {r.public_key: NETWORK.secrets[r.public_key] for r in REGISTRATIONS[1:8]})
FORGED = replace(OPENING, quorums=OPENING.quorums[::-1])


@pytest.mark.parametrize(
    ("stored", "frame", "why"),
    [
        (Phase.REVEAL, word(Phase.ASSIGNMENT, moved_seat()), "does not follow"),
        (Phase.REVEAL, word(Phase.ASSIGNMENT, SignedDocument(DOCUMENT, NODES[1].sign(DOCUMENT.hash))), "not signed by the coord"),
        (Phase.REVEAL, word(Phase.ASSIGNMENT, SIGNED, key=NODES[1]), "announcement not signed"),
        (Phase.REVEAL, word(Phase.ASSIGNMENT, SIGNED, epoch=2), "of a later epoch"),
        (Phase.REVEAL, word(Phase.ASSIGNMENT, SIGNED, attempt=2), "content of attempt 1"),
        (Phase.REVEAL, word(Phase.ASSIGNMENT), "wrong content, or without any"),
        (Phase.REVEAL, word(Phase.MINING), "wrong content, or without any"),
        (Phase.REVEAL, word(Phase.MINING, SIGNED), "wrong content, or without any"),
        (Phase.REVEAL, word(Phase.REGISTRATION, SIGNED), "wrong content, or without any"),
        (Phase.REVEAL, word(Phase.REVEAL, OTHER_ROLL), "a second roll"),
        (Phase.REVEAL, word(Phase.ASSIGNMENT, NETWORK.sign_document(OTHER)), "has another roll"),
        (Phase.REVEAL, word(Phase.MINING, NETWORK.open_document(OTHER)), "has another roll"),
        (Phase.REVEAL, word(Phase.MINING, FORGED), "readiness not signed"),
        (Phase.REVEAL, b"\xc1", "no message"),
        (Phase.REVEAL, encode(ApplicationRefused("nobody can dial x")), "nobody can dial x"),
        (Phase.ASSIGNMENT, word(Phase.SETTLEMENT, SIGNED), "settlement"),
        (Phase.ASSIGNMENT, word(Phase.HANDOFF, NETWORK.sign_document(OTHER)), "a second document"),
        (Phase.ASSIGNMENT, word(Phase.HANDOFF, NETWORK.sign_document(DROPPED)), "a second document"),
        (Phase.ASSIGNMENT, word(Phase.MINING, NETWORK.open_document(OTHER)), "a second document"),
        (Phase.ASSIGNMENT, word(Phase.HANDOFF, SignedDocument(OTHER, NODES[3].sign(OTHER.hash))), "document is not signed"),
        (Phase.ASSIGNMENT, word(Phase.MINING, FORGED), "readiness not signed"),
        (Phase.ASSIGNMENT, word(Phase.REGISTRATION), "went back"),
        (Phase.MINING, word(Phase.HANDOFF, SIGNED), "went back"),
        (Phase.MINING, word(Phase.REGISTRATION), "went back"),
        (Phase.MINING, word(Phase.REGISTRATION, attempt=2), "this node has begun"),
        (Phase.MINING, word(Phase.MINING, NETWORK.open_document(OTHER)), "a second document"),
    ],
)
def test_what_is_wrong_changes_nothing_and_is_said_once(stored: Phase, frame: bytes, why: str) -> None:
    held: dict[Phase, SignedDocument | Opening] = {Phase.ASSIGNMENT: SIGNED, Phase.MINING: OPENING}
    accepted = held.get(stored)
    m = member(0, accepted, pledged(0, ROLL.roll.hash))
    before = m.document, m.pledge, m.attempt, m.phase, m.begun
    (said,) = m.received(frame)
    assert isinstance(said, Notable)
    assert why in said.text
    assert m.received(frame) == []
    assert (m.document, m.pledge, m.attempt, m.phase, m.begun) == before
    m.received(word(Phase.MINING, OPENING))
    assert (m.document, m.begun, m.may_vote) == (DOCUMENT, True, True)


@pytest.mark.parametrize("phase", [Phase.REGISTRATION, Phase.SETTLEMENT, Phase.MINING])
def test_a_node_that_comes_in_a_later_epoch_takes_the_first_opening_and_asks_the_coordinator_for_nothing(phase: Phase) -> None:
    m = member(11)
    effects = m.received(word(phase, OPENING, epoch=4, attempt=3))
    assert kinds(effects) == [AcceptDocument, Notable, Notable]
    assert (m.begun, m.document, m.attempt, m.phase) == (True, DOCUMENT, 1, Phase.MINING)
    assert m.received(word(Phase.MINING, OPENING, epoch=4, attempt=3)) == []
    (said,) = m.received(word(phase, NETWORK.open_document(OTHER), epoch=4))
    assert isinstance(said, Notable)
    assert "a second document" in said.text


def test_a_member_goes_on_undisturbed_when_the_coordinator_speaks_of_a_later_epoch() -> None:
    m = member(0, OPENING, pledged(0, ROLL.roll.hash))
    assert m.received(word(Phase.REVEAL, OPENING, epoch=2, attempt=7)) == []
    assert (m.begun, m.may_vote) == (True, True)


def test_a_node_whose_secret_is_left_out_of_the_document_says_so() -> None:
    m = member(0, pledge=pledged(0, ROLL.roll.hash))
    effects = m.received(word(Phase.ASSIGNMENT, NETWORK.sign_document(DROPPED)))
    assert any(isinstance(effect, Notable) and "no seat, though it told its secret" in effect.text for effect in effects)


def test_a_damaged_document_on_disk_is_not_believed() -> None:
    for damaged in (moved_seat(), FORGED):
        m = member(0, damaged)
        assert (m.accepted, m.begun, m.attempt, m.phase) == (None, False, 1, Phase.REGISTRATION)
