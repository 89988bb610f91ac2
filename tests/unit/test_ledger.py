"""One shard's ledger: payments, reason codes, mint and burn, freeze, replay, forks."""

import gc
import time
import weakref
from typing import Any

import pytest

from node.ledger.admission import admit
from node.ledger.execution import Execution, InvalidBlock, execute
from node.ledger.rows import ANSWERED
from node.ledger.state import Overlay
from node.ledger.transfer import apply, pay, reserve, routed
from node.protocol.block import Balance, Outcome
from node.protocol.channel import Prepare, PrepareVote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Leg, Transaction
from tests.unit.ledger_driver import COMMITTED, REJECTED, START, Ledgers


@pytest.fixture
def one() -> Ledgers:
    """One shard; account 0 has 100 USD."""
    ledgers = Ledgers(1)
    ledgers.fund(ledgers.account(0), 100)
    return ledgers


USD, EUR = -1, -2
"""Instead of an account's number: the asset's issuer."""
_, FREEZE, UNFREEZE = Action
Legs = list[tuple[int, int, int] | tuple[int, int, int, Action]]


def legs_of(one: Ledgers, legs: Legs) -> list[Leg]:
    """From (payer, payee, amount of USD) with the accounts' numbers."""
    who = {USD: one.issuer("USD"), EUR: one.issuer("EUR")} | {i: one.account(0, i) for i in range(3)}
    return [Leg(who[payer], who[payee], "USD", amount, *action) for payer, payee, amount, *action in legs]


@pytest.mark.parametrize(
    ("code", "legs"),
    [
        (Code.INSUFFICIENT_FUNDS, [(0, 1, 101)]),
        (Code.INSUFFICIENT_FUNDS, [(1, 0, 1)]),
        (Code.INSUFFICIENT_FUNDS, [(0, USD, 101)]),
        (Code.INSUFFICIENT_FUNDS, [(0, 1, 60), (0, 2, 60)]),  # together more than it has, though each leg alone could be paid
        (Code.INSUFFICIENT_FUNDS, [(0, 1, 60), (1, 2, 60)]),  # what is received in the transaction cannot be spent in it
        (Code.INSUFFICIENT_FUNDS, [(0, 1, 40), (1, 0, 1)]),  # all legs or none
        (Code.NOT_ISSUER, [(0, 1, 0, FREEZE)]),
        (Code.NOT_ISSUER, [(EUR, 1, 0, UNFREEZE)]),
        (Code.LIMIT_EXCEEDED, [(USD, 0, MAX_AMOUNT - 99)]),
        (Code.LIMIT_EXCEEDED, [(USD, 0, MAX_AMOUNT // 2), (USD, 0, MAX_AMOUNT // 2)]),
    ],
)
def test_a_refused_transaction_has_its_reason_and_changes_nothing(one: Ledgers, code: Code, legs: Legs) -> None:
    one.fund(one.account(0, 1), 1, "EUR")
    transaction, totals = one.sign(*legs_of(one, legs)), one.states[0].totals()
    execution = one.block(0, transaction)
    assert one.outcomes(0, transaction) == [(REJECTED, code)]
    assert execution.effects.changes.balances == ()
    assert one.states[0].totals() == totals
    with pytest.raises(InvalidBlock, match="duplicate"):
        one.block(0, transaction)


def test_legs_of_several_payers_and_assets_happen_together(one: Ledgers) -> None:
    a, b, c = (one.account(0, i) for i in range(3))
    eur = one.issuer("EUR")
    one.fund(b, 50, "EUR")
    one.block(0, one.sign(Leg(a, b, "USD", 40), Leg(b, a, "EUR", 20), Leg(a, c, "USD", 60)))
    assert [one.balance(x)[0] for x in (a, b, c)] == [0, 40, 60]
    assert [one.balance(x, "EUR")[0] for x in (a, b)] == [20, 30]
    one.block(0, one.pay(c, eur, 10), one.pay(eur, a, 4))
    assert (one.balance(eur), one.balance(a)) == ((6, 0), (4, 0)), "an issuer's account is ordinary for other assets"


@pytest.mark.parametrize("amount", [1, 90, 91, 100, 101])
def test_single_leg_shortcut_does_what_reserve_and_apply_do(amount: int) -> None:
    one = Ledgers(1, smallest_balance=10)
    one.fund(one.account(0), 100)
    rules, leg = one.rules[0], Leg(one.account(0), one.account(0, 1), "USD", amount)
    short, long = (Overlay(one.states[0], one.states[0].height + 1, one.now) for _ in range(2))
    code = reserve(long, rules, routed(rules, [leg]))
    assert pay(short, rules, leg) is code
    if code is Code.OK:
        apply(long, rules, routed(rules, [leg]), 0)
    assert (short.balances, short.supply, short.records) == (long.balances, long.supply, long.records)


def test_issuer_mints_up_to_the_cap_and_burns(one: Ledgers) -> None:
    a, usd = one.account(0), one.issuer("USD")
    one.block(0, one.pay(a, usd, 30))
    total = one.states[0].totals().assets[0]
    assert (total.minted, total.burned, total.available, total.held) == (100, 30, 70, 0)
    assert one.states[0].balances_of(usd) == ()
    one.block(0, one.pay(usd, a, MAX_AMOUNT - 70))  # what was burned may be minted again
    assert one.balance(a) == (MAX_AMOUNT, 0)
    too_much = one.pay(usd, a, 1)
    one.block(0, too_much)
    assert one.outcomes(0, too_much) == [(REJECTED, Code.LIMIT_EXCEEDED)]


@pytest.mark.parametrize(
    "legs", [[(0, 1, 1)], [(2, 0, 1)], [(USD, 0, 1)], [(0, USD, 1)], [(USD, 0, 0, UNFREEZE), (0, 1, 1)]], ids=str
)
def test_a_frozen_balance_neither_pays_nor_receives_until_unfrozen(one: Ledgers, legs: Legs) -> None:
    a, b = one.account(0), one.account(0, 1)
    one.fund(a, 5, "EUR")
    one.fund(one.account(0, 2), 5)
    one.block(0, one.freeze(a))
    tried, other_asset = one.sign(*legs_of(one, legs)), one.pay(a, b, 1, "EUR")
    one.block(0, tried, other_asset)
    assert one.outcomes(0, tried) == [(REJECTED, Code.ACCOUNT_FROZEN)]
    assert one.outcomes(0, other_asset) == [(COMMITTED, Code.OK)]
    one.block(0, one.freeze(a, action=UNFREEZE), one.pay(a, b, 1))
    assert one.balance(a) == (99, 0)


def test_an_emptied_balance_has_no_row_unless_it_is_frozen(one: Ledgers) -> None:
    b = one.account(0, 1)
    emptied = one.block(0, one.freeze(b), one.pay(one.account(0), one.account(0, 2), 100)).effects.changes.balances
    assert one.account(0) + b"USD" not in one.states[0].balances
    assert Balance() in [change.balance for change in emptied]
    assert one.states[0].balances_of(b) == (("USD", Balance(frozen=True)),)
    one.block(0, one.freeze(b, action=UNFREEZE))
    assert b + b"USD" not in one.states[0].balances


# -- admission and replay --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payer", "order", "code"),
    [
        (0, {"network": b"another!"}, Code.WRONG_NETWORK),
        (1, {}, Code.WRONG_SHARD),
        (0, {"valid_until": START - 1}, Code.EXPIRED),
        (0, {"valid_until": START}, Code.OK),
        (0, {"valid_until": START + 10_000}, Code.OK),
        (0, {"valid_until": START + 10_001}, Code.LIMIT_EXCEEDED),
    ],
)
def test_admission(payer: int, order: dict[str, Any], code: Code) -> None:
    two = Ledgers(2)
    two.fund(two.account(0), 1)
    transaction = two.sign(Leg(two.account(payer), two.account(1 - payer), "USD", 1), **order)
    assert admit(two.states[0], two.rules[0], transaction.id, transaction, START) is code


def test_a_payer_that_holds_nothing_gets_no_block_space(one: Ledgers) -> None:
    rich, poor, other, eur = one.account(0), one.account(0, 1), one.account(0, 2), one.issuer("EUR")
    one.fund(other, 1, "EUR")
    one.block(0, one.freeze(poor))
    unfunded = [
        one.pay(poor, rich, 1),
        one.sign(Leg(poor, rich, "XXX", 1)),
        one.sign(Leg(poor, rich, "EUR", 0, FREEZE)),
        one.sign(Leg(rich, poor, "USD", 1), Leg(poor, rich, "EUR", 1)),
    ]
    for transaction in unfunded:
        assert admit(one.states[0], one.rules[0], transaction.id, transaction, one.now) is Code.INSUFFICIENT_FUNDS
        with pytest.raises(InvalidBlock, match="insufficient_funds"):
            one.execute(0, transaction)
    hopeless = [one.pay(other, rich, 1), one.pay(eur, rich, 1), one.sign(Leg(other, rich, "XXX", 1))]
    one.block(0, *hopeless)
    assert [one.outcome(0, transaction)[0] for transaction in hopeless] == [REJECTED] * 3, "it has something, if too little"


def test_funds_on_hold_and_those_of_payers_kept_elsewhere_are_no_reason_against_a_transaction() -> None:
    two = Ledgers(2)
    a, b, c = two.account(0), two.account(1), two.account(0, 1)
    two.fund(a, 5)
    two.block(0, two.pay(a, b, 5))
    assert two.balance(a) == (0, 5)
    for transaction in (two.pay(a, c, 1), two.sign(Leg(a, b, "USD", 1), Leg(b, a, "EUR", 1))):
        assert admit(two.states[0], two.rules[0], transaction.id, transaction, two.now) is Code.OK


def test_what_funds_a_payer_earlier_in_the_block_counts_and_what_it_spends_there_does_not_matter(one: Ledgers) -> None:
    a, b, c = (one.account(0, i) for i in range(3))
    there, on, too_late = one.pay(a, b, 100), one.pay(b, c, 100), one.pay(a, c, 1)
    with pytest.raises(InvalidBlock, match="insufficient_funds"):
        one.execute(0, on, there)
    one.block(0, there, on, too_late)
    assert [one.outcome(0, t) for t in (there, on, too_late)] == [
        (COMMITTED, Code.OK),
        (COMMITTED, Code.OK),
        (REJECTED, Code.INSUFFICIENT_FUNDS),
    ]
    with pytest.raises(InvalidBlock, match="insufficient_funds"):
        one.execute(0, one.pay(a, c, 1))


def test_a_bundle_that_funds_a_payer_counts_in_the_same_block() -> None:
    two = Ledgers(2)
    usd, b = two.issuer("USD"), two.account(1)
    minted = two.pay(usd, b, 5)
    two.block(0, minted)
    two.block(1)
    two.block(0)
    with pytest.raises(InvalidBlock, match="insufficient_funds"):
        two.execute(1, two.pay(b, usd, 5))
    spent = two.pay(b, usd, 5)
    two.block(1, spent)
    two.settle()
    assert two.outcome(1, spent) == (COMMITTED, Code.OK)


# -- fees and smallest balances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "legs"),
    [
        (Code.OK, [(0, 1, 50), (0, USD, 3)]),
        (Code.OK, [(0, USD, 3), (0, 1, 50)]),
        (Code.OK, [(0, 1, 50), (1, USD, 3)]),  # whoever pays it
        (Code.OK, [(0, 1, 10), (0, 2, 10), (0, USD, 6)]),
        (Code.OK, [(0, 1, 10), (0, 2, 10), (0, USD, 5), (0, USD, 1)]),
        (Code.OK, [(0, USD, 1)]),  # neither burning nor minting costs a fee
        (Code.OK, [(USD, 0, 10)]),
        (Code.OK, [(USD, 0, 0, FREEZE)]),
        (Code.FEE_MISSING, [(0, 1, 50)]),
        (Code.FEE_MISSING, [(0, 1, 50), (0, USD, 2)]),
        (Code.FEE_MISSING, [(0, 1, 10), (0, 2, 10), (0, USD, 5)]),
        (Code.FEE_MISSING, [(0, 1, 50), (0, EUR, 10)]),
        (Code.FEE_MISSING, [(0, 1, 50), (USD, 2, 100)]),
        (Code.BELOW_SMALLEST_BALANCE, [(0, 1, 9), (0, USD, 3)]),
        (Code.BELOW_SMALLEST_BALANCE, [(USD, 1, 9)]),
    ],
)
def test_an_order_pays_the_fee_of_each_payment_and_pays_nobody_less_than_the_smallest_balance(code: Code, legs: Legs) -> None:
    strict = Ledgers(1, fee=3, smallest_balance=10)
    for number in (0, 1):
        strict.fund(strict.account(0, number), 100)
    transaction = strict.sign(*legs_of(strict, legs))
    assert admit(strict.states[0], strict.rules[0], transaction.id, transaction, strict.now) is code
    if code is Code.OK:
        strict.block(0, transaction)
        assert strict.outcome(0, transaction) == (COMMITTED, Code.OK)
        strict.assert_settled()
    else:
        with pytest.raises(InvalidBlock, match=code):
            strict.execute(0, transaction)


def test_a_participant_refuses_an_order_without_fee_or_of_dust_whoever_sends_it() -> None:
    """A captured home shard may include what it likes."""
    strict = Ledgers(2, fee=3, smallest_balance=10)
    a, b, usd = strict.account(1), strict.account(0), strict.issuer("USD")
    strict.fund(a, 100)
    orders = {
        Code.FEE_MISSING: [Leg(a, b, "USD", 50)],
        Code.BELOW_SMALLEST_BALANCE: [Leg(a, b, "USD", 9), Leg(a, usd, "USD", 3)],
        Code.OK: [Leg(a, b, "USD", 10), Leg(a, usd, "USD", 3)],
    }
    for code, legs in orders.items():
        transaction = strict.sign(*legs)
        answer = strict.inject(1, 0, Prepare(encode(transaction), strict.now + 1_000))
        assert answer == (PrepareVote(transaction.id, code),)


@pytest.mark.parametrize("other", [0, 1], ids=["inside a shard", "across shards"])
@pytest.mark.parametrize(
    ("amount", "outcome"),
    [
        (90, (COMMITTED, Code.OK)),
        (91, (REJECTED, Code.BELOW_SMALLEST_BALANCE)),
        (99, (REJECTED, Code.BELOW_SMALLEST_BALANCE)),
        (100, (COMMITTED, Code.OK)),
        (101, (REJECTED, Code.INSUFFICIENT_FUNDS)),
    ],
)
def test_a_payment_leaves_nothing_or_the_smallest_balance(other: int, amount: int, outcome: tuple[Outcome, Code]) -> None:
    strict = Ledgers(2, smallest_balance=10)
    a, b = strict.account(0), strict.account(other, 1)
    strict.fund(a, 100)
    transaction = strict.pay(a, b, amount)
    strict.block(0, transaction)
    strict.settle()
    assert strict.outcome(0, transaction) == outcome
    strict.assert_settled()


def test_an_id_is_refused_as_long_as_it_is_valid_and_forgotten_then(one: Ledgers) -> None:
    legs = Leg(one.account(0), one.account(0, 1), "USD", 1)
    transactions = [one.sign(legs, valid_until=one.now + i) for i in range(0, 3000, 7)]
    one.block(0, *transactions)
    for _ in range(5):
        for transaction in transactions:
            code = Code.EXPIRED if transaction.order.valid_until < one.now else Code.DUPLICATE
            assert admit(one.states[0], one.rules[0], transaction.id, transaction, one.now) is code
        one.now += 700
        one.block(0)
    assert not all(one.states[0].has_seen(t.id, t.order.valid_until) for t in transactions)


# -- blocks and forks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "time"), [(0, 0), (2, 0), (1, -1)], ids=["height again", "height left out", "back in time"])
def test_a_block_must_follow_its_parent(one: Ledgers, height: int, time: int) -> None:
    state = one.states[0]
    with pytest.raises(InvalidBlock):
        execute(state, one.rules[0], state.height + height, one.now + time, [], [], Transaction.has_valid_signatures)


def test_an_invalid_block_changes_nothing(one: Ledgers) -> None:
    a, b = one.account(0), one.account(0, 1)
    root, totals, transaction = one.states[0].state_root, one.states[0].totals(), one.pay(a, b, 1)
    late = one.sign(Leg(a, b, "USD", 1), valid_until=one.now - 1)
    for reason, transactions in (("expired", (transaction, late)), ("duplicate", (transaction, transaction))):
        with pytest.raises(InvalidBlock, match=reason):
            one.execute(0, *transactions)
    assert (one.states[0].state_root, one.states[0].totals()) == (root, totals)
    assert admit(one.states[0], one.rules[0], transaction.id, transaction, one.now) is Code.OK


def test_forks_on_one_parent_do_not_see_each_other(one: Ledgers) -> None:
    a, b, c = (one.account(0, i) for i in range(3))
    root, first = one.states[0].state_root, one.pay(a, b, 100)
    left, right = one.execute(0, first), one.execute(0, one.pay(a, c, 100))
    left_child, right_child = one.execute(0, one.pay(b, c, 60), parent=left), one.execute(0, parent=right)
    with pytest.raises(InvalidBlock, match="duplicate"):
        one.execute(0, first, parent=left_child)
    grandchild = one.execute(0, one.pay(c, a, 60), parent=left_child)
    assert (one.states[0].state_root, one.balance(a)) == (root, (100, 0))
    for good, bad in ((left, left_child), (left_child, right), (grandchild, right_child)):
        with pytest.raises(ValueError, match="does not stand on"):
            one.states[0].commit(bad.overlay)
        one.states[0].commit(good.overlay)
    with pytest.raises(ValueError, match="does not stand on"):
        one.states[0].commit(grandchild.overlay)
    assert [one.balance(x)[0] for x in (a, b, c)] == [60, 40, 0]


def test_overlays_do_not_pile_up(one: Ledgers) -> None:
    overlays: list[weakref.ref[Overlay]] = []

    def execute_and_commit(blocks: int) -> Execution:  # its frame is over when they are counted: tools that look at it keep them
        pending = one.execute(0)
        for _ in range(blocks):
            overlays.append(weakref.ref(pending.overlay))
            child = one.execute(0, one.pay(one.account(0), one.account(0, 1), 1), parent=pending)
            one.states[0].commit(pending.overlay)
            pending = child
            assert len(pending.overlay.uncommitted()) == 1
        return pending

    pending = execute_and_commit(20)
    gc.collect()
    assert sum(overlay() is not None for overlay in overlays) <= 1
    assert pending.overlay.stands_on(one.states[0])


def test_taking_in_a_deadline_costs_the_same_however_many_are_later(one: Ledgers) -> None:
    """Measured: 1.3 times as much with 400,000 as with 1,000 (a sorted list: 150 times)."""
    state = one.states[0]

    def commit(first: int, count: int) -> float:
        overlay = Overlay(state, state.height + 1, state.time)
        overlay.alarms += [(START + first - i, i.to_bytes(32, "big") + ANSWERED) for i in range(count)]
        overlay.close(state.state_root, state.totals())
        begun = time.perf_counter()
        state.commit(overlay)
        return time.perf_counter() - begun

    def cheapest() -> float:
        return min(commit(10_000 - 100 * n, 100) for n in range(10))

    commit(1_000_000, 1_000)
    few = cheapest()
    commit(1_000_000, 400_000)
    assert cheapest() < 15 * few
    deadlines = (when for when, key in state.alarms_before(1 << 60) if key.endswith(ANSWERED))
    assert next(deadlines) == START + 9_001
