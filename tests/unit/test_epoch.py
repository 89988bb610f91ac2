"""Epoch documents: seats follow from roll and secrets, and every departure from that is seen."""

from itertools import chain, combinations

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.structs import replace

from node.protocol.codec import decode, encode
from node.protocol.crypto import Signature
from node.protocol.epoch import (
    Announcement,
    EpochDocument,
    InvalidDocument,
    Opening,
    PhaseNotice,
    ReadyQuorum,
    Registration,
    Roll,
    SignedDocument,
    first_document,
    readiness_statement,
)
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_FRAME_BYTES, MAX_REGISTRATIONS
from node.protocol.puzzle import identity_prefix, is_solution
from signaling.phases import MAX_MESSAGE_BYTES
from tests.chains import Network, key
from tests.vectors.reference import epoch_of

NETWORK = Network(standby=4, puzzle_difficulty_bits=4)
GENESIS, REGISTRATIONS, SECRETS = NETWORK.genesis, NETWORK.registrations, NETWORK.secrets
KEYS = list(NETWORK.nodes.values())
ROLL = NETWORK.roll_of(REGISTRATIONS[:9])
DOCUMENT = first_document(GENESIS, ROLL, SECRETS)
sign, opened = NETWORK.sign_document, NETWORK.open_document


def without(*silent: Registration) -> dict[bytes, bytes]:
    """All secrets but theirs."""
    return {public: secret for public, secret in SECRETS.items() if public not in {r.public_key for r in silent}}


@given(st.permutations(REGISTRATIONS), st.integers(4, len(REGISTRATIONS)), st.integers(0, 3))
def test_the_document_follows_from_roll_and_secrets_and_only_who_told_one_has_a_seat_or_stands_by(
    shuffled: list[Registration], count: int, silent: int
) -> None:
    """As the second implementation has it; so who else is on the roll moves everybody."""
    registered, secrets = shuffled[:count], without(*shuffled[: min(silent, count - 4)])
    document = first_document(GENESIS, NETWORK.roll_of(registered), secrets)
    assert msgpack.unpackb(encode(document)) == epoch_of(to_builtins(GENESIS), list(map(encode, registered)), secrets)
    assert document.roll == NETWORK.roll_of(registered)
    seats = {member.public_key: (c.shard, i) for c in document.committees for i, member in enumerate(c.members)}
    assert {registration.public_key: document.seat_of(registration.public_key) for registration in registered} == seats | {
        registration.public_key: None for registration in (*document.standby, *document.silent)
    }
    assert {registration.public_key for registration in document.silent}.isdisjoint(secrets)
    for committee in document.committees:
        electorate = document.electorates[committee.shard]
        assert electorate.keys == tuple(member.public_key for member in committee.members)
        assert (electorate.quorum, electorate.faults_tolerated) == (3, 1)
        assert document.shards.shard_of(committee.first) == committee.shard
    assert document.shards.shard_of(b"\xff" * 20) == len(document.committees) - 1


def test_what_cannot_be_a_document_is_none() -> None:
    with pytest.raises(InvalidDocument, match="a committee needs 4 nodes"):
        first_document(GENESIS, ROLL, without(*REGISTRATIONS[:6]))
    with pytest.raises(InvalidDocument, match="not the secret it committed to"):
        first_document(GENESIS, ROLL, SECRETS | {KEYS[0].public: bytes(32)})


def test_who_tells_its_secret_last_can_only_give_up_seats_for_another_draw() -> None:
    """Two puppets that see all other secrets have four outcomes to choose from, and in three of them one seat less at least."""
    puppets = REGISTRATIONS[:2]
    outcomes = {}
    for silent in chain.from_iterable(combinations(puppets, n) for n in range(3)):
        document = first_document(GENESIS, ROLL, without(*silent))
        outcomes[document.randomness] = document
        assert all(document.seat_of(puppet.public_key) is None for puppet in silent)
        assert not {puppet.public_key for puppet in silent} & {standby.public_key for standby in document.standby}
    assert len(outcomes) == 4


def test_nothing_a_node_may_choose_after_it_saw_a_secret_moves_a_seat() -> None:
    """Whatever differs in a registration makes another roll, and a roll is fixed before any secret is told."""
    other = replace(REGISTRATIONS[0], name="mallory").signed(KEYS[0])
    assert NETWORK.roll_of([other, *REGISTRATIONS[1:9]]).hash != ROLL.hash
    again = {**without(REGISTRATIONS[0]), KEYS[0].public: SECRETS[KEYS[0].public]}
    assert first_document(GENESIS, ROLL, again) == DOCUMENT, "and of its secret it can say only the one it committed to"


def swap_seats(document: EpochDocument) -> EpochDocument:
    a, b = document.committees
    a_members, b_members = (b.members[0], *a.members[1:]), (a.members[0], *b.members[1:])
    return replace(document, committees=(replace(a, members=a_members), replace(b, members=b_members)))


def with_first(document: EpochDocument, **fields: object) -> EpochDocument:
    """The first member's registration changed."""
    a, b = document.committees
    moved = replace(a.members[0], **fields)
    return replace(document, committees=(replace(a, members=(moved, *a.members[1:])), b))


@pytest.mark.parametrize(
    ("tampered", "why"),
    [
        (swap_seats(DOCUMENT), "does not follow"),
        (replace(DOCUMENT, randomness=bytes(32)), "does not follow"),
        (replace(DOCUMENT, previous=bytes(32)), "does not follow"),
        (replace(DOCUMENT, network=bytes(8)), "another network"),
        (replace(DOCUMENT, attempt=2), "another network, epoch or attempt"),
        (replace(DOCUMENT, standby=(REGISTRATIONS[9],)), "not the secret"),
        (replace(DOCUMENT, standby=DOCUMENT.committees[0].members[:1]), "one registration for each key"),
        (replace(DOCUMENT, standby=(), silent=DOCUMENT.standby), "one secret for each"),
        (replace(DOCUMENT, secrets=DOCUMENT.secrets[::-1]), "not the secret"),
        (replace(DOCUMENT, committees=DOCUMENT.committees[:1]), "one secret for each"),
        (replace(DOCUMENT, number=2), "not the first epoch"),
        (with_first(DOCUMENT, addresses=("/ip4/6.6.6.6/tcp/1",)), "not signed by its key"),
        (with_first(DOCUMENT, commitment=REGISTRATIONS[9].commitment), "not signed by its key"),
        (SignedDocument(DOCUMENT, KEYS[0].sign(DOCUMENT.hash)), "not signed by the coordinator"),
    ],
)
def test_a_coordinator_that_departs_from_the_rules_is_found_out(tampered: EpochDocument | SignedDocument, why: str) -> None:
    decode(SignedDocument, encode(sign(DOCUMENT)), 1 << 20).check(GENESIS)
    with pytest.raises(InvalidDocument, match=why):
        (sign(tampered) if isinstance(tampered, EpochDocument) else tampered).check(GENESIS)


@pytest.mark.parametrize(
    ("roll", "why"),
    [
        (replace(ROLL, registrations=ROLL.registrations[::-1]), "by key"),
        (replace(ROLL, registrations=(ROLL.registrations[0], *ROLL.registrations)), "one registration for each key"),
        (replace(ROLL, network=bytes(8)), "another network"),
        (replace(ROLL, attempt=2), "another network, epoch or attempt"),
        (replace(ROLL, registrations=(replace(ROLL.registrations[0], name="x"), *ROLL.registrations[1:])), "not signed"),
    ],
)
def test_a_roll_holds_valid_registrations_of_its_attempt_each_key_once(roll: Roll, why: str) -> None:
    NETWORK.sign_roll(ROLL).check(GENESIS)
    with pytest.raises(InvalidDocument, match=why):
        NETWORK.sign_roll(roll).check(GENESIS)
    with pytest.raises(InvalidDocument, match="not signed by the coordinator"):
        replace(NETWORK.sign_roll(ROLL), signature=bytes(64)).check(GENESIS)


def quorum(*signers: int, document: bytes = DOCUMENT.hash, keys: tuple[int, ...] = ()) -> ReadyQuorum:
    """Of the first committee; ``keys``: whose keys sign in the signers' place."""
    members = DOCUMENT.electorates[0].keys

    def signature(signer: int) -> Signature:
        return NETWORK.nodes[members[signer % 4]].sign(readiness_statement(document))

    return ReadyQuorum(signers, tuple(map(signature, keys or signers)))


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (quorum(0, 1), "no quorum"),
        (quorum(0, 1, 2, 3), "no quorum"),
        (quorum(0, 1, 1), "no quorum"),
        (quorum(0, 2, 1), "no quorum"),
        (ReadyQuorum((0, 1, 2), quorum(0, 1).signatures), "no quorum"),
        (quorum(0, 1, 7), "not signed by member 7"),
        (quorum(0, 1, 2, keys=(0, 1, 3)), "not signed by member 2"),
        (quorum(0, 1, 2, document=bytes(32)), "not signed by member 0"),
    ],
)
def test_a_document_is_in_force_when_a_quorum_of_each_committee_signed_that_it_is_ready(first: ReadyQuorum, why: str) -> None:
    opening = opened(DOCUMENT)
    decode(Opening, encode(opening), 1 << 20).check(GENESIS)
    replace(opening, quorums=(quorum(0, 1, 3), opening.quorums[1])).check(GENESIS)
    with pytest.raises(InvalidDocument, match=why):
        replace(opening, quorums=(first, opening.quorums[1])).check(GENESIS)
    for quorums in (opening.quorums[:1], (*opening.quorums, first), opening.quorums[::-1]):
        with pytest.raises(InvalidDocument):
            replace(opening, quorums=quorums).check(GENESIS)


GOOD = REGISTRATIONS[0]
PREFIX = identity_prefix(GENESIS.network, 1, GENESIS.hash, KEYS[0].public)
UNSOLVED = next(n for i in range(1 << 16) if not is_solution(PREFIX, n := i.to_bytes(8, "big"), 4))


@pytest.mark.parametrize(
    ("registration", "epoch", "attempt", "why"),
    [
        (GOOD, 2, 1, "another network, epoch or attempt"),
        (GOOD, 1, 2, "another network, epoch or attempt"),
        (replace(GOOD, network=bytes(8)).signed(KEYS[0]), 1, 1, "another network, epoch or attempt"),
        (replace(GOOD, nonce=UNSOLVED).signed(KEYS[0]), 1, 1, "puzzle not solved"),
        (replace(GOOD, name="mallory"), 1, 1, "not signed by its key"),
        (GOOD.signed(KEYS[1]), 1, 1, "not signed by its key"),
    ],
)
def test_a_registration_must_be_for_this_attempt_solved_and_signed(
    registration: Registration, epoch: int, attempt: int, why: str
) -> None:
    GOOD.check(GENESIS, 1, 1, GENESIS.hash)
    with pytest.raises(InvalidDocument, match=why):
        registration.check(GENESIS, epoch, attempt, GENESIS.hash)


def test_the_largest_announcement_fits_a_frame() -> None:
    """As many registrations as there may be, each as long as a message to the coordinator may be."""
    largest = replace(GOOD, name="n" * 32, addresses=("/" * 256,) * 4, epoch=2**53, attempt=2**53)
    while len(encode(largest)) < MAX_MESSAGE_BYTES:
        largest = replace(largest, signature=largest.signature + bytes(1))  # longer than any can be
    size = DOCUMENT.committees[0]
    committees = tuple(replace(size, members=(largest,) * 4) for _ in range(MAX_REGISTRATIONS // 4))
    document = replace(DOCUMENT, committees=committees, standby=(), secrets=(bytes(32),) * MAX_REGISTRATIONS)
    opening = Opening(sign(document), (ReadyQuorum((0, 1, 2), (bytes(64),) * 3),) * len(committees))
    notice = PhaseNotice(GENESIS.network, 1, 1, Phase.MINING, 0, MAX_REGISTRATIONS).signed(key("coordinator"))
    assert len(encode(Announcement(notice, opening))) < MAX_FRAME_BYTES
