"""What ``docs/protocol.md`` says of proposals, standings and what is due, and no other test holds: each test gives one member one
thing that breaks one rule."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from node.effects import Broadcast, CheckSignatures, Effect, Mine, Send
from node.ledger import two_phase_commit
from node.protocol.address import address_of
from node.protocol.block import Block, Outcome, payload_root
from node.protocol.certificate import VoteKind, sign_vote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.epoch import first_document
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES
from node.protocol.messages import Ballot, Proposal, Standing
from node.protocol.puzzle import search
from node.protocol.transaction import Leg, Order, Transaction, Witness
from tests.unit import test_replica as ours
from tests.unit.ledger_driver import Ledgers
from tests.unit.test_replica import ISSUER, NOW, at, payment, replica_of, take_in

LEADER, VOTER = 1, 0


@pytest.fixture(autouse=True)
def form(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Form the committee of ``test_replica`` under other parameters; at first its blocks need 8 bits of work and hold 100
    transactions."""

    def again(**parameters: int) -> None:
        genesis = structs.replace(ours.GENESIS, parameters=structs.replace(ours.GENESIS.parameters, **parameters))
        document = first_document(genesis, ours.DOCUMENT.committees[0].members)
        electorate = document.electorates[0]
        by_public = {key.public: key for key in ours.KEYS}
        monkeypatch.setattr(ours, "GENESIS", genesis)
        monkeypatch.setattr(ours, "DOCUMENT", document)
        monkeypatch.setattr(ours, "ELECTORATE", electorate)
        monkeypatch.setattr(ours, "KEYS", [by_public[public] for public in electorate.keys])

    again(block_difficulty_bits=8, block_transactions=100)
    return again


def proposals(effects: list[Effect]) -> list[Proposal]:
    return [effect.message for effect in effects if isinstance(effect, Broadcast) and isinstance(effect.message, Proposal)]


def votes(effects: list[Effect]) -> list[VoteKind]:
    found = [effect.message for effect in effects if isinstance(effect, Broadcast)]
    return [message.vote.kind for message in found if isinstance(message, Ballot)]


def mined(block: Block, is_solved: bool = True) -> Block:
    """The block with the first nonce that does, or does not, solve its puzzle."""
    prefix = block.header.mining_prefix
    nonces = (i.to_bytes(8, "big") for i in range(1 << 20))
    nonce = next(nonce for nonce in nonces if (search(prefix, 8, int.from_bytes(nonce, "big"), 1) is not None) == is_solved)
    return structs.replace(block, header=structs.replace(block.header, nonce=nonce))


def proposed() -> Proposal:
    """The leader's empty block, as it should be."""
    leader = replica_of(LEADER)
    leader.start(at(0))
    effects = leader.on_tick(at(1_000))
    (mine,) = [effect for effect in effects if isinstance(effect, Mine)]
    nonce = search(mine.prefix, mine.bits, 0, 1 << 20)
    assert nonce is not None
    (proposal,) = proposals(leader.on_mined(mine.token, nonce, at(1_001)))
    return proposal


def signed(block: Block, member: int = LEADER) -> Proposal:
    vote = sign_vote(ours.KEYS[member], member, ours.ELECTORATE, VoteKind.NOTARIZE, block.header.view, block.header.hash)
    return Proposal(block, vote, None, ())


def changed(**header: Any) -> Proposal:
    """The leader's proposal with another header, mined and signed anew."""
    block = proposed().block
    return signed(mined(structs.replace(block, header=structs.replace(block.header, **header))))


def filled(count: int, legs: int = 1) -> Proposal:
    """The leader's proposal with so many transactions, whose signatures nobody has looked at."""
    payer, payee = address_of(ISSUER.public), address_of(ours.KEYS[0].public)
    network = ours.GENESIS.network
    orders = [Order(network, (Leg(payer, payee, "USD", 1),) * legs, "", NOW + 60_000, i.to_bytes(8, "big")) for i in range(count)]
    transactions = tuple(encode(Transaction(order, (Witness(ISSUER.public, bytes(64)),))) for order in orders)
    header = structs.replace(proposed().block.header, payload_root=payload_root((), transactions))
    return signed(mined(Block(header, (), transactions)))


def answer(proposal: Proposal, sender: int = LEADER) -> list[Effect]:
    voter = replica_of(VOTER)
    voter.start(at(0))
    return voter.on_message(ours.KEYS[sender].public, proposal, at(1_010))


def test_a_mined_proposal_of_the_leader_is_voted_for() -> None:
    assert votes(answer(proposed())) == [VoteKind.NOTARIZE]


def test_a_proposal_without_its_work_is_given_up() -> None:
    assert votes(answer(signed(mined(proposed().block, is_solved=False)))) == [VoteKind.NULLIFY]


@pytest.mark.parametrize(
    "header", [{"network": b"otherone"}, {"shard": 1}, {"epoch": 2}, {"height": 2}], ids=lambda h: next(iter(h))
)
def test_a_proposal_for_another_place_is_given_up(header: dict[str, Any]) -> None:
    assert votes(answer(changed(**header))) == [VoteKind.NULLIFY]


def test_a_proposal_by_another_member_than_the_leader_is_ignored() -> None:
    header = structs.replace(proposed().block.header, proposer=2)
    block = mined(Block(header, (), ()))
    assert votes(answer(signed(block, member=2), sender=2)) == []


def test_a_proposal_passed_on_by_another_member_is_ignored() -> None:
    assert votes(answer(proposed(), sender=2)) == []


def test_a_block_of_too_many_transactions_is_given_up_unchecked() -> None:
    assert any(isinstance(effect, CheckSignatures) for effect in answer(filled(100)))
    effects = answer(filled(101))
    assert votes(effects) == [VoteKind.NULLIFY]
    assert not any(isinstance(effect, CheckSignatures) for effect in effects)


def test_a_block_of_more_than_a_mebibyte_of_transactions_is_given_up_unchecked(form: Callable[..., None]) -> None:
    form(block_transactions=2_000)
    size = len(filled(1, legs=16).block.transactions[0])
    fits, too_large = (filled(MAX_BLOCK_PAYLOAD_BYTES // size + more, legs=16) for more in (0, 1))
    assert any(isinstance(effect, CheckSignatures) for effect in answer(fits))
    effects = answer(too_large)
    assert votes(effects) == [VoteKind.NULLIFY]
    assert not any(isinstance(effect, CheckSignatures) for effect in effects)


def test_a_leader_whose_mempool_fills_a_block_does_not_wait(form: Callable[..., None]) -> None:
    form(block_difficulty_bits=0, block_transactions=1)
    leader = replica_of(LEADER)
    leader.start(at(0))
    assert proposals(take_in(leader, payment(network=ours.GENESIS.network)))


def test_a_member_tells_its_standing_every_heartbeat_and_to_who_connects() -> None:
    replica = replica_of(VOTER)

    def told(effects: list[Effect]) -> int:
        return sum(isinstance(effect, Broadcast | Send) and isinstance(effect.message, Standing) for effect in effects)

    heartbeat = ours.GENESIS.parameters.heartbeat
    assert told(replica.start(at(0))) == 1
    assert told(replica.on_tick(at(heartbeat - 1))) == 0
    assert told(replica.on_tick(at(heartbeat))) == 1
    assert told(replica.on_peer_up(ours.KEYS[2].public, at(heartbeat + 1))) == 1
    assert told(replica.on_peer_up(ISSUER.public, at(heartbeat + 2))) == 0


def test_what_is_due_is_dealt_with_over_several_blocks_when_it_is_too_much_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_phase_commit, "MAX_WOKEN", 2)
    ledgers = Ledgers(2)
    payer, payee = ledgers.account(0), ledgers.account(1)
    ledgers.fund(payer, 10)
    transactions = [ledgers.pay(payer, payee, 1) for _ in range(3)]
    ledgers.block(0, *transactions)
    ledgers.now += ledgers.genesis.parameters.commit_timeout + 1
    expired = []
    for _ in range(2):
        ledgers.block(0, take=0)
        expired.append(sum(ledgers.outcomes(0, t)[-1] == (Outcome.EXPIRED, Code.EXPIRED) for t in transactions))
    assert expired == [2, 3]
