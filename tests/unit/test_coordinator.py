"""The coordinator's rules, without a network: every message is handed over by the test."""

from collections.abc import Sequence
from itertools import count, product
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import (
    Acknowledgement,
    Announcement,
    Application,
    InvalidDocument,
    Opening,
    Readiness,
    Registration,
    Reveal,
    SignedDocument,
    ToCoordinator,
    first_document,
)
from node.protocol.genesis import Phase
from node.protocol.reports import Notable
from signaling.phases import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES_PER_SECOND,
    Announce,
    Coordinator,
    Drop,
    Effect,
    Persist,
    PersistAttempt,
    PersistPhase,
    PersistRegistration,
    Saved,
    SendTo,
)
from signaling.storage import Storage, StorageError
from tests.chains import Network
from tests.unit.forming import (
    ACCEPTED,
    ANSWER,
    DEADLINE,
    DOCUMENT,
    ENTERED,
    GENESIS,
    MEMBERS,
    NETWORK,
    NODES,
    OPENING,
    QUORUMS,
    REGISTRATIONS,
    ROLL,
    SIGNED,
    again,
    apply,
    assigned,
    changed,
    closed,
    coordinator,
    get_ready,
    kinds,
    readiness,
    refusal,
    say,
    tell,
    unsolved,
)


def test_each_phase_ends_with_the_last_word_it_waits_for_and_is_persisted_before_it_is_told() -> None:
    c = coordinator()
    for i in range(7):
        effects = apply(c, i)
        assert kinds(effects) == [PersistRegistration, SendTo, Notable]
        assert effects[1] == SendTo(NODES[i].public, c.announcement)
        assert (c.announcement.notice.registered, c.announcement.notice.phase) == (i + 1, Phase.REGISTRATION)
    assert tell(c, MEMBERS) == [], "nobody tells before there is a roll"
    effects = apply(c, 7, now=5)
    assert kinds(effects) == [PersistRegistration, SendTo, Notable, *ENTERED]
    assert effects[4] == Announce(c.announcement)
    assert (c.announcement.content, c.announcement.notice.since) == (ROLL, 5)
    c.announcement.check(GENESIS)
    assert tell(c, [*MEMBERS[:-1], MEMBERS[0]]) == []
    assert kinds(tell(c, MEMBERS[-1:])) == ENTERED
    assert c.announcement.content == SIGNED
    assert get_ready(c, QUORUMS) == [], "what was said too early does not count"
    assert say(c, [*QUORUMS[:-1], QUORUMS[0]], ACCEPTED) == []
    assert kinds(say(c, QUORUMS[-1:], ACCEPTED)) == ENTERED
    assert c.announcement == Announcement(c.announcement.notice, SIGNED)
    assert c.announcement.notice.phase is Phase.HANDOFF
    assert get_ready(c, [*QUORUMS[:-1], QUORUMS[0]]) == []
    assert kinds(get_ready(c, QUORUMS[-1:])) == ENTERED
    assert c.announcement == Announcement(c.announcement.notice, OPENING)
    c.announcement.check(GENESIS)
    OPENING.check(GENESIS)


def test_from_the_deadline_on_one_full_committee_is_enough() -> None:
    c = coordinator()
    c.tick(0)
    for i in range(5):
        apply(c, i)
    assert kinds(c.tick(DEADLINE - 1)) == [Announce]
    assert kinds(c.tick(DEADLINE)) == [*ENTERED, Announce]
    assert kinds(tell(c, [NODES[i].public for i in range(5)])) == ENTERED
    document = c.document
    assert document is not None
    assert (len(document.committees), len(document.standby)) == (1, 1)
    say(c, [document.standby[0].public_key, NODES[10].public], Acknowledgement(document.hash))
    assert not c.acknowledged, "who has no seat does not count"
    c = coordinator()
    c.tick(0)
    for i in range(3):
        apply(c, i)
    assert kinds(c.tick(DEADLINE)) == [Announce], "too few: another term"
    apply(c, 3, now=DEADLINE + 2)
    assert kinds(c.tick(2 * DEADLINE - 1)) == [Announce]
    assert kinds(c.tick(2 * DEADLINE)) == [*ENTERED, Announce]


def test_who_does_not_tell_its_secret_in_time_has_no_seat() -> None:
    c = closed()
    tell(c, MEMBERS[:7])
    assert kinds(c.tick(ANSWER)) == [Announce]
    assert kinds(c.tick(ANSWER + 1)) == [*ENTERED, Announce]
    assert c.document is not None
    assert [registration.public_key for registration in c.document.silent] == MEMBERS[7:]
    assert c.document.seat_of(MEMBERS[7]) is None
    c.document.check_first(GENESIS)


# --- attempts


def stall_in(phase: Phase) -> Coordinator:
    """An attempt in which nodes 0 to 7 register, and from this phase on nothing is heard of the second committee."""
    c = closed()
    if phase is Phase.REVEAL:
        tell(c, MEMBERS[:3])
    else:
        tell(c, MEMBERS)
        say(c, QUORUMS if phase is Phase.HANDOFF else MEMBERS[:4], ACCEPTED)
    if phase is Phase.HANDOFF:
        get_ready(c, MEMBERS[:4])
    say(c, MEMBERS[:4], ACCEPTED, now=ANSWER)
    assert c.phase is phase
    return c


@pytest.mark.parametrize("phase", [Phase.REVEAL, Phase.ASSIGNMENT, Phase.HANDOFF])
def test_an_attempt_in_which_too_many_stay_away_is_called_off_and_begins_again_without_them(phase: Phase) -> None:
    c = stall_in(phase)
    assert kinds(c.tick(ANSWER)) == [Announce]
    effects = c.tick(ANSWER + 1)
    assert kinds(effects) == [PersistAttempt, Announce, Notable, Announce]
    there = MEMBERS[:3] if phase is Phase.REVEAL else MEMBERS[:4]
    assert isinstance(effects[0], PersistAttempt)
    assert (effects[0].attempt, set(effects[0].away)) == (2, set(MEMBERS) - set(there))
    assert (c.attempt, c.phase, c.announcement.content, c.registrations) == (2, Phase.REGISTRATION, None, {})
    for index in range(8):
        refused = "stayed away in attempt 1" in refusal(apply(c, index, again(index), now=ANSWER + 2)[:1])
        assert refused == (NODES[index].public not in there)
    assert kinds(apply(c, 9, again(9), now=ANSWER + 2))[0] is PersistRegistration, "who is new may take their place"
    assert "another network, epoch or attempt" in refusal(apply(c, 10, now=ANSWER + 2)), "a registration is for one attempt"


def test_a_later_attempt_waits_for_all_who_want_a_seat_so_being_first_is_worth_nothing() -> None:
    c = stall_in(Phase.REVEAL)
    c.tick(ANSWER + 1)
    for index in range(8, 12):
        apply(c, index, again(index), now=ANSWER + 2)
    for index, node in enumerate(NODES[:8]):
        if node.public in MEMBERS[:3]:
            apply(c, index, again(index), now=ANSWER + DEADLINE)
    assert (c.phase, len(c.registrations)) == (Phase.REGISTRATION, 7)
    c.tick(ANSWER + DEADLINE + 1)
    assert c.phase is Phase.REVEAL


def test_who_stayed_away_is_let_in_again_when_the_others_fill_no_committee() -> None:
    """All nodes lose power while they wait for their seats."""
    c = closed()
    c.tick(ANSWER + 1)
    assert c.attempt == 2
    assert all("stayed away" in refusal(apply(c, index, again(index), now=ANSWER + 2)) for index in range(8))
    c.tick(ANSWER + 1 + DEADLINE)
    assert all(kinds(apply(c, index, again(index), now=2 * DEADLINE))[0] is PersistRegistration for index in range(8))
    c.tick(ANSWER + 1 + 2 * DEADLINE)
    assert (c.attempt, c.phase) == (2, Phase.REVEAL)


def test_who_stayed_away_is_forgotten_after_some_attempts() -> None:
    saved = Saved(attempt=10, away={NODES[0].public: 1, NODES[1].public: 2, NODES[2].public: 9})
    c = coordinator(saved)
    refused = ["stayed away" in refusal(apply(c, index, again(index, 10))[:1]) for index in range(4)]
    assert refused == [True, True, True, False]
    for index in range(3, 8):
        apply(c, index, again(index, 10))
    c.tick(1 + DEADLINE)
    assert c.phase is Phase.REVEAL
    c.tick(1 + DEADLINE + ANSWER)
    assert c.attempt == 11
    refused = ["stayed away" in refusal(apply(c, index, again(index, 11))[:1]) for index in (0, 1, 2, 3, 8)]
    assert refused == [False, False, True, True, False]


def test_who_was_heard_of_in_the_handoff_is_not_to_blame_for_those_it_could_not_reach() -> None:
    c = stall_in(Phase.HANDOFF)
    say(c, MEMBERS[4:6], ACCEPTED, now=ANSWER)
    (persisted, *_) = c.tick(ANSWER + 1)
    assert isinstance(persisted, PersistAttempt)
    assert set(persisted.away) == set(MEMBERS[6:])


def test_a_restart_gives_everybody_the_whole_time_again() -> None:
    c = coordinator(Saved(1, Phase.REVEAL, 1, REGISTRATIONS[:8], ROLL))
    c.tick(10 * ANSWER)
    c.tick(11 * ANSWER - 1)
    assert (c.attempt, c.phase) == (1, Phase.REVEAL)
    c.tick(11 * ANSWER)
    assert c.attempt == 2


def test_what_was_said_of_an_attempt_before_is_ignored_not_punished() -> None:
    c = stall_in(Phase.ASSIGNMENT)
    c.tick(ANSWER + 1)
    assert say(c, MEMBERS, ACCEPTED) == []
    assert [e for peer in MEMBERS for e in say(c, [peer], readiness(peer)) + say(c, [peer], Reveal(1, bytes(32)))] == []


def test_throw_away_identities_that_come_first_and_stay_away_do_not_keep_a_network_from_forming() -> None:
    """In each attempt eight new ones come first; honest nodes are there, and answer. Virtual time, a tick a second."""
    network = Network(standby=4, puzzle_difficulty_bits=6)
    c, honest = coordinator(), list(range(8))
    strangers = (KeyPair(bytes(30) + number.to_bytes(2, "big")) for number in count(1))
    now = 0
    while c.phase is not Phase.MINING:
        now += 1_000
        assert now <= DEADLINE + 2 * ANSWER + 3_000, "attempt 2 waits for all who may come, then for secrets"
        if c.phase is Phase.REGISTRATION and not c.registrations:
            for stranger in [next(strangers) for _ in range(8)]:
                network.secrets[stranger.public] = bytes(32)
                say(c, [stranger.public], Application(network.register(99, stranger, c.attempt)), now)
        if c.phase is Phase.REGISTRATION:
            for index in honest:
                apply(c, index, again(index, c.attempt), now)
        there = [NODES[index].public for index in honest]
        if c.phase is Phase.REVEAL:
            tell(c, [peer for peer in there if peer in c.registrations], now)
        if c.document is not None:
            say(c, there, Acknowledgement(c.document.hash), now)
            get_ready(c, there, now)
        c.tick(now)
    assert c.document is not None
    assert c.attempt == 2
    assert sorted(r.public_key for k in c.document.committees for r in k.members) == sorted(NODES[i].public for i in honest)
    assert len(c.document.silent) == 8


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (REGISTRATIONS[1], "another node's"),
        (changed(addresses=("/ip4/0.0.0.0/tcp/8100",)), "nobody can dial"),
        (changed(addresses=("/ip4/10.0.0.1/tcp/0",)), "nobody can dial"),
        (changed(addresses=("mallory",)), "nobody can dial"),
        (replace(REGISTRATIONS[0], name="other"), "not signed"),
        (changed(epoch=2), "another network, epoch or attempt"),
        (changed(attempt=2), "another network, epoch or attempt"),
        (changed(network=bytes(8)), "another network, epoch or attempt"),
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
    assert c.announcement.content == SIGNED


def test_a_name_is_a_label_and_cannot_be_taken_from_another() -> None:
    c = coordinator()
    apply(c, 5, replace(REGISTRATIONS[5], name="node-0").signed(NODES[5]))
    assert kinds(apply(c, 0))[0] is PersistRegistration


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        encode([9, 1]),
        encode(Application(REGISTRATIONS[0])) + b"\x00",
        bytes(MAX_MESSAGE_BYTES + 1),
        encode(Readiness(DOCUMENT.hash, bytes(64))),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_dropped_and_no_longer_heard(frame: bytes) -> None:
    c, peer = assigned(), MEMBERS[0]
    say(c, QUORUMS, ACCEPTED)
    c.connect(peer, 1)
    assert kinds(c.receive(peer, frame, 1)) == [Drop]
    assert (c.receive(peer, frame, 1), c.disconnect(peer, 1)) == ([], [])


def test_a_secret_that_was_not_committed_to_is_none() -> None:
    c = closed()
    assert kinds(say(c, MEMBERS[:1], Reveal(1, bytes(32)))) == [Drop]
    assert not c.secrets
    assert say(c, [NODES[9].public], Reveal(1, bytes(32))) == [], "who is not on the roll has none to tell"


def test_a_peer_that_talks_too_much_is_dropped() -> None:
    c, peer, frame = coordinator(), NODES[0].public, encode(Application(REGISTRATIONS[0]))
    c.connect(peer, 1)
    for _ in range(3):
        assert all(Drop not in kinds(c.receive(peer, frame, 1)) for _ in range(MAX_MESSAGES_PER_SECOND))
        c.tick(2)
    assert [kinds(c.receive(peer, frame, 3)) for _ in range(MAX_MESSAGES_PER_SECOND + 1)][-1] == [Drop]


# --- crashes


def perform(effects: Sequence[Effect], storage: Storage, published: set[bytes]) -> None:
    """Write one by one; note the rolls and documents that leave the process."""
    for effect in effects:
        if isinstance(effect, Persist):
            storage.write([effect])
        told = effect.announcement if isinstance(effect, Announce) else effect.message if isinstance(effect, SendTo) else None
        if isinstance(told, Announcement) and told.content:
            published.add(encode(told.content))


def test_whenever_it_crashes_the_epoch_goes_on_where_it_was_and_no_two_rolls_or_documents_are_published() -> None:
    """Power off after each single effect; then other nodes come first, so a forgetful coordinator would assign anew."""
    events: list[tuple[bytes, ToCoordinator]] = [(NODES[i].public, Application(REGISTRATIONS[i])) for i in range(8)]
    events += [(peer, Reveal(1, NETWORK.secrets[peer])) for peer in MEMBERS]
    events += [(peer, ACCEPTED) for peer in QUORUMS] + [(peer, readiness(peer)) for peer in QUORUMS]
    for crash, performed in product(range(len(events)), range(7)):
        storage, published = Storage(Path(":memory:"), GENESIS.hash), set[bytes]()
        c = coordinator(storage.load(0))
        for peer, message in events[:crash]:
            perform(say(c, [peer], message), storage, published)
        peer, message = events[crash]
        perform(say(c, [peer], message)[:performed], storage, published)
        back = coordinator(storage.load(99))
        if performed == 6:
            assert (back.phase, back.since, back.content, back.registrations) == (c.phase, c.since, c.content, c.registrations)
        for i in range(11, 3, -1):
            perform(apply(back, i, now=2), storage, published)
        # They repeat themselves on each announcement, so what was said before the crash is heard again.
        perform(tell(back, back.registrations, now=2), storage, published)
        assert back.document
        members = [member.public_key for committee in back.document.committees for member in committee.members]
        perform(say(back, members, Acknowledgement(back.document.hash)), storage, published)
        perform(get_ready(back, members), storage, published)
        perform(back.tick(3), storage, published)
        assert isinstance(back.content, Opening)
        roll = NETWORK.sign_roll(back.document.roll)
        assert published == {encode(roll), encode(back.content.signed), encode(back.content)}
        assert storage.load(0).phase is Phase.MINING
        storage.close()


def test_a_crash_between_attempts_forgets_neither_the_attempt_nor_who_stayed_away() -> None:
    storage = Storage(Path(":memory:"), GENESIS.hash)
    c = coordinator(storage.load(0))
    for index in range(8):
        perform(apply(c, index), storage, set())
    perform(tell(c, MEMBERS), storage, set())
    perform(say(c, MEMBERS[:4], ACCEPTED, now=ANSWER), storage, set())
    perform(c.tick(ANSWER + 1), storage, set())
    perform(apply(c, 9, again(9), now=ANSWER + 2), storage, set())
    saved = storage.load(9)
    assert (saved.attempt, saved.phase, saved.content, saved.registrations) == (2, Phase.REGISTRATION, None, (again(9),))
    assert saved.away == dict.fromkeys(MEMBERS[4:], 1)
    with pytest.raises(Exception, match="UNIQUE"):
        storage.write([PersistAttempt(1, 2, 5, ())])
    storage.close()


def test_a_database_takes_each_phase_of_an_attempt_once_and_is_one_networks_and_one_processs(tmp_path: Path) -> None:
    path = tmp_path / "db"
    other = NETWORK.sign_document(first_document(GENESIS, NETWORK.roll_of(REGISTRATIONS[4:]), NETWORK.secrets))
    storage = Storage(path, GENESIS.hash)
    storage.load(0)
    storage.write([PersistPhase(1, 1, Phase.ASSIGNMENT, 1, SIGNED)])
    with pytest.raises(Exception, match="UNIQUE"):
        storage.write([PersistRegistration(REGISTRATIONS[9]), PersistPhase(1, 1, Phase.ASSIGNMENT, 2, other)])
    with pytest.raises(StorageError, match="in use by another coordinator"):
        Storage(path, GENESIS.hash)
    storage.close()
    storage = Storage(path, GENESIS.hash)
    assert storage.load(9) == Saved(1, Phase.ASSIGNMENT, 1, (), SIGNED)
    storage.close()
    with pytest.raises(StorageError, match="another network"):
        Storage(path, bytes(32))
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError):
        Storage(path, GENESIS.hash)


@pytest.mark.parametrize(
    "saved",
    [
        Saved(1, Phase.ASSIGNMENT, 1, (), SignedDocument(DOCUMENT, bytes(64))),
        Saved(1, Phase.MINING, 1, (), replace(OPENING, quorums=OPENING.quorums[::-1])),
        Saved(1, Phase.MINING, 1, (), SIGNED),
        Saved(1, Phase.MINING, 1),
        Saved(1, Phase.REGISTRATION, 1, (), SIGNED),
        Saved(2, Phase.ASSIGNMENT, 1, (), SIGNED),
        Saved(1, Phase.REGISTRATION, 1, (replace(REGISTRATIONS[0], name="other"),)),
    ],
)
def test_what_is_stored_is_not_believed_when_it_makes_no_sense(saved: Saved) -> None:
    with pytest.raises(InvalidDocument):
        coordinator(saved)
