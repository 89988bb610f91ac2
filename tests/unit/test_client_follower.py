"""Following a chain that is lost in parts, out of order, forged, forked, or nonsense that a captured committee has certified."""

import pytest
from msgspec import structs

from node.client.blocks import ProvenBlock, prove_block, read_block
from node.client.follower import BATCH, MAX_AHEAD, REORDERING, STALL, Ask, Follower
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import encode
from node.protocol.queries import GetBlocks
from tests.chains import Network

NETWORK = Network()
ELECTORATE = NETWORK.document.electorates[0]


def proven(certified: CertifiedBlock) -> ProvenBlock:
    block = read_block(encode(certified), ELECTORATE)
    assert block is not None
    return block


@pytest.fixture(scope="module")
def chain() -> list[ProvenBlock]:
    """Ten blocks; the first five with a transaction each."""
    network = Network()
    shard = network.shards[0]
    for _ in range(5):
        shard.add(network.pay(network.person(0), network.person(0, 1), 1))
    for _ in range(5):
        shard.add()
    return [proven(certified) for certified in shard.chain]


def heights(blocks: tuple[ProvenBlock, ...]) -> list[int]:
    return [block.header.height for block in blocks]


def caught_up(blocks: list[ProvenBlock]) -> Follower:
    """A follower that has taken in these and knows of no more, at time 0."""
    follower = Follower(ELECTORATE)
    follower.answered(blocks, 0.0)
    assert follower.height == len(blocks)
    return follower


def test_published_blocks_follow_in_order(chain: list[ProvenBlock]) -> None:
    follower = Follower(ELECTORATE)
    assert heights(follower.published(chain[:2], 0.0).blocks) == [1, 2]
    assert heights(follower.published([chain[1], chain[2]], 0.1).blocks) == [3]
    assert (follower.height, follower.hash, follower.caught_up) == (3, chain[2].hash, True)


def test_a_block_that_comes_late_lets_those_after_it_follow(chain: list[ProvenBlock]) -> None:
    follower = Follower(ELECTORATE)
    assert follower.published([chain[3], chain[1], chain[2]], 0.0).blocks == ()
    assert heights(follower.published([chain[0]], 0.0).blocks) == [1, 2, 3, 4]


def test_what_is_not_proven_is_refused(chain: list[ProvenBlock]) -> None:
    certified = chain[0].certified
    other_payload = structs.replace(certified, block=structs.replace(certified.block, transactions=()))
    other_effects = structs.replace(certified, effects=structs.replace(certified.effects, receipts=()))
    foreign = NETWORK.shards[1].forge()
    bodies = [b"", b"junk", encode(other_payload), encode(other_effects), encode(foreign)]
    follower = Follower(ELECTORATE)
    progress = follower.published([read_block(body, ELECTORATE) for body in bodies], 0.0)
    assert progress.blocks == ()
    assert follower.refused == len(bodies)
    assert len(progress.notables) == 1


def test_it_asks_first_then_member_after_member_until_f_plus_1_in_a_row_have_nothing(chain: list[ProvenBlock]) -> None:
    follower = Follower(ELECTORATE)
    assert follower.ask(100.0) == Ask(0, GetBlocks(1, BATCH))
    assert heights(follower.answered(chain[:3], 100.0).blocks) == [1, 2, 3]
    assert follower.ask(100.0) == Ask(1, GetBlocks(4, BATCH))
    follower.answered([], 100.0)
    assert follower.ask(100.0) == Ask(2, GetBlocks(4, BATCH))
    follower.answered(chain[3:5], 100.0)
    for member in (3, 0):
        assert not follower.caught_up
        assert follower.ask(100.0) == Ask(member, GetBlocks(6, BATCH))
        follower.answered([], 100.0)
    assert follower.caught_up
    assert follower.ask(100.0) is None
    assert follower.due == 100.0 + STALL


def test_silence_is_no_end_of_the_chain() -> None:
    follower = Follower(ELECTORATE)
    while follower.ask(0.0):
        follower.answered(None, 0.0)
    assert not follower.caught_up
    assert follower.ask(STALL - 0.01) is None
    assert follower.ask(STALL) is not None


def test_a_gap_is_asked_for_after_a_moment_and_again_while_it_lasts(chain: list[ProvenBlock]) -> None:
    follower = caught_up(chain[:2])
    while follower.ask(0.0):
        follower.answered([], 0.0)
    follower.published([chain[3]], 1.0)
    assert follower.ask(1.0) is None
    assert follower.due == 1.0 + REORDERING
    for begun in (1.0 + REORDERING, 2.0 + STALL):
        for _ in range(ELECTORATE.faults_tolerated + 1):
            asked = follower.ask(begun)
            assert asked is not None
            assert asked.request.first == 3
            follower.answered([], 2.0)
        assert follower.due == 2.0 + STALL, "members are not asked again and again for what nobody has"
    assert heights(follower.published([chain[2]], 3.0).blocks) == [3, 4]
    assert follower.due == 3.0 + STALL
    follower.published([chain[5]], 3.1)
    assert follower.due == 3.1 + REORDERING, "what is missing now may well be there"


def test_a_gap_too_wide_to_keep_what_is_behind_it_is_asked_for_too() -> None:
    shard = Network().shards[0]
    for _ in range(MAX_AHEAD + 5):
        shard.add()
    blocks = [proven(certified) for certified in shard.chain]
    follower = caught_up(blocks[:2])
    while follower.ask(0.0):
        follower.answered([], 0.0)
    follower.published([blocks[-1]], 0.5)
    asked = follower.ask(0.5 + REORDERING)
    assert asked is not None
    assert asked.request.first == 3
    for block in blocks[3:]:
        follower.published([block], 0.6)
    assert heights(follower.answered([blocks[2]], 1.0).blocks) == list(range(3, 3 + MAX_AHEAD))
    assert heights(follower.answered(blocks[follower.height :], 1.0).blocks)[-1] == len(blocks)


def test_a_follower_that_starts_now_begins_with_the_first_block_it_sees(chain: list[ProvenBlock]) -> None:
    follower = Follower(ELECTORATE, from_now=True)
    assert follower.ask(1e9) is None
    assert heights(follower.published([chain[4]], 0.0).blocks) == [5]
    assert heights(follower.published([chain[3], chain[5]], 0.0).blocks) == [6]
    assert follower.published([chain[7]], 0.0).blocks == ()
    asked = follower.ask(1.0)
    assert asked is not None
    assert asked.request.first == 7


def test_one_that_goes_on_takes_only_what_links(chain: list[ProvenBlock]) -> None:
    follower = Follower(ELECTORATE, chain[4].header.height, chain[4].hash)
    assert heights(follower.published([chain[5]], 0.0).blocks) == [6]
    follower = Follower(ELECTORATE, 5, b"\x01" * 32)
    assert follower.published([chain[5]], 0.0).blocks == ()
    assert follower.forks == 1


def test_a_second_certified_chain_is_told_once_and_the_first_one_goes_on(chain: list[ProvenBlock]) -> None:
    other = prove_block(NETWORK.shards[0].forge(chain[3].certified, parent=b"\x07" * 32), ELECTORATE)
    follower = caught_up(chain[:3])
    first = follower.published([other], 0.0)
    assert first.blocks == ()
    assert len(first.notables) == 1
    assert follower.published([other], 0.0).notables == ()
    assert heights(follower.published([chain[3], chain[4]], 0.0).blocks) == [4, 5]
    late = prove_block(NETWORK.shards[0].forge(chain[2].certified, state_root=b"\x08" * 32), ELECTORATE)
    assert len(follower.published([late], 0.0).notables) == 1
    assert follower.forks == 3
    assert follower.height == 5


def test_a_false_block_waiting_ahead_does_not_keep_the_true_one_out(chain: list[ProvenBlock]) -> None:
    other = prove_block(NETWORK.shards[0].forge(chain[4].certified, parent=b"\x07" * 32), ELECTORATE)
    follower = caught_up(chain[:3])
    follower.published([other], 0.0)
    assert heights(follower.published([chain[3]], 0.0).blocks) == [4]
    assert follower.forks == 1
    assert heights(follower.answered([chain[4]], 0.0).blocks) == [5]


def test_nonsense_that_a_quorum_certified_is_told_counted_and_followed(chain: list[ProvenBlock]) -> None:
    shard = NETWORK.shards[0]
    network = Network()
    prepare = network.pay(network.person(1), network.person(0), 1)
    garbage = shard.forge(
        transactions=[b"", b"\x00", encode(prepare)[:-1], encode(prepare)], bundles=[b"", b"junk", encode([1, 2, 3])]
    )
    follower = Follower(ELECTORATE)
    progress = follower.published([proven(garbage)], 0.0)
    assert heights(progress.blocks) == [1]
    assert progress.blocks[0].transactions == (prepare,)
    assert progress.blocks[0].unreadable == 6
    late, parent = garbage.block.header.time + 2**50, garbage.block.header.hash
    second = shard.forge(height=2, parent=parent, time=late, proposer=77)
    third = shard.forge(height=3, parent=second.block.header.hash, time=late - 1)
    progress = follower.published([proven(second), proven(third)], 0.0)
    assert heights(progress.blocks) == [2, 3]
    assert len(progress.notables) == 2
    assert follower.nonsense == 3


def test_what_other_shards_ask_to_prepare_is_read_from_bundles() -> None:
    network = Network()
    payer, payee = network.person(0), network.person(1)
    issuer = network.issuers["USD"]
    network.fund(payer, 10)
    payment = network.pay(payer, payee, 3)
    before = network.shards[0].head.height
    network.shards[0].add(payment)
    network.exchange()
    blocks = [prove_block(certified, network.document.electorates[1]) for certified in network.shards[1].chain]
    prepared = [seen for block in blocks if block for seen in block.incoming if seen.transaction == payment]
    assert [(seen.source, seen.height) for seen in prepared] == [(0, before + 1)]
    assert issuer.public != payer.public
