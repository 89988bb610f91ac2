"""What ``docs/protocol.md`` says of proposals and of what is due: each test gives one member one thing that breaks one rule."""

from typing import Any

import pytest
from msgspec import structs

from node.consensus.simplex import Diverged
from node.effects import Effect, Mine
from node.protocol.block import Block
from node.protocol.certificate import FinalBlock, Finality, VoteKind
from node.protocol.codec import encode
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES
from node.protocol.messages import ChainReply, Standing
from node.protocol.puzzle import search
from node.protocol.transaction import Transaction, Witness
from tests.chains import Network, Shard, key, leg
from tests.unit.replicas import at, checks, hear, proposals, replica_of, signed, votes

LEADER, VOTER = 1, 0
NETWORK = Network(committees=1, block_difficulty_bits=8, block_transactions=100)
LARGE = Network(committees=1, block_transactions=2_000)


def mined(block: Block, is_solved: bool = True) -> Block:
    """The block with the first nonce that does, or does not, solve its puzzle."""
    prefix = block.header.mining_prefix
    nonces = (i.to_bytes(8, "big") for i in range(1 << 20))
    nonce = next(nonce for nonce in nonces if (search(prefix, 8, int.from_bytes(nonce, "big"), 1) is not None) == is_solved)
    return structs.replace(block, header=structs.replace(block.header, nonce=nonce))


BLOCK = NETWORK.shards[0].build(after=1_000).block


def changed(**header: Any) -> Block:
    return mined(structs.replace(BLOCK, header=structs.replace(BLOCK.header, **header)))


def filled(shard: Shard, *transactions: bytes) -> Block:
    """A block with these transactions, whose roots and signatures nobody has looked at."""
    block = shard.build(after=1_000).block
    header = structs.replace(block.header, payload_root=structs.replace(block, transactions=transactions).payload_root())
    return shard.mined(Block(header, (), transactions))


def unsigned(network: Network, count: int, legs: int = 1) -> list[bytes]:
    issuer = network.issuers["USD"]
    one = network.sign([issuer], *[leg(issuer, key("payee"), "USD", 1)] * legs).order
    orders = [structs.replace(one, salt=i.to_bytes(8, "big")) for i in range(count)]
    return [encode(Transaction(order, (Witness(issuer.public, bytes(64)),))) for order in orders]


def answer(block: Block, network: Network = NETWORK) -> list[Effect]:
    voter = replica_of(network, VOTER)
    voter.start(at(0))
    return hear(voter, signed(network.shards[0], block), block, 1_010)


GIVEN_UP = [VoteKind.NULLIFY]


@pytest.mark.parametrize(
    ("block", "answered"),
    [
        (BLOCK, [VoteKind.NOTARIZE]),
        (mined(BLOCK, is_solved=False), GIVEN_UP),
        (changed(document=bytes(32)), GIVEN_UP),
        (changed(shard=1), GIVEN_UP),
        (changed(height=2), GIVEN_UP),
        (changed(state_root=b"x" * 32), GIVEN_UP),
        (changed(proposer=2), []),
    ],
    ids=["good", "without work", "another document", "another shard", "another height", "wrong roots", "not led"],
)
def test_a_proposal_is_voted_for_given_up_or_ignored(block: Block, answered: list[VoteKind]) -> None:
    assert votes(answer(block)) == answered


def test_what_the_leader_makes_is_voted_for() -> None:
    leader = replica_of(NETWORK, LEADER)
    leader.start(at(0))
    (mine,) = [effect for effect in leader.on_tick(at(1_000)) if isinstance(effect, Mine)]
    nonce = search(mine.prefix, mine.bits, 0, 1 << 20)
    assert nonce is not None
    (proposal,) = proposals(leader.on_mined(mine.token, nonce, at(1_001)))
    block = leader.consensus.body(proposal.vote.block)
    assert block is not None
    assert votes(answer(block)) == [VoteKind.NOTARIZE]


@pytest.mark.parametrize(
    ("network", "legs", "most"),
    [(NETWORK, 1, 100), (LARGE, 16, MAX_BLOCK_PAYLOAD_BYTES // len(unsigned(LARGE, 1, 16)[0]))],
    ids=["transactions", "bytes"],
)
def test_a_block_of_too_much_is_given_up_unchecked(network: Network, legs: int, most: int) -> None:
    transactions = unsigned(network, most + 1, legs)
    assert checks(answer(filled(network.shards[0], *transactions[:most]), network=network))
    effects = answer(filled(network.shards[0], *transactions), network=network)
    assert (votes(effects), checks(effects)) == (GIVEN_UP, [])


@pytest.mark.parametrize("is_solved", [True, False])
def test_a_final_block_without_its_work_is_not_executed(is_solved: bool) -> None:
    """A captured committee could certify it; nobody else believes it."""
    shard, replica = NETWORK.shards[0], replica_of(NETWORK, VOTER)
    block = mined(BLOCK, is_solved)
    final = FinalBlock(block, Finality((), shard.certificate(VoteKind.FINALIZE, block.header.view, block.header.hash)))
    peer = shard.electorate.keys[LEADER]
    replica.on_message(peer, Standing(10, 1), at(1_010))
    if is_solved:
        replica.on_message(peer, ChainReply((final,)), at(1_011))
        assert replica.state.height == 1
    else:
        with pytest.raises(Diverged):
            replica.on_message(peer, ChainReply((final,)), at(1_011))
