"""What a replica adds to consensus and ledger: what it refuses, whom it believes, what it counts."""

import pytest
from msgspec import structs

from node.effects import Broadcast, Checkpoint, Commit, Effect, Publish, Send
from node.events import Instant
from node.protocol.certificate import FinalBlock, VoteKind, sign_vote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.messages import Ballot, BundleDelivery, Certified, ChainReply, Proposal, Standing
from node.protocol.queries import GetStatus, Query
from node.protocol.transaction import Transaction
from node.replica.observer import LAG
from node.replica.replica import Replica
from tests.chains import TIME, Network, key
from tests.unit.replicas import (
    at,
    checks,
    hear,
    make_final,
    proposals,
    refusals,
    replica_of,
    settle,
    signed,
    take_in,
    votes,
)

NETWORK = Network(committees=1)
SHARD, PARAMETERS = NETWORK.shards[0], NETWORK.genesis.parameters
PEERS = SHARD.electorate.keys
ELSEWHERE = Network("elsewhere", committees=1)


def payment(network: Network = NETWORK, valid_for: int = 60_000, salt: int = 0) -> Transaction:
    return network.pay(network.issuers["USD"], key("payee"), 5, valid_until=TIME + valid_for, salt=salt)


def led(replica: Replica, now: int = 60) -> Proposal:
    (proposal,) = proposals(replica.on_tick(at(now)))
    return proposal


def standings(effects: list[Effect]) -> int:
    return sum(isinstance(effect, Broadcast) and isinstance(effect.message, Standing) for effect in effects)


def test_a_member_says_how_far_it_is_with_what_it_sends_to_all_or_alone_half_a_heartbeat_late() -> None:
    """Each message of its own wakes all members once more."""
    leader, voter, deaf = (replica_of(NETWORK, member) for member in (1, 0, 2))
    heartbeat = PARAMETERS.heartbeat
    assert [standings(replica.start(at(0))) for replica in (leader, voter, deaf)] == [1, 1, 1]
    effects = leader.on_tick(at(heartbeat))
    (proposal,) = proposals(effects)
    assert standings(effects) == 1
    assert standings(voter.on_tick(at(heartbeat))) == 0
    effects = voter.on_message(PEERS[1], proposal, at(heartbeat + 1))
    assert (votes(effects), standings(effects)) == ([VoteKind.NOTARIZE], 1)
    assert standings(voter.on_message(PEERS[1], proposal, at(heartbeat + 2))) == 0
    late = heartbeat + heartbeat // 2
    assert standings(deaf.on_tick(at(late - 1))) == 0
    assert deaf.deadline <= late
    assert standings(deaf.on_tick(at(late))) == 1


@pytest.mark.parametrize(
    ("transaction", "code"),
    [
        (payment(ELSEWHERE), Code.WRONG_NETWORK),
        (payment(valid_for=-1), Code.EXPIRED),
        (payment(valid_for=10_000_000), Code.LIMIT_EXCEEDED),
        (structs.replace(payment(), witnesses=payment(salt=1).witnesses), Code.BAD_SIGNATURE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_inadmissible_transaction_is_refused_with_its_code(transaction: Transaction, code: Code) -> None:
    replica = replica_of(NETWORK, 0)
    effects = take_in(replica, transaction)
    assert refusals(replica, effects) == [code]
    assert len(checks(effects)) == (code is Code.BAD_SIGNATURE)
    assert len(replica.mempool) == 0


def test_bytes_that_are_no_transaction_are_refused_as_malformed() -> None:
    replica = replica_of(NETWORK, 0)
    assert refusals(replica, replica.on_transactions([encode(payment()) + b"\x00"], at(1))) == [Code.MALFORMED]


def test_a_resent_transaction_is_checked_once() -> None:
    replica, encoded = replica_of(NETWORK, 0), encode(payment())
    (check,) = checks(replica.on_transactions([encoded, encoded], at(1)))
    assert len(check.transactions) == 1
    assert not checks(replica.on_transactions([encoded], at(2)))


def test_what_became_final_while_it_was_checked_does_not_wait_for_a_block() -> None:
    network = Network(committees=1)
    shard = network.shards[0]
    paid = payment(network)
    replica, block = replica_of(network, 0), shard.build([paid]).block
    (of_client,) = checks(replica.on_transactions([encode(paid)], at(1)))
    effects = hear(replica, signed(shard, block), block, 2)
    settle(replica, effects, 3)
    final = shard.certificate(VoteKind.FINALIZE, 1, block.header.hash)
    replica.on_message(PEERS[2], Certified((final,)), at(4))
    assert replica.state.height == 1
    replica.on_signatures_checked(of_client.token, [True], at(5))
    assert len(replica.mempool) == 0


def test_what_another_member_passes_on_is_ignored() -> None:
    """A vote, and a proposal: who sends it must have signed it. Outsiders are not heard at all."""
    leader, voter, passive = replica_of(NETWORK, 1), replica_of(NETWORK, 0), replica_of(NETWORK, 3)
    take_in(leader, payment())
    proposal = led(leader)
    voter.on_tick(at(60))
    for peer in (PEERS[2], key("stranger").public):
        effects = passive.on_message(peer, proposal, at(61))
        assert (votes(effects), checks(effects)) == ([], [])
        for signer in (1, 3):
            vote = sign_vote(SHARD.members[signer], signer, SHARD.electorate, VoteKind.NULLIFY, 1, bytes(32))
            voter.on_message(peer, Ballot(vote), at(61))
    voter.on_tick(at(voter.deadline + 10_000))
    assert voter.consensus.view == 1, "own vote and two that were passed on make no quorum"


def test_a_proposal_from_the_future_is_refused_at_once() -> None:
    """A leader whose clock is minutes ahead costs its committee a round trip, not a timeout."""
    leader, voter = replica_of(NETWORK, 1), replica_of(NETWORK, 0)
    heartbeat = PARAMETERS.heartbeat
    (proposal,) = proposals(leader.on_tick(Instant(heartbeat, TIME + 600_000)))
    assert votes(voter.on_message(PEERS[1], proposal, at(heartbeat))) == [VoteKind.NULLIFY]


def test_a_proposal_is_checked_however_many_client_batches_wait() -> None:
    leader, voter = replica_of(NETWORK, 1), replica_of(NETWORK, 0)
    take_in(leader, payment())
    for salt in range(1, 100):
        voter.on_transactions([encode(payment(salt=salt))], at(1))
    proposal = led(leader)
    block = leader.consensus.body(proposal.vote.block)
    assert block is not None
    (check,) = checks(hear(voter, proposal, block, 60))
    assert check.urgent
    effects = voter.on_signatures_checked(check.token, [False], at(61))
    assert votes(effects) == [VoteKind.NULLIFY], "one signature is not valid"


def test_of_one_view_two_proposals_are_checked_at_once() -> None:
    voter = replica_of(NETWORK, 0)
    blocks = [SHARD.build([payment(salt=salt)]).block for salt in range(3)]
    asked = [checks(hear(voter, signed(SHARD, block), block, 60)) for block in blocks]
    assert [len(found) for found in asked] == [1, 1, 0]


def test_final_blocks_nobody_asked_for_are_ignored() -> None:
    network, asked = Network(committees=1), []
    certified = network.shards[0].add()
    for claim in (0, 10):
        replica = replica_of(network, 0)
        replica.on_message(PEERS[1], Standing(claim, 1), at(1))
        replica.on_message(PEERS[1], ChainReply((FinalBlock(certified.block, certified.finality),)), at(2))
        asked.append(replica.state.height)
    assert asked == [0, 1]


def test_a_question_to_another_member_is_not_answered() -> None:
    replica = replica_of(NETWORK, 0)
    answers = [replica.on_query(Query(bytes(16), "client", member, GetStatus()), at(1)) for member in (-1, 0, 1)]
    assert [bool(effects) for effects in answers] == [True, True, False]


def test_a_member_tells_its_standing_to_who_connects() -> None:
    replica = replica_of(NETWORK, 0)
    replica.start(at(0))
    (told,) = replica.on_peer_up(PEERS[2], at(1))
    assert isinstance(told, Send)
    assert (told.peer, told.message) == (PEERS[2], Standing(0, 1))
    assert replica.on_peer_up(key("stranger").public, at(2)) == []


def test_a_final_block_is_stored_published_by_its_proposer_and_what_it_took_is_forgotten() -> None:
    network = Network(committees=3)
    home, there = (network.shard_of(network.issuers[asset]) for asset in ("USD", "VND"))
    payee = network.person(there.number)
    home.add(network.pay(network.issuers["USD"], payee, 5))
    transaction = network.pay(network.issuers["VND"], payee, 1, "VND")
    there.add(transaction, bundles=home.outboxes[0])
    for _ in range(3):
        there.add()
    published, (bundle,) = [], home.outboxes[0]
    for member in range(4):
        replica = replica_of(network, member, number=there.number)
        take_in(replica, transaction)
        replica.on_message(home.electorate.keys[0], BundleDelivery(bundle), at(1))
        assert (len(replica.mempool), replica.inbox.holds(home.number, 1)) == (1, True)
        effects = make_final(replica, there, 500)
        assert (len(replica.mempool), replica.inbox.holds(home.number, 1)) == (0, False)
        assert [e.height for e in effects if isinstance(e, Commit)] == [1, 2, 3, 4]
        assert [(e.height, e.certified_at) for e in effects if isinstance(e, Checkpoint)] == [(0, None)] * 4
        published.append([e.body for e in effects if isinstance(e, Publish)])
    assert published == [[encode(c) for c in there.chain if c.block.header.proposer == member] for member in range(4)]


def test_it_is_current_when_a_quorum_is_hardly_ahead_whatever_one_of_them_says() -> None:
    """Else one liar in each committee would have nobody ready for the next epoch."""
    replica = replica_of(NETWORK, 0)
    for peer, height, is_current in ((PEERS[1], 1 << 40, False), (PEERS[2], LAG, True), (PEERS[3], LAG, True)):
        replica.on_message(peer, Standing(height, 0), at(1))
        assert replica.is_current == is_current
    replica.on_message(PEERS[2], Standing(LAG + 1, 0), at(2))
    assert not replica.is_current
