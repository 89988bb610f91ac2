"""One shard's ledger: payments, reason codes, mint and burn, freeze, replay, forks."""

from collections.abc import Callable

import pytest

from node.ledger.execution import InvalidBlock, admit, execute
from node.ledger.state import Overlay, State
from node.ledger.transfer import apply, pay, reserve
from node.protocol import merkle
from node.protocol.block import Balance, Totals
from node.protocol.channel import Bundle, Decision
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import digest
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Leg, Transaction
from tests.unit.ledger_driver import COMMITTED, REJECTED, START, Ledgers


@pytest.fixture
def one() -> Ledgers:
    """One shard; account 0 has 100 USD."""
    ledgers = Ledgers(1)
    ledgers.fund(ledgers.account(0), 100)
    return ledgers


def test_payment_moves_money(one: Ledgers) -> None:
    a, b = one.account(0), one.account(0, 1)
    transaction = one.pay(a, b, 30)
    execution = one.block(0, transaction)
    assert (one.balance(a), one.balance(b)) == ((70, 0), (30, 0))
    assert one.outcomes(0, transaction) == [(COMMITTED, Code.OK)]
    assert [(change.address, change.asset, change.balance) for change in execution.effects.changes.balances] == sorted(
        [(a, "USD", Balance(70)), (b, "USD", Balance(30))]
    )


def test_emptied_balance_is_dropped(one: Ledgers) -> None:
    a, b = one.account(0), one.account(0, 1)
    execution = one.block(0, one.pay(a, b, 100))
    assert one.states[0].balances_of(a) == ()
    assert a + b"USD" not in one.states[0].balances
    assert Balance() in [change.balance for change in execution.effects.changes.balances]


def test_header_roots_are_those_of_the_effects(one: Ledgers) -> None:
    before = one.states[0].state_root
    execution = one.block(0, one.pay(one.account(0), one.account(0, 1), 1), one.pay(one.account(0), one.account(0, 1), 2))
    effects = execution.effects
    assert execution.receipts_root == merkle.root([encode(receipt) for receipt in effects.receipts])
    assert execution.outbox_root == merkle.EMPTY_ROOT
    assert (execution.changes_hash, execution.totals_hash) == (effects.changes.hash(), effects.totals.hash())
    assert execution.state_root == digest("state", before, effects.changes.hash())


REFUSALS: list[tuple[Code, Callable[[Ledgers], Transaction]]] = [
    (Code.INSUFFICIENT_FUNDS, lambda n: n.pay(n.account(0), n.account(0, 1), 101)),
    (Code.INSUFFICIENT_FUNDS, lambda n: n.pay(n.account(0, 1), n.account(0), 1)),
    (Code.INSUFFICIENT_FUNDS, lambda n: n.pay(n.account(0), n.issuer("USD"), 101)),
    (Code.UNKNOWN_ASSET, lambda n: n.pay(n.account(0), n.account(0, 1), 1, "XYZ")),
    (Code.NOT_ISSUER, lambda n: n.sign(Leg(n.account(0), n.account(0, 1), "USD", 0, Action.FREEZE))),
    (Code.NOT_ISSUER, lambda n: n.sign(Leg(n.issuer("EUR"), n.account(0, 1), "USD", 0, Action.UNFREEZE))),
    (Code.LIMIT_EXCEEDED, lambda n: n.pay(n.issuer("USD"), n.account(0), MAX_AMOUNT - 99)),
    (
        Code.LIMIT_EXCEEDED,
        lambda n: n.sign(
            Leg(n.issuer("USD"), n.account(0), "USD", MAX_AMOUNT // 2), Leg(n.issuer("USD"), n.account(0), "USD", MAX_AMOUNT // 2)
        ),
    ),
    # together more than it has, though each leg alone could be paid
    (
        Code.INSUFFICIENT_FUNDS,
        lambda n: n.sign(Leg(n.account(0), n.account(0, 1), "USD", 60), Leg(n.account(0), n.account(0, 2), "USD", 60)),
    ),
    # what is received in the transaction cannot be spent in it
    (
        Code.INSUFFICIENT_FUNDS,
        lambda n: n.sign(Leg(n.account(0), n.account(0, 1), "USD", 60), Leg(n.account(0, 1), n.account(0, 2), "USD", 60)),
    ),
]


@pytest.mark.parametrize(("code", "make"), REFUSALS)
def test_refused_transaction_has_its_reason_and_changes_nothing(
    one: Ledgers, code: Code, make: Callable[[Ledgers], Transaction]
) -> None:
    transaction, totals = make(one), one.states[0].totals()
    execution = one.block(0, transaction)
    assert one.outcomes(0, transaction) == [(REJECTED, code)]
    assert execution.effects.changes.balances == ()
    assert one.states[0].totals() == totals
    assert one.balance(one.account(0)) == (100, 0)
    with pytest.raises(InvalidBlock, match="duplicate"):
        one.block(0, transaction)


def test_all_legs_or_none(one: Ledgers) -> None:
    a, b, c = (one.account(0, i) for i in range(3))
    one.fund(b, 50, "EUR")
    one.block(0, one.sign(Leg(a, b, "USD", 40), Leg(b, a, "EUR", 20), Leg(a, c, "USD", 60)))
    assert one.balance(a) == (0, 0)
    assert one.balance(a, "EUR") == (20, 0)
    assert (one.balance(b), one.balance(b, "EUR"), one.balance(c)) == ((40, 0), (30, 0), (60, 0))
    failing = one.sign(Leg(b, a, "USD", 40), Leg(a, b, "EUR", 21))
    one.block(0, failing)
    assert one.outcomes(0, failing) == [(REJECTED, Code.INSUFFICIENT_FUNDS)]
    assert (one.balance(b), one.balance(a, "EUR")) == ((40, 0), (20, 0))


def test_single_leg_shortcut_does_what_reserve_and_apply_do(one: Ledgers) -> None:
    a, b = one.account(0), one.account(0, 1)
    for amount in (1, 100, 101):
        short, long = (Overlay(one.states[0], one.states[0].height + 1, one.now) for _ in range(2))
        leg = Leg(a, b, "USD", amount)
        code = reserve(long, one.rules[0], [leg])
        assert pay(short, one.rules[0], leg) is code
        if code is Code.OK:
            apply(long, one.rules[0], [leg])
        assert (short.balances, short.supply, short.records) == (long.balances, long.supply, long.records)


def test_issuer_mints_and_burns(one: Ledgers) -> None:
    a, usd = one.account(0), one.issuer("USD")
    one.block(0, one.pay(a, usd, 30))
    total = one.states[0].totals().assets[0]
    assert (total.minted, total.burned, total.available, total.held) == (100, 30, 70, 0)
    assert one.states[0].balances_of(usd) == ()
    one.block(0, one.pay(usd, a, MAX_AMOUNT - 100))
    assert one.balance(a) == (MAX_AMOUNT - 30, 0)
    too_much = one.pay(usd, a, 1)
    one.block(0, too_much)
    assert one.outcomes(0, too_much) == [(REJECTED, Code.LIMIT_EXCEEDED)]


def test_issuer_account_is_ordinary_for_other_assets(one: Ledgers) -> None:
    eur = one.issuer("EUR")
    one.block(0, one.pay(one.account(0), eur, 10), one.pay(eur, one.account(0, 1), 4))
    assert (one.balance(eur), one.balance(one.account(0, 1))) == ((6, 0), (4, 0))


def test_frozen_balance_neither_pays_nor_receives_until_unfrozen(one: Ledgers) -> None:
    a, b, c = (one.account(0, i) for i in range(3))
    one.fund(a, 5, "EUR")
    one.fund(c, 5)
    one.block(0, one.freeze(a))
    tries = [
        one.pay(a, b, 1),
        one.pay(c, a, 1),
        one.pay(one.issuer("USD"), a, 1),
        one.pay(a, one.issuer("USD"), 1),
        one.sign(Leg(one.issuer("USD"), a, "USD", 0, Action.UNFREEZE), Leg(a, b, "USD", 1)),
    ]
    other_asset = one.pay(a, b, 1, "EUR")
    one.block(0, *tries, other_asset)
    assert [one.outcomes(0, t) for t in tries] == [[(REJECTED, Code.ACCOUNT_FROZEN)]] * 5
    assert one.outcomes(0, other_asset) == [(COMMITTED, Code.OK)]
    one.block(0, one.freeze(a, action=Action.UNFREEZE), one.pay(a, b, 1))
    assert one.balance(a) == (99, 0)


def test_empty_account_stays_frozen_and_unfreezing_leaves_no_row(one: Ledgers) -> None:
    b = one.account(0, 1)
    one.block(0, one.freeze(b))
    assert one.states[0].balances_of(b) == (("USD", Balance(frozen=True)),)
    one.block(0, one.freeze(b, action=Action.UNFREEZE))
    assert b + b"USD" not in one.states[0].balances


def test_admission_codes() -> None:
    two = Ledgers(2)
    a, b = two.account(0), two.account(1)
    window, state, rules = 10_000, two.states[0], two.rules[0]

    def code(transaction: Transaction, time: int = START) -> Code:
        return admit(state, rules, transaction.id, transaction, time)

    leg = Leg(a, b, "USD", 1)
    assert code(two.sign(leg, network=b"another!")) is Code.WRONG_NETWORK
    assert code(two.sign(Leg(b, a, "USD", 1))) is Code.WRONG_SHARD
    assert code(two.sign(leg, valid_until=START - 1)) is Code.EXPIRED
    assert code(two.sign(leg, valid_until=START)) is Code.OK
    assert code(two.sign(leg, valid_until=START + window)) is Code.OK
    assert code(two.sign(leg, valid_until=START + window + 1)) is Code.LIMIT_EXCEEDED
    seen = two.sign(leg)
    two.block(0, seen)
    assert code(seen) is Code.DUPLICATE


@pytest.mark.parametrize("wait", [0, 1, 4_999, 5_000])
def test_included_id_is_refused_as_long_as_it_is_valid(one: Ledgers, wait: int) -> None:
    transaction = one.pay(one.account(0), one.account(0, 1), 1)
    one.block(0, transaction)
    one.now += wait
    one.block(0)
    state, rules = one.states[0], one.rules[0]
    assert admit(state, rules, transaction.id, transaction, one.now) is Code.DUPLICATE
    with pytest.raises(InvalidBlock, match="duplicate"):
        one.block(0, transaction)


def test_id_is_forgotten_only_once_expired(one: Ledgers) -> None:
    transactions = [one.sign(Leg(one.account(0), one.account(0, 1), "USD", 1), valid_until=one.now + i) for i in range(3000)]
    one.block(0, *transactions[:100], *transactions[-100:])
    for _ in range(4):
        one.now += 1_000
        one.block(0)
    left = [t for t in transactions if one.states[0].has_seen(t.id, t.order.valid_until)]
    assert len(left) < 100
    assert all(admit(one.states[0], one.rules[0], t.id, t, one.now) is Code.EXPIRED for t in transactions)


def test_duplicate_within_a_block_and_in_a_parent_not_committed_yet(one: Ledgers) -> None:
    transaction = one.pay(one.account(0), one.account(0, 1), 1)
    with pytest.raises(InvalidBlock, match="duplicate"):
        one.execute(0, transaction, transaction)
    parent = one.execute(0, transaction)
    middle = one.execute(0, parent=parent)
    with pytest.raises(InvalidBlock, match="duplicate"):
        one.execute(0, transaction, parent=middle)


def test_block_must_follow_its_parent(one: Ledgers) -> None:
    state, rules = one.states[0], one.rules[0]
    for height, time in [(state.height, one.now), (state.height + 2, one.now), (state.height + 1, one.now - 1)]:
        with pytest.raises(InvalidBlock):
            execute(state, rules, height, time, [], [], Transaction.has_valid_signatures)


def test_forks_on_one_parent_do_not_see_each_other(one: Ledgers) -> None:
    a, b, c = (one.account(0, i) for i in range(3))
    root = one.states[0].state_root
    left = one.execute(0, one.pay(a, b, 100))
    right = one.execute(0, one.pay(a, c, 100))
    left_child = one.execute(0, one.pay(b, c, 60), parent=left)
    assert one.states[0].state_root == root
    assert one.balance(a) == (100, 0)
    one.states[0].commit(left.overlay)
    with pytest.raises(ValueError, match="does not stand on"):
        one.states[0].commit(right.overlay)
    grandchild = one.execute(0, one.pay(c, a, 60), parent=left_child)
    one.states[0].commit(left_child.overlay)
    assert (one.balance(b), one.balance(c)) == ((40, 0), (60, 0))
    one.states[0].commit(grandchild.overlay)
    assert (one.balance(a), one.balance(c)) == ((60, 0), (0, 0))
    with pytest.raises(ValueError, match="does not stand on"):
        one.states[0].commit(grandchild.overlay)


def test_execution_of_an_abandoned_fork_cannot_be_committed(one: Ledgers) -> None:
    a, b = one.account(0), one.account(0, 1)
    left, right = one.execute(0, one.pay(a, b, 1)), one.execute(0, one.pay(a, b, 2))
    right_child = one.execute(0, parent=right)
    one.states[0].commit(left.overlay)
    with pytest.raises(ValueError, match="does not stand on"):
        one.states[0].commit(right_child.overlay)


def test_overlays_do_not_pile_up(one: Ledgers) -> None:
    pending = one.execute(0)
    for _ in range(20):
        child = one.execute(0, one.pay(one.account(0), one.account(0, 1), 1), parent=pending)
        one.states[0].commit(pending.overlay)
        pending = child
        assert len(pending.overlay.uncommitted()) == 1
    assert len(pending.overlay._below) <= 1
    assert not any(overlay._below for overlay in pending.overlay._below)


def test_same_blocks_give_the_same_roots() -> None:
    def play() -> list[bytes]:
        ledgers, roots = Ledgers(1), []
        for i in range(12):
            mint = ledgers.pay(ledgers.issuer("USD"), ledgers.account(0), 100)
            roots.append(ledgers.block(0, mint, ledgers.pay(ledgers.account(0), ledgers.account(0, i % 4 + 1), i + 1)).state_root)
        return roots

    roots = play()
    assert roots == play()
    assert len(set(roots)) == len(roots)


def test_nothing_changes_when_a_block_is_invalid(one: Ledgers) -> None:
    root, totals = one.states[0].state_root, one.states[0].totals()
    transaction = one.pay(one.account(0), one.account(0, 1), 1)
    late = one.sign(Leg(one.account(0), one.account(0, 1), "USD", 1), valid_until=one.now - 1)
    with pytest.raises(InvalidBlock, match="expired"):
        one.execute(0, transaction, late)
    assert (one.states[0].state_root, one.states[0].totals()) == (root, totals)
    assert admit(one.states[0], one.rules[0], transaction.id, transaction, one.now) is Code.OK


def test_single_shard_refuses_bundles(one: Ledgers) -> None:
    with pytest.raises(InvalidBlock, match="unknown shard"):
        one.execute(0, bundles=[Bundle(0, 0, 1, (Decision(bytes(32), True),))])


def test_genesis_state_is_empty() -> None:
    state = State.genesis(Ledgers(1).rules[0])
    assert (state.height, state.time, state.state_root, state.totals()) == (0, START, bytes(32), Totals((), 0))
