"""Bundles from other shards: which are kept, which a voter accepts in a block, and how many."""

from itertools import count

import pytest
from msgspec import structs

from node.protocol.block import Block
from node.protocol.certificate import Electorate
from node.protocol.channel import CertifiedBundle, Prepare, PrepareVote, Record
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES, MAX_BLOCK_RECORDS
from node.replica.inbox import MAX_CHANNEL_BYTES, WINDOW, Inbox, Unproven
from node.replica.mempool import Mempool
from node.replica.payloads import read_bundles, read_payload
from tests.chains import Network
from tests.unit.replicas import forge_bundle

NETWORK = Network(committees=3)
SHARD, SOURCE = NETWORK.shards[0], NETWORK.shards[1]
VOTE = PrepareVote(bytes(32), Code.OK)


def inbox() -> Inbox:
    return Inbox(0, NETWORK.document.electorates)


def bundle(sequence: int = 1, destination: int = 0, *records: Record) -> CertifiedBundle:
    return forge_bundle(SOURCE, destination, sequence, records or (VOTE,))


def unproven(sequence: int = 1) -> CertifiedBundle:
    good = bundle(sequence)
    return structs.replace(good, bundle=structs.replace(good.bundle, records=(VOTE, VOTE)))


def of_shard(source: int) -> CertifiedBundle:
    good = bundle()
    return structs.replace(good, bundle=structs.replace(good.bundle, source=source))


@pytest.mark.parametrize(
    ("certified", "kept"),
    [
        (bundle(11), True),
        (bundle(10 + WINDOW), True),
        (bundle(10), False),
        (bundle(11 + WINDOW), False),
        (bundle(11, 2), False),
        (unproven(10), False),
        (of_shard(7), False),
    ],
    ids=[
        "next",
        "last of the window",
        "taken already",
        "beyond the window",
        "for another shard",
        "not looked at",
        "unknown source",
    ],
)
def test_a_bundle_is_kept_if_it_is_proven_new_and_near(certified: CertifiedBundle, kept: bool) -> None:
    box = inbox()
    assert (box.receive(certified, 10) is not None) == kept
    assert not box.receive(certified, 10), "not twice"


def test_a_bundle_that_would_be_kept_and_does_not_prove_itself_is_a_lie() -> None:
    box = inbox()
    with pytest.raises(Unproven):
        box.receive(unproven(11), 10)
    assert not box.holds(1, 11)


def test_bundles_follow_without_a_gap_until_the_chain_has_taken_them() -> None:
    box = inbox()
    first, second, fourth = (bundle(sequence) for sequence in (1, 2, 4))
    kept = [box.receive(certified, 0) for certified in (fourth, second, first)]
    assert [box.holds(1, sequence) for sequence in range(1, 5)] == [True, True, False, True]
    assert box.next(1, 0) is None, "not before it is checked"
    for delivery in kept:
        assert delivery is not None
        assert box.verdicts(delivery.encoded) is None
        box.settle(delivery, {})
    assert box.next(1, 0)
    assert [delivery.certified for delivery in box.following(1, 0)] == [first, second]
    box.prune(1, 2)
    assert list(box.following(1, 0)) == []
    assert [delivery.certified for delivery in box.following(1, 3)] == [fourth]


@pytest.mark.parametrize(
    ("encoded", "valid"),
    [
        (encode(bundle()), True),
        (encode(bundle()) + b"x", False),
        (encode(bundle(1, 2)), False),
        (encode(unproven()), False),
        (encode(of_shard(7)), False),
    ],
    ids=["proven", "no bundle", "for another shard", "unproven", "unknown source"],
)
def test_a_bundle_in_a_block_has_to_prove_itself(encoded: bytes, valid: bool) -> None:
    assert (read_bundles([encoded], inbox()) is not None) == valid


def test_bundles_in_a_block_prove_themselves_only_once_nothing_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """That costs a quorum of signatures each."""
    looked_at, is_valid = list[CertifiedBundle](), CertifiedBundle.is_valid

    def look(certified: CertifiedBundle, electorate: Electorate) -> bool:
        looked_at.append(certified)
        return is_valid(certified, electorate)

    monkeypatch.setattr(CertifiedBundle, "is_valid", look)
    many = [bundle(sequence, 0, *[VOTE] * MAX_BLOCK_RECORDS) for sequence in (1, 2)]
    for wrong in ([bundle(), bundle()], [bundle(), of_shard(7)], many):
        assert read_bundles(list(map(encode, wrong)), inbox()) is None
    assert looked_at == []
    assert read_bundles([encode(bundle()), encode(bundle(2))], inbox()) is not None
    assert len(looked_at) == 2


def accepted(*bundles: CertifiedBundle) -> bool:
    """Whether a voter accepts them together in one block."""
    block = Block(SHARD.genesis, tuple(map(encode, bundles)), ())
    return read_payload(block, Mempool(), inbox(), NETWORK.genesis.parameters) is not None


def weighing(size: int, sequence: int) -> CertifiedBundle:
    """A bundle that takes exactly ``size`` bytes."""
    proof = next(n for n in count(size, -1) if len(encode(bundle(sequence, 0, Prepare(bytes(n), 0)))) <= size)
    return bundle(sequence, 0, Prepare(bytes(proof), 0))


@pytest.mark.long
def test_several_bundles_share_a_block_up_to_its_limits_and_one_goes_in_whatever_its_size() -> None:
    half = MAX_BLOCK_RECORDS // 2
    assert accepted(bundle(1, 0, *[VOTE] * half), bundle(2, 0, *[VOTE] * half))
    assert not accepted(bundle(1, 0, *[VOTE] * half), bundle(2, 0, *[VOTE] * (half + 1)))
    assert accepted(bundle(1, 0, *[VOTE] * (MAX_BLOCK_RECORDS + 1)))
    part = MAX_BLOCK_PAYLOAD_BYTES // 2
    assert accepted(weighing(part, 1), weighing(part, 2))
    assert not accepted(weighing(part, 1), weighing(part + 1, 2))
    assert accepted(weighing(2 * part + 1, 1))


def test_bundles_of_a_source_are_bounded_in_bytes_and_the_next_one_is_always_kept() -> None:
    box, size = inbox(), MAX_CHANNEL_BYTES // 4
    large = [bundle(sequence, 0, Prepare(bytes(size), 1)) for sequence in range(1, 7)]
    kept = [box.receive(certified, 0) is not None for certified in reversed(large[1:])]
    assert kept == [True, True, True, False, False]
    assert box.receive(large[0], 0), "it is the next"
    assert not box.receive(large[1], 0)
    box.prune(1, 1)
    assert box.receive(large[1], 1), "now this one is"
