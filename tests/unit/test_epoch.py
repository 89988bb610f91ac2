"""Epoch documents: seats follow from who registered, and every departure from that is seen."""

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.structs import replace

from node.protocol.codec import decode, encode
from node.protocol.epoch import EpochDocument, InvalidDocument, Registration, SignedDocument, first_document
from node.protocol.puzzle import identity_prefix, is_solution
from tests.chains import Network
from tests.vectors.reference import epoch_of

NETWORK = Network(standby=4, puzzle_difficulty_bits=4)
GENESIS, REGISTRATIONS = NETWORK.genesis, NETWORK.registrations
KEYS = list(NETWORK.nodes.values())
DOCUMENT = first_document(GENESIS, REGISTRATIONS[:8])
sign = NETWORK.sign_document


@given(st.permutations(REGISTRATIONS), st.integers(4, len(REGISTRATIONS)))
def test_the_document_follows_from_who_registered_and_everybody_finds_a_seat_or_stands_by(
    shuffled: list[Registration], count: int
) -> None:
    """As the second implementation has it; so the order does not matter, and who else registers moves everybody."""
    registered = shuffled[:count]
    document = first_document(GENESIS, registered)
    assert msgpack.unpackb(encode(document)) == epoch_of(to_builtins(GENESIS), list(map(encode, sorted(registered, key=encode))))
    seats = {member.public_key: (c.shard, i) for c in document.committees for i, member in enumerate(c.members)}
    assert {registration.public_key: document.seat_of(registration.public_key) for registration in registered} == seats | {
        registration.public_key: None for registration in document.standby
    }
    for committee in document.committees:
        electorate = document.electorates[committee.shard]
        assert electorate.keys == tuple(member.public_key for member in committee.members)
        assert (electorate.quorum, electorate.faults_tolerated) == (3, 1)
        assert document.shards.shard_of(committee.first) == committee.shard
    assert document.shards.shard_of(b"\xff" * 20) == len(document.committees) - 1


@pytest.mark.parametrize(
    ("registrations", "why"),
    [
        (REGISTRATIONS[:3], "a committee needs 4 nodes"),
        ([*REGISTRATIONS[:4], REGISTRATIONS[0]], "a key is registered twice"),
        ([*REGISTRATIONS[:4], replace(REGISTRATIONS[5], name="node-0")], "a name is registered twice"),
    ],
)
def test_what_cannot_be_a_document_is_none(registrations: list[Registration], why: str) -> None:
    with pytest.raises(InvalidDocument, match=why):
        first_document(GENESIS, registrations)


def swap_seats(document: EpochDocument) -> EpochDocument:
    a, b = document.committees
    a_members, b_members = (b.members[0], *a.members[1:]), (a.members[0], *b.members[1:])
    return replace(document, committees=(replace(a, members=a_members), replace(b, members=b_members)))


def forge_member(document: EpochDocument) -> EpochDocument:
    a, b = document.committees
    moved = replace(a.members[0], addresses=("/ip4/6.6.6.6/tcp/1",))
    return replace(document, committees=(replace(a, members=(moved, *a.members[1:])), b))


@pytest.mark.parametrize(
    ("tampered", "why"),
    [
        (swap_seats(DOCUMENT), "does not follow"),
        (replace(DOCUMENT, randomness=bytes(32)), "does not follow"),
        (replace(DOCUMENT, previous=bytes(32)), "does not follow"),
        (replace(DOCUMENT, network=bytes(8)), "does not follow"),
        (replace(DOCUMENT, standby=(REGISTRATIONS[9],)), "does not follow"),
        (replace(DOCUMENT, committees=DOCUMENT.committees[:1]), "does not follow"),
        (replace(DOCUMENT, number=2), "one epoch"),
        (forge_member(DOCUMENT), "not signed by its key"),
        (SignedDocument(DOCUMENT, KEYS[0].sign(DOCUMENT.hash)), "not signed by the coordinator"),
    ],
)
def test_a_coordinator_that_departs_from_the_rules_is_found_out(tampered: EpochDocument | SignedDocument, why: str) -> None:
    decode(SignedDocument, encode(sign(DOCUMENT)), 1 << 20).check(GENESIS)
    with pytest.raises(InvalidDocument, match=why):
        (sign(tampered) if isinstance(tampered, EpochDocument) else tampered).check(GENESIS)


GOOD = REGISTRATIONS[0]
PREFIX = identity_prefix(GENESIS.network, 1, GENESIS.hash, KEYS[0].public)
UNSOLVED = next(n for i in range(1 << 16) if not is_solution(PREFIX, n := i.to_bytes(8, "big"), 4))


@pytest.mark.parametrize(
    ("registration", "epoch", "why"),
    [
        (GOOD, 2, "another network or epoch"),
        (replace(GOOD, network=bytes(8)).signed(KEYS[0]), 1, "another network or epoch"),
        (replace(GOOD, nonce=UNSOLVED).signed(KEYS[0]), 1, "puzzle not solved"),
        (replace(GOOD, name="mallory"), 1, "not signed by its key"),
        (GOOD.signed(KEYS[1]), 1, "not signed by its key"),
    ],
)
def test_a_registration_must_be_for_this_epoch_solved_and_signed(registration: Registration, epoch: int, why: str) -> None:
    GOOD.check(GENESIS, 1, GENESIS.hash)
    with pytest.raises(InvalidDocument, match=why):
        registration.check(GENESIS, epoch, GENESIS.hash)
