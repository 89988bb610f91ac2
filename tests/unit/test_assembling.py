"""Proposals put together from the mempool, what clients bring, and what the leader sends."""

from collections.abc import Sequence

import pytest
from msgspec import structs

from node.effects import Ban, Effect, Journal, Send
from node.protocol.block import Block
from node.protocol.certificate import VoteKind
from node.protocol.codec import encode
from node.protocol.messages import BodyReply, BodyRequest, Certified, TransactionsReply, TransactionsRequest
from node.protocol.transaction import Transaction
from node.replica.assembling import Assembled, Assembling
from node.replica.mempool import Mempool, read_pooled
from node.replica.replica import Replica
from tests.chains import Network, key
from tests.simulation.adversary import sign_again
from tests.unit.replicas import asked, at, checks, replica_of, settle, signed, take_in, votes

NETWORK = Network(committees=1)
SHARD, USD = NETWORK.shards[0], NETWORK.issuers["USD"]
LEADER, OTHER = SHARD.electorate.keys[1], SHARD.electorate.keys[2]
PAYMENTS = [NETWORK.pay(USD, key("payee"), 5, salt=salt) for salt in range(3)]
ENCODED = [encode(payment) for payment in PAYMENTS]
BLOCK = SHARD.build(PAYMENTS).block
HASH = BLOCK.header.hash
ANOTHER = NETWORK.pay(USD, key("payee"), 6)


def again(payment: Transaction) -> bytes:
    """The same order, signed by the same payer with another nonce: the same id."""
    signature = sign_again(USD, payment.id, b"n" * 32)
    found = Transaction(payment.order, (structs.replace(payment.witnesses[0], signature=signature),))
    assert found.has_valid_signatures()
    assert found != payment
    return encode(found)


def voter(*known: Transaction) -> Replica:
    replica = replica_of(NETWORK, 0)
    for transaction in known:
        take_in(replica, transaction)
    return replica


def hears(replica: Replica, block: Block = BLOCK) -> list[Effect]:
    return replica.on_message(LEADER, signed(SHARD, block), at(10))


def answered(replica: Replica, transactions: Sequence[bytes], peer: bytes = LEADER) -> list[Effect]:
    return replica.on_message(peer, TransactionsReply(HASH, tuple(transactions)), at(11))


def banned(effects: Sequence[Effect]) -> list[bytes]:
    return [effect.peer for effect in effects if isinstance(effect, Ban)]


def test_who_has_all_transactions_asks_nobody_and_checks_nothing() -> None:
    effects = hears(voter(*PAYMENTS))
    assert (asked(effects), checks(effects), votes(effects)) == ([], [], [VoteKind.NOTARIZE])


def test_what_is_under_check_is_here() -> None:
    replica = voter(*PAYMENTS[:2])
    replica.on_transactions([ENCODED[2]], at(5))
    effects = hears(replica)
    assert asked(effects) == []
    (check,) = checks(effects)
    assert check.transactions == (PAYMENTS[2],)


def test_the_leader_is_asked_for_what_is_missing_and_only_that_is_checked() -> None:
    replica = voter(PAYMENTS[1])
    effects = hears(replica)
    assert [
        effect.peer for effect in effects if isinstance(effect, Send) and isinstance(effect.message, TransactionsRequest)
    ] == [LEADER]
    assert asked(effects) == [TransactionsRequest(HASH, (0, 2))]
    assert (checks(effects), votes(effects)) == ([], [])
    effects = answered(replica, [ENCODED[0], ENCODED[2]])
    (check,) = checks(effects)
    assert (check.transactions, check.urgent, votes(effects)) == ((PAYMENTS[0], PAYMENTS[2]), True, [])
    assert votes(settle(replica, effects, 12)) == [VoteKind.NOTARIZE]


def test_what_a_client_brings_meanwhile_completes_it() -> None:
    replica = voter(*PAYMENTS[:2])
    assert asked(hears(replica))
    effects = replica.on_transactions([ENCODED[2]], at(11))
    assert votes(settle(replica, effects, 12)) == [VoteKind.NOTARIZE]
    assert answered(replica, [ENCODED[2]]) == [], "the reply to what was asked is nothing to blame"


WRONG = {
    "nothing": [],
    "in another order": [ENCODED[2], ENCODED[0]],
    "another's": [ENCODED[0], encode(ANOTHER)],
    "the same id": [ENCODED[0], again(PAYMENTS[2])],
    "junk": [ENCODED[0], b"junk"],
}


@pytest.mark.parametrize("sent", WRONG.values(), ids=WRONG)
def test_a_leader_that_sends_anything_else_is_dropped_and_its_view_given_up(sent: list[bytes]) -> None:
    replica = voter(PAYMENTS[1])
    hears(replica)
    effects = answered(replica, sent)
    assert (banned(effects), votes(effects)) == ([LEADER], [VoteKind.NULLIFY])
    assert answered(replica, [ENCODED[0], ENCODED[2]]) == [], "it had its chance"


@pytest.mark.parametrize("earlier", [[ENCODED[0]], ENCODED], ids=["less", "more"])
def test_an_answer_to_what_was_asked_before_a_restart_is_taken_and_nobody_is_dropped(earlier: list[bytes]) -> None:
    replica = voter(PAYMENTS[1])
    hears(replica)
    effects = answered(replica, earlier)
    assert banned(effects) == []
    effects += answered(replica, [ENCODED[0], ENCODED[2]])
    assert (banned(effects), votes(settle(replica, effects, 12))) == ([], [VoteKind.NOTARIZE])


def test_a_block_of_what_is_no_transaction_is_given_up() -> None:
    block = structs.replace(BLOCK, transactions=(b"junk",))
    block = SHARD.mined(structs.replace(block, header=structs.replace(BLOCK.header, payload_root=block.payload_root())))
    replica = voter()
    assert asked(hears(replica, block))
    effects = replica.on_message(LEADER, TransactionsReply(block.header.hash, block.transactions), at(11))
    assert (banned(effects), votes(effects)) == ([LEADER], [VoteKind.NULLIFY])


def test_a_witness_that_does_not_sign_is_found_out_in_what_the_leader_sends() -> None:
    spoiled = Transaction(PAYMENTS[0].order, PAYMENTS[1].witnesses)
    block = SHARD.mined(structs.replace(BLOCK, transactions=(encode(spoiled),)))
    block = SHARD.mined(structs.replace(block, header=structs.replace(BLOCK.header, payload_root=block.payload_root())))
    replica = voter(*PAYMENTS)
    assert asked(hears(replica, block)) == [TransactionsRequest(block.header.hash, (0,))], "the id is known, the witness is not"
    effects = replica.on_message(LEADER, TransactionsReply(block.header.hash, block.transactions), at(11))
    assert votes(settle(replica, effects, 12)) == [VoteKind.NULLIFY]


@pytest.mark.parametrize("sent", [[ENCODED[0]], [ENCODED[0], ENCODED[2]]], ids=["wrong", "right"])
def test_what_was_not_asked_of_its_sender_is_ignored(sent: list[bytes]) -> None:
    replica = voter(PAYMENTS[1])
    effects = answered(replica, sent)
    hears(replica)
    effects += answered(replica, sent, OTHER)
    effects += replica.on_message(LEADER, BodyReply(BLOCK), at(11))
    assert (banned(effects), checks(effects), votes(effects)) == ([], [], [])
    assert replica.consensus.body(HASH) is None, "nobody has notarized it"


def test_leaves_that_are_not_the_headers_are_the_leaders_end() -> None:
    proposal = signed(SHARD, BLOCK)
    leaves = proposal.block.leaves
    for wrong in (leaves[:2], (*leaves, leaves[0]), leaves[::-1], (leaves[0],) * 3):
        replica = voter(*PAYMENTS)
        lying = structs.replace(proposal, block=structs.replace(proposal.block, leaves=wrong))
        effects = replica.on_message(LEADER, lying, at(10))
        assert (banned(effects), asked(effects), votes(effects)) == ([LEADER], [], [])


@pytest.mark.parametrize("transactions", [[ENCODED[0]] * 2, [ENCODED[0], again(PAYMENTS[0])]], ids=["leaf", "id"])
def test_a_block_with_one_order_twice_is_given_up(transactions: list[bytes]) -> None:
    block = structs.replace(BLOCK, transactions=tuple(transactions))
    block = SHARD.mined(structs.replace(block, header=structs.replace(BLOCK.header, payload_root=block.payload_root())))
    replica = voter()
    (request,) = asked(hears(replica, block))
    assert request.places == (0, 1)
    effects = replica.on_message(LEADER, TransactionsReply(block.header.hash, block.transactions), at(11))
    assert votes(settle(replica, effects, 12)) == [VoteKind.NULLIFY]


def test_more_leaves_than_a_block_may_have_are_not_asked_for() -> None:
    network = Network(committees=1, block_transactions=2)
    shard = network.shards[0]
    payments = [encode(network.pay(network.issuers["USD"], key("payee"), 5, salt=salt)) for salt in range(3)]
    block = structs.replace(shard.build().block, transactions=tuple(payments))
    block = shard.mined(structs.replace(block, header=structs.replace(block.header, payload_root=block.payload_root())))
    effects = replica_of(network, 0).on_message(shard.electorate.keys[1], signed(shard, block), at(10))
    assert (asked(effects), votes(effects)) == ([], [VoteKind.NULLIFY])


def test_the_whole_block_is_stored_with_the_vote() -> None:
    """After a power cut of everybody no mempool has it."""
    replica = voter(*PAYMENTS)
    effects = hears(replica)
    (journal,) = [effect for effect in effects if isinstance(effect, Journal) and effect.slot == "proposal"]
    assert all(encoded in journal.data for encoded in ENCODED)


def test_a_body_that_a_quorum_notarized_is_asked_of_those_who_signed_when_the_leader_does_not_send() -> None:
    replica = voter()
    hears(replica)
    replica.on_message(OTHER, Certified((SHARD.certificate(VoteKind.NOTARIZE, 1, HASH, (0, 2, 3)),)), at(20))
    effects = replica.on_tick(at(20 + NETWORK.genesis.parameters.view_timeout // 8))
    bodies = [effect.peer for effect in effects if isinstance(effect, Send) and isinstance(effect.message, BodyRequest)]
    assert len(bodies) == 1
    assert bodies[0] != LEADER
    replica.on_message(bodies[0], BodyReply(BLOCK), at(400))
    assert replica.consensus.body(HASH) == BLOCK


def test_transactions_that_come_after_the_votes_are_the_blocks_body() -> None:
    replica = voter()
    hears(replica)
    replica.on_message(OTHER, Certified((SHARD.certificate(VoteKind.NOTARIZE, 1, HASH, (0, 2, 3)),)), at(11))
    effects = answered(replica, ENCODED)
    assert (checks(effects), banned(effects)) == ([], []), "a quorum has checked the witnesses"
    assert replica.consensus.body(HASH) == BLOCK


def test_proposals_nobody_waits_for_are_forgotten() -> None:
    awaited = {HASH}
    assembling = Assembling(Mempool(), awaited.__contains__)
    proposal, other = (signed(SHARD, block) for block in (BLOCK, SHARD.build([ANOTHER]).block))
    assert assembling.begin(proposal, ()) == (0, 1, 2)
    assert assembling.begin(proposal, ()) == (0, 1, 2), "it came again"
    awaited.clear()
    assembling.begin(other, ())
    assert set(assembling.partial) == {other.vote.block}
    assert assembling.offer(map(read_pooled, ENCODED)) == []
    (whole,) = assembling.offer([read_pooled(encode(ANOTHER))])
    assert isinstance(whole, Assembled)
    assert whole.block.transactions == (encode(ANOTHER),)
    assert not assembling.partial
