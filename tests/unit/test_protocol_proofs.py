"""Whatever is signed - transactions, votes, certificates, blocks, bundles, replies - holds as it is, for whom it is meant, and in
no other way. Broken ones of every kind with their bytes are in ``tests/vectors``; here are the rules behind them."""

from typing import Any

import pytest
from msgspec import structs

from node.ledger.admission import admit
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.block import Header
from node.protocol.certificate import Electorate, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.epoch import InvalidDocument, Opening, PhaseNotice, Registration, SignedRoll, first_document
from node.protocol.genesis import Phase
from node.protocol.queries import NodeStatus, Reply, sign_reply
from node.protocol.topics import Refusal, Refusals
from node.protocol.transaction import Action, Leg, Order, Transaction, Witness, decode_transaction
from tests.chains import TIME, Network, leg
from tests.vectors.network import COORDINATOR, GENESIS, NETWORK, REGISTRATIONS, person, play, sign

LIMIT = 1 << 24
ALICE, BOB, CAROL = person(0, 0), person(0, 1), person(1, 0)
PAYMENT = leg(ALICE, BOB, "USD", 5)
SHARD = play()[1]
COMMITTEE, MEMBERS = SHARD.electorate, SHARD.members
CERTIFIED = SHARD.chain[-2]
BUNDLE = next(bundle for outbox in SHARD.outboxes for bundle in outbox)
VOTE = sign_vote(MEMBERS[1], 1, COMMITTEE, VoteKind.NOTARIZE, 5, CERTIFIED.block.header.hash)
EXCHANGE = sign([BOB, ALICE], PAYMENT, leg(BOB, ALICE, "VND", 4), leg(ALICE, CAROL, "USD", 1), memo="dinner")
REPLY = decode(Reply, sign_reply(bytes(16), COMMITTEE, 2, NodeStatus("node", 8, 9, ZERO_HASH, 1, 2, 3), MEMBERS[2]), LIMIT)
REFUSALS = Refusals(1, 2, (Refusal(ZERO_HASH, Code.EXPIRED),)).signed(MEMBERS[2], COMMITTEE)
NOTICE = PhaseNotice(GENESIS.network, 1, 1, Phase.MINING, TIME, 8).signed(COORDINATOR)
ELSEWHERE: list[dict[str, Any]] = [{"shard": 0}, {"document": bytes(32)}]
ELSEWHERE += [{"keys": keys} for keys in (COMMITTEE.keys[::-1], COMMITTEE.keys[:1])]
OF_A_COMMITTEE: list[Any] = [VOTE, CERTIFIED.finality.certificate, CERTIFIED, BUNDLE, REPLY, REFUSALS]


def holds(thing: Any) -> bool:
    match thing:
        case Transaction():
            return decode_transaction(encode(thing)).has_valid_signatures()
        case Registration() | SignedRoll() | Opening():
            try:
                thing.check(GENESIS, 1, 1, GENESIS.hash) if isinstance(thing, Registration) else thing.check(GENESIS)
            except InvalidDocument:
                return False
            return True
    return bool(thing.is_valid(GENESIS if isinstance(thing, PhaseNotice) else COMMITTEE))


@pytest.mark.long
@pytest.mark.parametrize(
    "good",
    [*OF_A_COMMITTEE, EXCHANGE, REGISTRATIONS[0], NETWORK.sign_roll(NETWORK.roll), NETWORK.opening, NOTICE],
    ids=lambda good: type(good).__name__,
)
def test_no_bit_of_what_is_signed_can_be_changed(good: Any) -> None:
    data = encode(good)
    assert holds(decode(type(good), data, LIMIT))
    for bit in range(len(data) * 8):
        changed = (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")
        try:
            assert not holds(decode(type(good), changed, LIMIT)), bit
        except DecodeError:
            continue


@pytest.mark.parametrize("change", ELSEWHERE, ids=str)
@pytest.mark.parametrize("good", OF_A_COMMITTEE, ids=type)
def test_what_one_committee_signed_is_not_anothers(good: Any, change: dict[str, Any]) -> None:
    assert good.is_valid(COMMITTEE)
    does_not_say = "network" in change and isinstance(good, Reply | Refusals)  # ids of queries and transactions do
    assert good.is_valid(structs.replace(COMMITTEE, **change)) is does_not_say


def test_a_notice_is_its_coordinators_for_its_network() -> None:
    assert not NOTICE.signed(ALICE).is_valid(GENESIS)
    assert not structs.replace(NOTICE, network=b"elsewhr_").signed(COORDINATOR).is_valid(GENESIS)


# -- transactions ----------------------------------------------------------------------------------------------------


def test_witnesses_stand_in_the_order_of_the_payers() -> None:
    assert [witness.public_key for witness in EXCHANGE.witnesses] == [ALICE.public, BOB.public]
    with pytest.raises(ValueError, match="no key for 1"):
        EXCHANGE.order.sign([ALICE, CAROL])


def order(*legs: Leg, **changes: Any) -> Order:
    return structs.replace(sign([ALICE], PAYMENT, salt=0).order, **({"legs": legs} if legs else {}), **changes)


def transaction(candidate: Order, *keys: KeyPair) -> bytes:
    """Encoded with a witness of each key, whatever the payers."""
    return encode(Transaction(candidate, tuple(Witness(key.public, key.sign(candidate.id)) for key in keys)))


BREAKS_A_RULE = {
    "an unfreeze with an amount": transaction(order(structs.replace(PAYMENT, action=Action.UNFREEZE)), ALICE),
    "no such action": transaction(order(structs.replace(PAYMENT, action=3, amount=0)), ALICE),
    "a memo of 141 letters": transaction(order(memo="x" * 141), ALICE),
    "no witness": transaction(order()),
    "a witness too many": transaction(order(), ALICE, BOB),
    "a witness twice": transaction(order(), ALICE, ALICE),
    "an empty asset": transaction(order(structs.replace(PAYMENT, asset="")), ALICE),
    "a short network id": transaction(order(network=b"short"), ALICE),
    "a long salt": transaction(order(salt=bytes(9)), ALICE),
    "a time before time": transaction(order(valid_until=-1), ALICE),
    "a time after time": transaction(order(valid_until=2**53 + 1), ALICE),
    "more than 4096 bytes": encode(EXCHANGE) + bytes(4096),
}


@pytest.mark.parametrize("data", BREAKS_A_RULE.values(), ids=BREAKS_A_RULE.keys())
def test_a_transaction_against_a_rule_is_refused(data: bytes) -> None:
    assert decode_transaction(transaction(order(), ALICE)).order == order()
    with pytest.raises(DecodeError):
        decode_transaction(data)


def test_two_documents_of_one_genesis_make_two_networks() -> None:
    """A coordinator that signs two documents: what members, shards and payers sign in the one is nothing in the other."""
    network = Network(standby=1)
    other = first_document(network.genesis, network.roll_of(network.registrations[1:]), network.secrets)
    there = other.electorates
    block, here = network.shards[0].add(), network.shards[0].electorate
    assert other.network_id != network.document.network_id
    assert there[0].document != here.document
    assert block.is_valid(here)
    assert not block.is_valid(structs.replace(here, document=other.hash))
    rules = Rules(network.genesis, other.network_id, 0, other.shards)
    payment = network.pay(network.person(0), network.person(0, 1), 5)
    assert admit(State.genesis(rules), rules, payment.id, payment, TIME) is Code.WRONG_NETWORK


# -- votes and certificates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "faults", "quorum"), [(1, 0, 1), (3, 0, 3), (4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (100, 33, 67)]
)
def test_any_two_quorums_share_an_honest_member(size: int, faults: int, quorum: int) -> None:
    electorate = Electorate(GENESIS.network, bytes(32), 1, tuple(bytes([i]) for i in range(size)))
    assert (electorate.faults_tolerated, electorate.quorum) == (faults, quorum)
    assert 2 * quorum - size > faults
    assert quorum <= size - faults


def test_a_certificate_takes_exactly_a_quorum_in_member_order() -> None:
    votes = [sign_vote(MEMBERS[i], i, COMMITTEE, VoteKind.NULLIFY, 5, ZERO_HASH) for i in (3, 1, 0, 2)]
    made = make_certificate(votes, COMMITTEE)
    assert made.signers == (0, 1, 2)
    assert made.is_valid(COMMITTEE)
    assert not structs.replace(made, signatures=made.signatures[:2]).is_valid(COMMITTEE)


# -- proofs ----------------------------------------------------------------------------------------------------------


def proof(header: Header) -> Finality:
    return Finality((), SHARD.certificate(VoteKind.FINALIZE, header.view, header.hash))


@pytest.mark.parametrize("change", [{"document": bytes(32)}, {"shard": 0}])
def test_a_header_of_another_document_or_shard_is_not_final_here(change: dict[str, Any]) -> None:
    header = CERTIFIED.block.header
    assert proof(header).proves(header, COMMITTEE)
    other = structs.replace(header, **change)
    assert not proof(other).proves(other, COMMITTEE)


def bundle_of(bundle: Bundle) -> CertifiedBundle:
    """Proven by the committee, whatever it says."""
    header = structs.replace(BUNDLE.header, outbox_root=merkle.root([encode(bundle)]))
    return CertifiedBundle(bundle, header, proof(header), merkle.branch([encode(bundle)], 0))


def test_a_bundle_is_proven_as_one_of_its_source_only() -> None:
    assert bundle_of(BUNDLE.bundle).is_valid(COMMITTEE)
    assert not bundle_of(structs.replace(BUNDLE.bundle, source=0)).is_valid(COMMITTEE)
