"""Signatures of what other shards prepare are checked off the loop: a block is executed on what came of it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from msgspec import structs

from node.effects import Ban, Commit, Effect, Send
from node.protocol import transaction as transactions
from node.protocol.block import Block
from node.protocol.certificate import FinalBlock, VoteKind
from node.protocol.channel import CertifiedBundle, Prepare, PrepareVote
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_BUNDLE_BYTES
from node.protocol.messages import BodyReply, BodyRequest, BundleDelivery, Certified, ChainReply, Proposal, Standing
from node.protocol.transaction import Transaction
from node.replica.replica import Replica
from tests.chains import Network, leg
from tests.unit.replicas import at, checks, forge_bundle, proposals, replica_of, settle, signed, votes

NETWORK = Network(committees=2)
USD = NETWORK.issuers["USD"]
HOME = NETWORK.shard_of(USD)
THERE = NETWORK.shards[1 - HOME.number]
PEERS, HEARTBEAT = THERE.electorate.keys, NETWORK.genesis.parameters.heartbeat
MINT = NETWORK.pay(USD, NETWORK.person(THERE.number), 5)
"""Asks the issuer's witness of the shard it goes to."""


def bundle(*prepared: Transaction, sequence: int = 1) -> CertifiedBundle:
    deadline = HOME.genesis.time + 30_000
    return forge_bundle(HOME, THERE.number, sequence, tuple(Prepare(encode(t), deadline) for t in prepared))


def spoiled(transaction: Transaction) -> Transaction:
    (witness,) = transaction.witnesses
    return structs.replace(transaction, witnesses=(structs.replace(witness, signature=bytes(64)),))


def member(number: int) -> Replica:
    return replica_of(NETWORK, number, number=THERE.number)


@contextmanager
def nothing_checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the loop."""

    def verify(*_: object) -> bool:
        pytest.fail("a signature of a transaction is checked on the loop")

    with monkeypatch.context() as patch:
        patch.setattr(transactions, "verify", verify)
        yield


def taken(proposal: Proposal) -> list[int]:
    return [decode(CertifiedBundle, data, MAX_BUNDLE_BYTES).bundle.sequence for data in proposal.block.bundles]


def answer(proposal: Proposal) -> object:
    """What the block sends to the home shard, as executing it with true verdicts gives."""
    bundles = [decode(CertifiedBundle, data, MAX_BUNDLE_BYTES) for data in proposal.block.bundles]
    return [record for sent in THERE.build(bundles=bundles).execution.outbox for record in sent.records]


@pytest.mark.parametrize("valid", [True, False])
def test_a_leader_takes_a_bundle_once_its_witnesses_are_checked(valid: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = member(1)
    sent = MINT if valid else spoiled(MINT)
    with nothing_checked(monkeypatch):
        leader.start(at(0))
        effects = leader.on_message(HOME.electorate.keys[0], BundleDelivery(bundle(sent)), at(1))
        (check,) = checks(effects)
        assert check.transactions == (sent,)
        assert proposals(leader.on_tick(at(HEARTBEAT - 1))) == [], "nothing to do yet"
        effects = leader.on_signatures_checked(check.token, [valid], at(HEARTBEAT - 1))
        (proposal,) = proposals(effects)
    assert taken(proposal) == [1]
    assert answer(proposal) == [PrepareVote(MINT.id, Code.OK if valid else Code.BAD_SIGNATURE)]
    assert THERE.build(bundles=[bundle(sent)]).execution.outbox_root == proposal.block.header.outbox_root


def test_bundles_are_checked_one_after_the_other_and_those_that_need_none_at_once() -> None:
    leader, person = member(1), NETWORK.person(HOME.number)
    payee = NETWORK.person(THERE.number)
    parts = [NETWORK.pay(person, payee, 1), MINT, NETWORK.pay(USD, payee, 2), NETWORK.pay(person, payee, 2)]
    leader.start(at(0))
    asked = []
    for sequence, part in enumerate(parts, 1):
        delivery = BundleDelivery(bundle(part, sequence=sequence))
        asked += checks(leader.on_message(HOME.electorate.keys[0], delivery, at(1)))
    assert [check.transactions for check in asked] == [(parts[1],)]
    assert [bool(leader.inbox.next(HOME.number, cursor)) for cursor in range(4)] == [True, False, False, False]
    effects = leader.on_signatures_checked(asked[0].token, [True], at(2))
    (check,) = checks(effects)
    assert check.transactions == (parts[2],)
    settle(leader, effects, 3)
    assert [bool(leader.inbox.next(HOME.number, cursor)) for cursor in range(4)] == [True] * 4


@pytest.mark.parametrize(("verdict", "voted"), [(True, VoteKind.NOTARIZE), (False, VoteKind.NULLIFY)])
def test_a_voter_has_a_proposals_bundles_checked_before_it_votes(
    verdict: bool, voted: VoteKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    voter, proposal = member(0), signed(THERE, THERE.build(bundles=[bundle(MINT)]).block)
    with nothing_checked(monkeypatch):
        effects = voter.on_message(PEERS[1], proposal, at(200))
        (check,) = checks(effects)
        assert (check.transactions, check.urgent, votes(effects)) == ((MINT,), True, [])
        assert votes(voter.on_signatures_checked(check.token, [verdict], at(201))) == [voted]


def test_a_voter_that_has_the_bundle_checked_it_before(monkeypatch: pytest.MonkeyPatch) -> None:
    voter, proposal = member(0), signed(THERE, THERE.build(bundles=[bundle(MINT)]).block)
    with nothing_checked(monkeypatch):
        settle(voter, voter.on_message(HOME.electorate.keys[0], BundleDelivery(bundle(MINT)), at(1)), 2, verdict=True)
        effects = voter.on_message(PEERS[1], proposal, at(200))
        assert (checks(effects), votes(effects)) == ([], [VoteKind.NOTARIZE])


def test_final_blocks_are_executed_once_their_bundles_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(committees=2)
    usd = network.issuers["USD"]
    home = network.shard_of(usd)
    there = network.shards[1 - home.number]
    network.fund(network.person(there.number), 5)
    behind = replica_of(network, 0, number=there.number)
    chain = tuple(FinalBlock(c.block, c.finality) for c in there.chain)
    with nothing_checked(monkeypatch):
        behind.on_message(there.electorate.keys[1], Standing(1_000, 1), at(1))
        effects = behind.on_message(there.electorate.keys[1], ChainReply(chain), at(2))
        (check,) = checks(effects)
        assert len(check.transactions) == 1
        assert behind.state.height == 0
        effects = behind.on_signatures_checked(check.token, [True], at(3))
        assert [effect.height for effect in effects if isinstance(effect, Commit)] == [1, 2]


def test_a_view_begins_when_the_blocks_before_it_are_checked_however_long_that_takes() -> None:
    network = Network(committees=2)
    usd = network.issuers["USD"]
    there = network.shards[1 - network.shard_of(usd).number]
    network.fund(network.person(there.number), 5)
    behind = replica_of(network, 3, number=there.number)
    behind.on_message(there.electorate.keys[1], Standing(1_000, 1), at(1))
    chain = tuple(FinalBlock(c.block, c.finality) for c in there.chain)
    (check,) = checks(behind.on_message(there.electorate.keys[1], ChainReply(chain), at(2)))
    late = behind.consensus.deadline - 1
    behind.on_signatures_checked(check.token, [True], at(late))
    assert behind.state.height == 2
    assert votes(behind.on_tick(at(late + network.genesis.parameters.view_timeout))) == []


def waiting_for_a_body() -> tuple[Replica, Block]:
    """A voter that a quorum has told of a block with something to check, and which asks for it."""
    block, voter = THERE.build(bundles=[bundle(MINT)]).block, member(0)
    final = THERE.certificate(VoteKind.FINALIZE, block.header.view, block.header.hash, (1, 2, 3))
    effects = voter.on_message(PEERS[1], Certified((final,)), at(1))
    assert any(isinstance(effect, Send) and isinstance(effect.message, BodyRequest) for effect in effects)
    return voter, block


def test_a_body_is_checked_once_at_a_time_whoever_sends_it() -> None:
    voter, block = waiting_for_a_body()
    assert len(checks(voter.on_message(PEERS[1], BodyReply(block), at(10_001)))) == 1
    assert checks(voter.on_message(PEERS[2], BodyReply(block), at(10_002))) == []


def test_nothing_of_another_body_than_that_asked_for_is_checked_and_who_sends_it_is_dropped() -> None:
    voter, block = waiting_for_a_body()
    effects = voter.on_message(PEERS[1], BodyReply(structs.replace(block, bundles=block.bundles * 2)), at(10_001))
    assert (checks(effects), bans(effects)) == ([], [PEERS[1]])
    assert len(checks(voter.on_message(PEERS[2], BodyReply(block), at(10_002)))) == 1


@pytest.mark.parametrize("lie", ["a bundle more", "not linked", "not final"])
def test_nothing_of_final_blocks_that_are_none_is_checked_and_who_sends_them_is_dropped(lie: str) -> None:
    network = Network(committees=2)
    there = network.shards[1 - network.shard_of(network.issuers["USD"]).number]
    network.fund(network.person(there.number), 5)
    behind, peer = replica_of(network, 0, number=there.number), there.electorate.keys[1]
    first, *others, last = (FinalBlock(c.block, c.finality) for c in there.chain)
    forged = {
        "a bundle more": lambda: (first, *others, altered(last)),
        "not linked": lambda: (of_its_own(altered(first)), *others, last),
        "not final": lambda: (first, *others, structs.replace(last, finality=first.finality)),
    }[lie]()
    behind.on_message(peer, Standing(1_000, 1), at(1))
    effects = behind.on_message(peer, ChainReply(forged), at(2))
    assert (checks(effects), bans(effects), behind.state.height) == ([], [peer], 0)


def altered(final: FinalBlock) -> FinalBlock:
    return structs.replace(final, block=structs.replace(final.block, bundles=(*final.block.bundles, encode(bundle(MINT)))))


def of_its_own(final: FinalBlock) -> FinalBlock:
    """With a header that commits to its payload."""
    header = structs.replace(final.block.header, payload_root=final.block.payload_root())
    return structs.replace(final, block=structs.replace(final.block, header=header))


def bans(effects: Iterable[Effect]) -> list[bytes]:
    return [effect.peer for effect in effects if isinstance(effect, Ban)]


def test_who_brings_a_bundle_that_does_not_prove_itself_is_dropped() -> None:
    voter, good = member(0), bundle(MINT)
    forged = structs.replace(good, bundle=structs.replace(good.bundle, sequence=2))
    assert bans(voter.on_message(HOME.electorate.keys[0], BundleDelivery(forged), at(1))) == [HOME.electorate.keys[0]]
    assert bans(voter.on_message(HOME.electorate.keys[0], BundleDelivery(good), at(2))) == []


def test_a_body_nobody_asked_for_is_not_checked() -> None:
    voter = member(0)
    assert checks(voter.on_message(PEERS[1], BodyReply(THERE.build(bundles=[bundle(MINT)]).block), at(5))) == []


def test_what_no_transaction_is_and_what_lacks_a_witness_costs_no_check() -> None:
    voter = member(0)
    many = NETWORK.sign([USD, NETWORK.issuers["VND"]], leg(USD, NETWORK.person(THERE.number), "USD", 1))
    lacking = structs.replace(many, witnesses=many.witnesses * 2)
    deadline = HOME.genesis.time + 30_000
    records = (Prepare(b"nothing", deadline), Prepare(encode(lacking), deadline))
    effects = voter.on_message(HOME.electorate.keys[0], BundleDelivery(forge_bundle(HOME, THERE.number, 1, records)), at(1))
    assert checks(effects) == []
    assert voter.inbox.next(HOME.number, 0)
