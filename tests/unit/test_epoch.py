"""Epoch documents: seats follow from who registered, and every departure from that is seen."""

import random
from collections import Counter

import pytest
from msgspec.structs import replace

from node.protocol.codec import decode, encode
from node.protocol.epoch import EpochDocument, InvalidDocument, Registration, SignedDocument, first_document
from node.protocol.genesis import Genesis
from node.protocol.puzzle import identity_prefix, is_solution
from tests.chains import Network

NETWORK = Network(standby=4, puzzle_difficulty_bits=4)
GENESIS, REGISTRATIONS = NETWORK.genesis, NETWORK.registrations
KEYS = list(NETWORK.nodes.values())
DOCUMENT = first_document(GENESIS, REGISTRATIONS[:8])
sign = NETWORK.sign_document


def test_the_order_of_registration_does_not_matter() -> None:
    shuffled = list(REGISTRATIONS[:8])
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert first_document(GENESIS, shuffled) == DOCUMENT


def test_leaving_one_out_changes_the_randomness() -> None:
    seen = {first_document(GENESIS, [r for r in REGISTRATIONS if r is not left_out]).randomness for left_out in REGISTRATIONS}
    assert len(seen) == len(REGISTRATIONS)
    assert DOCUMENT.randomness not in seen


def test_seats_follow_the_randomness_so_who_else_registers_moves_everybody() -> None:
    def order(registrations: list[Registration]) -> tuple[str, ...]:
        document = first_document(GENESIS, registrations)
        members = [m for c in document.committees for m in c.members] + list(document.standby)
        return tuple(m.name for m in members if m in REGISTRATIONS[:8])

    assert len({order([*REGISTRATIONS[:8], extra]) for extra in REGISTRATIONS[8:]}) > 1


def test_every_registration_has_one_seat_or_stands_by() -> None:
    document = first_document(GENESIS, REGISTRATIONS[:11])
    everyone = [m.public_key for c in document.committees for m in c.members] + [r.public_key for r in document.standby]
    assert Counter(everyone) == Counter(r.public_key for r in REGISTRATIONS[:11])
    assert [len(c.members) for c in document.committees] == [4, 4]
    for committee in document.committees:
        electorate = document.electorates[committee.shard]
        assert electorate.keys == tuple(m.public_key for m in committee.members)
        assert (electorate.quorum, electorate.faults_tolerated) == (3, 1)
        for index, member in enumerate(committee.members):
            assert document.seat_of(member.public_key) == (committee.shard, index)
    assert all(document.seat_of(r.public_key) is None for r in document.standby)


def test_with_few_nodes_fewer_committees_cover_the_whole_address_space() -> None:
    document = first_document(GENESIS, REGISTRATIONS[:7])
    assert len(document.committees) == 1
    assert len(document.standby) == 3
    shard = document.committees[0].shard
    assert {document.shards.shard_of(address) for address in (bytes(20), b"\x7f" * 20, b"\xff" * 20)} == {shard}


def test_the_range_table_splits_addresses_evenly() -> None:
    first, second = (c.first for c in sorted(DOCUMENT.committees, key=lambda c: c.first))
    assert first == bytes(20)
    assert second == b"\x80" + bytes(19)
    below = (int.from_bytes(second, "big") - 1).to_bytes(20, "big")
    shards = [DOCUMENT.shards.shard_of(address) for address in (bytes(20), below, second, b"\xff" * 20)]
    assert shards[0] == shards[1] != shards[2] == shards[3]


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


def test_a_signed_document_survives_the_wire_and_passes() -> None:
    signed = sign(DOCUMENT)
    read = decode(SignedDocument, encode(signed), 1 << 20)
    assert read == signed
    read.check(GENESIS)


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


def test_a_puzzle_solved_for_another_genesis_is_worth_nothing() -> None:
    hard = replace(GENESIS.parameters, puzzle_difficulty_bits=20)
    other = Genesis(name="other", time=1, coordinator=GENESIS.coordinator, assets=GENESIS.assets, parameters=hard)
    moved = replace(REGISTRATIONS[0], network=other.network).signed(KEYS[0])
    with pytest.raises(InvalidDocument, match="puzzle not solved"):
        moved.check(other, 1, other.hash)
