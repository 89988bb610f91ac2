"""Signatures are checked a few at a time: floods of bad ones keep neither proposals nor the loop waiting."""

import trio
from msgspec import structs

from node.effects import CheckSignatures
from node.events import For, SignaturesChecked
from node.protocol.chain import Chain
from node.protocol.crypto import KeyPair
from node.protocol.transaction import Transaction
from node.verifying import MAX_UNCHECKED, SIGNATURES, Verifying
from tests.chains import Network, key
from tests.waiting import trio_until

NETWORK, CHAIN = Network(committees=1), Chain(1, 0)
ISSUER = NETWORK.issuers["USD"]
GOOD = NETWORK.pay(ISSUER, key("payee"), 5)
BAD = structs.replace(GOOD, witnesses=NETWORK.pay(ISSUER, key("payee"), 6).witnesses)


def of_sixteen() -> Transaction:
    """Signed by sixteen, all but the last of them well."""
    payers: list[KeyPair] = [key(f"payer {number}") for number in range(16)]
    legs = [NETWORK.pay(payer, key("payee"), 5).order.legs[0] for payer in payers]
    signed = NETWORK.sign(payers, *legs)
    return structs.replace(signed, witnesses=(*signed.witnesses[:-1], structs.replace(signed.witnesses[-1], signature=bytes(64))))


async def test_each_transaction_has_a_verdict_of_its_own(nursery: trio.Nursery) -> None:
    answers: list[For] = []
    verifying = Verifying(answers.append)
    nursery.start_soon(verifying.run)
    transactions = (*[GOOD] * 100, of_sixteen(), *[GOOD] * 100, BAD, GOOD)
    verifying.check(CHAIN, CheckSignatures(7, transactions))
    await trio_until(lambda: answers)
    assert answers == [For(CHAIN, SignaturesChecked(7, (*[True] * 100, False, *[True] * 100, False, True)))]
    nursery.cancel_scope.cancel()


async def test_few_are_checked_on_the_spot_unless_others_are_before_them() -> None:
    answers: list[For] = []
    verifying = Verifying(answers.append)
    verifying.check(CHAIN, CheckSignatures(1, (GOOD, BAD)))
    assert answers == [For(CHAIN, SignaturesChecked(1, (True, False)))]
    verifying.check(CHAIN, CheckSignatures(2, (of_sixteen(),)))
    verifying.check(CHAIN, CheckSignatures(3, (GOOD,)))
    assert len(answers) == 1


async def test_what_a_proposal_waits_for_overtakes_what_clients_sent_before(nursery: trio.Nursery) -> None:
    answers: list[For] = []
    verifying = Verifying(answers.append)
    verifying.check(CHAIN, CheckSignatures(1, (of_sixteen(),) * 500))  # some 8000 signatures
    assert not verifying.has_room
    verifying.check(CHAIN, CheckSignatures(2, (GOOD,), urgent=True))
    nursery.start_soon(verifying.run)
    await trio_until(lambda: answers)
    assert answers == [For(CHAIN, SignaturesChecked(2, (True,)))]
    verifying.check(CHAIN, CheckSignatures(3, (GOOD,), urgent=True))
    await trio_until(lambda: len(answers) > 1)
    assert answers[1] == For(CHAIN, SignaturesChecked(3, (True,))), "though the other has begun"
    await trio_until(lambda: len(answers) > 2)
    assert answers[2] == For(CHAIN, SignaturesChecked(1, (False,) * 500))
    assert verifying.has_room
    nursery.cancel_scope.cancel()


async def test_the_loop_has_a_turn_after_a_few_signatures_each(nursery: trio.Nursery) -> None:
    answers: list[For] = []
    verifying = Verifying(answers.append)
    verifying.check(CHAIN, CheckSignatures(1, (GOOD,) * 20 * SIGNATURES))
    nursery.start_soon(verifying.run)
    turns = 0
    while not answers:
        await trio.lowlevel.checkpoint()
        turns += 1
    assert 20 <= turns < 30, "in another thread each would wait for the interpreter, for many turns"
    nursery.cancel_scope.cancel()


def test_there_is_room_up_to_a_number_of_signatures() -> None:
    verifying = Verifying(lambda _: None)
    verifying.check(CHAIN, CheckSignatures(1, (GOOD,) * (MAX_UNCHECKED - 1)))
    assert verifying.has_room
    verifying.check(CHAIN, CheckSignatures(2, (GOOD,)))
    assert not verifying.has_room
