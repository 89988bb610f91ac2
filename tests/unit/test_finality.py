"""Proofs that a block is final: one path for each, short however far the certificate is, and links that lead down by skips."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from node.consensus.tree import Tree, Verdict
from node.effects import Commit
from node.protocol.block import Block, Header, skip_height
from node.protocol.certificate import FinalBlock, Finality, VoteKind, path_heights
from node.protocol.channel import CertifiedBundle, Prepare
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import (
    MAX_BLOCK_PAYLOAD_BYTES,
    MAX_BUNDLE_BYTES,
    MAX_FINALITY_PATH,
    MAX_FRAME_BYTES,
    MAX_LEGS,
    MAX_MEMO_BYTES,
)
from node.protocol.messages import BundleDelivery, Certified, ChainReply, PeerMessage
from node.recovery import recover
from node.storage import Storage
from tests.chains import Network, leg
from tests.unit.replicas import at, checks, forge_bundle, hear, proposals, replica_of, signed, take_in, votes

NETWORK = Network()
SHARD = NETWORK.shard_of(NETWORK.issuers["USD"])
SOURCE = NETWORK.shards[1 - SHARD.number]
LENGTH = 1_100


def linked(headers: list[Header], view: int) -> list[Header]:
    """One more header, with the links it must have."""
    height = len(headers)
    links = {"parent": headers[-1].hash, "skip": headers[skip_height(height)].hash}
    place = {"document": SHARD.electorate.document, "view": view, "height": height}
    return [*headers, structs.replace(headers[0], **links, **place)]


def chain() -> list[Header]:
    headers = [SHARD.genesis]
    for height in range(1, LENGTH):
        headers[:] = linked(headers, height)
    return headers


CHAIN = chain()


def proof(heights: Sequence[int]) -> Finality:
    """By the certificate of the last of these."""
    top = CHAIN[heights[-1]]
    return Finality(tuple(CHAIN[height] for height in heights), SHARD.certificate(VoteKind.FINALIZE, top.view, top.hash))


def proves(low: int, heights: Sequence[int]) -> bool:
    return proof(heights).proves(CHAIN[low], SHARD.electorate)


# -- the form of a proof ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, LENGTH - 2), st.data())
def test_a_block_is_proven_by_one_path_and_by_no_other(low: int, data: st.DataObject) -> None:
    high = data.draw(st.integers(low + 1, LENGTH - 1))
    path = path_heights(low, high)
    assert proves(low, path)
    others = sorted(set(range(low + 1, high)) - set(path))
    for more in data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=3)) if others else ():
        assert not proves(low, sorted({*path, more}))
    for less in path[:-1]:
        assert not proves(low, [height for height in path if height != less])


@pytest.mark.parametrize("base", [0, 2**20, 2**52], ids=["near genesis", "across 2^20", "across 2^52"])
def test_no_path_to_a_block_less_than_2_to_the_k_higher_has_more_than_k_times_k_plus_1_halves(base: int) -> None:
    """All pairs for k up to 8."""
    longest = [0] * 9
    for low in range(max(0, base - 256), base + 256):
        for distance in range(1, 256):
            k = distance.bit_length()
            longest[k] = max(longest[k], len(path_heights(low, low + distance)))
    assert longest == list(accumulate(range(9)))
    assert sum(range(32)) <= MAX_FINALITY_PATH


@settings(max_examples=500)
@given(st.integers(0, 2**53), st.integers(1, 2**20 - 1))
def test_no_honest_proof_is_too_long(high: int, distance: int) -> None:
    assert len(path_heights(max(0, high - distance), high)) <= 210 < MAX_FINALITY_PATH


def test_a_needlessly_long_proof_is_none_and_cannot_even_be_read() -> None:
    assert not proves(1, range(2, 500))
    assert proves(1, path_heights(1, 499))
    with pytest.raises(DecodeError):
        decode(Finality, encode(proof(range(2, MAX_FINALITY_PATH + 3))), MAX_FRAME_BYTES)


def test_the_largest_proof_leaves_room_for_the_bundle() -> None:
    assert len(encode(proof(range(1, MAX_FINALITY_PATH + 1)))) < MAX_BUNDLE_BYTES // 16


# -- links -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 40))
def test_the_tree_knows_where_the_next_block_skips_to(finalized: list[int], ahead: int) -> None:
    """However many blocks became final at once, and however many are not yet."""
    tree: Tree[str] = Tree(CHAIN[0], {0: CHAIN[0].hash})
    height = 0

    def grow(to: int) -> None:
        for header in CHAIN[tree.root.height + 1 : to + 1]:
            tree.add(header.hash, Block(header, (), ())).verdict = Verdict.VALID

    for step in finalized:
        grow(height := height + step)
        tree.prune(CHAIN[height])
    grow(height + ahead)
    for low in range(height, height + ahead + 1):
        assert tree.skip_after(CHAIN[low].hash) == CHAIN[skip_height(low + 1)].hash


def test_a_block_with_a_wrong_skip_gets_no_vote() -> None:
    """Of height 2: its parent's hash instead of the genesis'."""
    network = Network(committees=1)
    shard = network.shards[0]
    first = shard.add().block
    second = shard.build().block
    for skip, vote in ((second.header.skip, VoteKind.NOTARIZE), (second.header.parent, VoteKind.NULLIFY)):
        replica, peers = replica_of(network, 0), shard.electorate.keys
        replica.on_message(peers[1], signed(shard, first), at(1))
        notarized = shard.certificate(VoteKind.NOTARIZE, 1, first.header.hash)
        replica.on_message(peers[1], Certified((notarized,)), at(2))
        block = structs.replace(second, header=structs.replace(second.header, skip=skip))
        proposal = structs.replace(signed(shard, block), notarization=notarized)
        assert votes(replica.on_message(peers[2], proposal, at(3))) == [vote]


# -- the largest that can be -----------------------------------------------------------------------------------------------


def weighing(size: int) -> CertifiedBundle:
    """A bundle that takes exactly ``size`` bytes; its one record is no transaction, so it has no effect."""
    excess = len(encode(forge_bundle(SOURCE, SHARD.number, 1, (Prepare(bytes(size), 0),)))) - size
    certified = forge_bundle(SOURCE, SHARD.number, 1, (Prepare(bytes(size - excess), 0),))
    assert len(encode(certified)) == size
    return certified


def test_the_largest_block_is_proposed_sent_committed_and_read_back_after_a_restart(tmp_path: Path) -> None:
    """As much as a block can hold of both: a bundle of its own, and a MiB of payments."""
    leader, voter = (replica_of(NETWORK, member, number=SHARD.number) for member in (1, 2))
    delivery = leader.inbox.receive(weighing(MAX_BUNDLE_BYTES), 0)
    assert delivery is not None
    leader.inbox.settle(delivery, {})
    issuer, payee = NETWORK.issuers["USD"], NETWORK.person(SHARD.number)
    legs = [leg(issuer, payee, "USD", 1)] * MAX_LEGS
    largest = len(encode(NETWORK.sign([issuer], *legs, memo="m" * MAX_MEMO_BYTES)))
    for _ in range(MAX_BLOCK_PAYLOAD_BYTES // largest + 1):
        take_in(leader, NETWORK.sign([issuer], *legs, memo="m" * MAX_MEMO_BYTES))
    (proposal,) = proposals(leader.on_tick(at(110)))
    block = leader.consensus.body(proposal.vote.block)
    assert block is not None
    assert sum(map(len, block.transactions)) > MAX_BLOCK_PAYLOAD_BYTES - largest
    assert len(block.bundles[0]) == MAX_BUNDLE_BYTES
    message: Any = PeerMessage
    received = decode(message, encode(proposal), MAX_FRAME_BYTES)
    effects = hear(voter, received, block, 61)
    for check in checks(effects):
        effects += voter.on_signatures_checked(check.token, [True] * len(check.transactions), at(112))
    assert votes(effects) == [VoteKind.NOTARIZE]
    final = SHARD.certificate(VoteKind.FINALIZE, 1, block.header.hash)
    stored = voter.on_message(SHARD.electorate.keys[1], Certified((final,)), at(113))
    storage = Storage(tmp_path / "node.db", NETWORK.genesis.network)
    storage.write([effect for effect in stored if isinstance(effect, Commit)])
    reply = ChainReply((FinalBlock(block, Finality((), final)),))
    assert decode(message, encode(reply), MAX_FRAME_BYTES) == reply, "who was away gets it in one frame"
    recovered = recover(storage, SHARD.rules, SHARD.electorate)
    assert (recovered.state.height, recovered.state.cursor(SOURCE.number)) == (1, 1)


def test_a_bundle_too_large_for_a_block_is_not_kept() -> None:
    for size, kept in ((MAX_BUNDLE_BYTES, True), (MAX_BUNDLE_BYTES + 1, False)):
        replica = replica_of(NETWORK, 1, number=SHARD.number)
        replica.on_message(SOURCE.electorate.keys[0], BundleDelivery(weighing(size)), at(1))
        assert (replica.inbox.next(SOURCE.number, 0) is not None) is kept
