"""What a replica adds to consensus and ledger: whom it serves, what it refuses, when it abstains."""

import pytest
from msgspec import structs

from node.effects import Abstain, Broadcast, CheckSignatures, Effect, Publish, Send
from node.events import Instant, Recovered
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.address import address_of
from node.protocol.certificate import VoteKind, make_certificate, sign_vote
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Registration, first_document
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.messages import Ballot, BodyReply, BodyRequest, Certified, ChainRequest, Proposal, Standing
from node.protocol.topics import Refusals, refusals_topic
from node.protocol.transaction import Leg, Order
from node.replica.replica import Replica

NOW = 1_700_000_000_000
ISSUER = KeyPair(bytes([9] * 32))
GENESIS = Genesis(
    name="test",
    time=NOW,
    coordinator=ISSUER.public.hex(),
    assets=(Asset("USD", 2, ISSUER.public.hex()),),
    parameters=Parameters(committees=1, puzzle_difficulty_bits=0, block_difficulty_bits=0),
)
_KEYS = [KeyPair(bytes([1, i] * 16)) for i in range(4)]
DOCUMENT = first_document(
    GENESIS,
    [
        Registration(GENESIS.network, 1, key.public, f"n{i}", ("/ip4/127.0.0.1/tcp/1",), bytes(8)).signed(key)
        for i, key in enumerate(_KEYS)
    ],
)
KEYS = [next(k for k in _KEYS if k.public == public) for public in DOCUMENT.electorates[0].keys]
ELECTORATE = DOCUMENT.electorates[0]


def at(now: int) -> Instant:
    return Instant(now, NOW + now)


def replica_of(member: int, abstain_through: int | None = 0) -> Replica:
    state = State.genesis(Rules(GENESIS, 0, DOCUMENT.shards))
    return Replica(GENESIS, DOCUMENT, KEYS[member], "n", Recovered(state, None, ()), at(0), abstain_through)


def payment(valid_until: int = NOW + 60_000, network: bytes = GENESIS.network, salt: int = 0) -> Order:
    leg = Leg(address_of(ISSUER.public), address_of(KEYS[0].public), "USD", 5)
    return Order(network, (leg,), "", valid_until, salt.to_bytes(8, "big"))


def refusals(effects: list[Effect]) -> list[Code]:
    topic = refusals_topic(GENESIS.network, 0)
    bodies = [effect.body for effect in effects if isinstance(effect, Publish) and effect.topic == topic]
    messages = [decode(Refusals, body, MAX_BROKER_BODY_BYTES) for body in bodies]
    assert all(message.is_valid(ELECTORATE) for message in messages)
    return [item.code for message in messages for item in message.items]


def take_in(replica: Replica, order: Order) -> list[Effect]:
    """Hand over a transaction and the verdict on its signature."""
    effects = replica.on_transactions([encode(order.sign([ISSUER]))], at(1))
    checks = [effect for effect in effects if isinstance(effect, CheckSignatures)]
    for check in checks:
        effects += replica.on_signatures_checked(check.token, [t.has_valid_signatures() for t in check.transactions], at(2))
    return effects


def lead(replica: Replica, now: int) -> list[Effect]:
    """Let time pass until the replica has made every proposal it may."""
    return replica.on_tick(at(now))


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (payment(network=b"otherone"), Code.WRONG_NETWORK),
        (payment(valid_until=NOW - 1), Code.EXPIRED),
        (payment(valid_until=NOW + 10_000_000), Code.LIMIT_EXCEEDED),
    ],
)
def test_an_inadmissible_transaction_is_refused_with_its_code(order: Order, code: Code) -> None:
    replica = replica_of(0)
    assert refusals(take_in(replica, order)) == [code]
    assert len(replica.mempool) == 0


def test_bytes_that_are_no_transaction_are_refused_as_malformed() -> None:
    encoded = encode(payment().sign([ISSUER]))
    assert refusals(replica_of(0).on_transactions([encoded + b"\x00"], at(1))) == [Code.MALFORMED]


def test_a_forged_signature_is_refused() -> None:
    transaction = payment().sign([ISSUER])
    witness = structs.replace(transaction.witnesses[0], signature=transaction.witnesses[0].signature[:-1] + b"\x01")
    replica = replica_of(0)
    effects = replica.on_transactions([encode(structs.replace(transaction, witnesses=(witness,)))], at(1))
    (check,) = [effect for effect in effects if isinstance(effect, CheckSignatures)]
    verdicts = [t.has_valid_signatures() for t in check.transactions]
    assert refusals(replica.on_signatures_checked(check.token, verdicts, at(2))) == [Code.BAD_SIGNATURE]


def test_a_resent_transaction_is_checked_once() -> None:
    replica, encoded = replica_of(0), encode(payment().sign([ISSUER]))
    first = replica.on_transactions([encoded, encoded], at(1))
    (check,) = [effect for effect in first if isinstance(effect, CheckSignatures)]
    assert len(check.transactions) == 1
    assert not [e for e in replica.on_transactions([encoded], at(2)) if isinstance(e, CheckSignatures)]


def test_the_leader_proposes_at_once_with_work_and_at_the_heartbeat_without() -> None:
    idle, busy = replica_of(1), replica_of(1)
    idle.start(at(0))
    busy.start(at(0))
    take_in(busy, payment())
    interval, heartbeat = GENESIS.parameters.block_interval, GENESIS.parameters.heartbeat

    def proposes(replica: Replica, now: int) -> bool:
        return any(isinstance(e, Broadcast) and isinstance(e.message, Proposal) for e in lead(replica, now))

    assert not proposes(busy, interval - 1)
    assert proposes(busy, interval)
    assert not proposes(idle, heartbeat - 1)
    assert proposes(idle, heartbeat)


def test_a_vote_passed_on_by_another_member_is_ignored() -> None:
    replica = replica_of(0)
    vote = sign_vote(KEYS[2], 2, ELECTORATE, VoteKind.NULLIFY, 1, bytes(32))
    for other in (KEYS[2], KEYS[3]):
        stolen = sign_vote(other, 3, ELECTORATE, VoteKind.NULLIFY, 1, bytes(32))
        replica.on_message(KEYS[1].public, Ballot(stolen), at(1))
        replica.on_message(KEYS[1].public, Ballot(vote), at(1))
    replica.on_tick(at(replica.deadline + 10_000))
    assert replica.consensus.view == 1, "own vote and one that was passed on make no quorum"


def test_a_proposal_from_the_future_is_refused_at_once() -> None:
    """A leader whose clock is minutes ahead costs its committee a round trip, not a timeout."""
    leader, voter = replica_of(1), replica_of(0)
    fast = Instant(GENESIS.parameters.heartbeat, NOW + 600_000)
    leader.start(at(0))
    (proposal,) = [e.message for e in leader.on_tick(fast) if isinstance(e, Broadcast) and isinstance(e.message, Proposal)]
    effects = voter.on_message(KEYS[1].public, proposal, at(GENESIS.parameters.heartbeat))
    votes = [e.message.vote.kind for e in effects if isinstance(e, Broadcast) and isinstance(e.message, Ballot)]
    assert votes == [VoteKind.NULLIFY]


def test_requests_do_not_amplify() -> None:
    replica = replica_of(0)
    votes = [sign_vote(KEYS[i], i, ELECTORATE, VoteKind.NULLIFY, 1, bytes(32)) for i in (1, 2, 3)]
    replica.on_message(KEYS[1].public, Certified((make_certificate(votes, ELECTORATE),)), at(1))
    answers = [replica.on_message(KEYS[1].public, Standing(0, 1, 0), at(1)) for _ in range(10)]
    served = [e for effects in answers for e in effects if isinstance(e, Send) and not isinstance(e.message, ChainRequest)]
    assert len(served) == 1


def test_a_member_without_its_votes_abstains_until_it_knows_what_it_may_have_voted_in() -> None:
    replica = replica_of(0, abstain_through=None)
    replica.start(at(0))
    assert replica.consensus.turn is None
    effects = replica.on_message(KEYS[1].public, Standing(10, 12, 12), at(1))
    effects += replica.on_message(KEYS[2].public, Standing(10, 11, 15), at(2))
    assert not [e for e in effects if isinstance(e, Abstain)], "two of three others: the third may know of a later view"
    effects = replica.on_message(KEYS[3].public, Standing(10, 11, 11), at(3))
    assert [e for e in effects if isinstance(e, Abstain)] == [Abstain(16)]


def test_a_lying_claim_does_not_silence_a_recovering_member_for_ever() -> None:
    replica = replica_of(0, abstain_through=None)
    effects: list[Effect] = []
    for member, claim in ((1, 2**53), (2, 3), (3, 4)):
        effects += replica.on_message(KEYS[member].public, Standing(0, 3, claim), at(1))
    (abstain,) = [e for e in effects if isinstance(e, Abstain)]
    assert abstain.through < 2_000


def test_a_proposal_is_checked_however_many_client_batches_wait() -> None:
    leader, voter = replica_of(1), replica_of(0)
    take_in(leader, payment())
    (proposal,) = [e.message for e in leader.on_tick(at(60)) if isinstance(e, Broadcast) and isinstance(e.message, Proposal)]
    for salt in range(1, 100):
        voter.on_transactions([encode(payment(salt=salt).sign([ISSUER]))], at(1))
    effects = voter.on_message(KEYS[1].public, proposal, at(60))
    assert [effect.urgent for effect in effects if isinstance(effect, CheckSignatures)] == [True]


def test_a_leader_with_nothing_it_may_include_sleeps_until_the_heartbeat() -> None:
    """A transaction whose time has passed on this node's clock, but not yet in block time, waits in the mempool."""
    replica = replica_of(1)
    take_in(replica, payment(valid_until=NOW + 70))
    replica.on_tick(at(100))
    assert replica.deadline >= GENESIS.parameters.heartbeat


def test_a_body_is_served_to_one_member_once_in_a_while() -> None:
    leader = replica_of(1)
    take_in(leader, payment())
    (proposal,) = [e.message for e in leader.on_tick(at(60)) if isinstance(e, Broadcast) and isinstance(e.message, Proposal)]
    request = BodyRequest(1, proposal.block.header.hash)
    served = [e for _ in range(10) for e in leader.on_message(KEYS[2].public, request, at(61)) if isinstance(e, Send)]
    assert len([e for e in served if isinstance(e.message, BodyReply)]) == 1
