"""Transactions over several shards: every row of the tables in ``two_phase_commit``."""

import pytest

from node.ledger import two_phase_commit
from node.ledger.rows import ANSWERED, CURSOR, ISSUER, SEQUENCE, Flow, Prepared, Waiting, channel_key, flow_key
from node.protocol.block import Balance
from node.protocol.channel import Decision, Prepare, PrepareVote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Leg, Transaction, Witness
from tests.unit.ledger_driver import COMMITTED, EXPIRED, PREPARED, REJECTED, Ledgers

TIMEOUT = 1_000
OK = Code.OK


@pytest.fixture
def two() -> Ledgers:
    """Two shards; account 0 in each has 100 USD (issued in shard 0)."""
    ledgers = Ledgers(2)
    ledgers.fund(ledgers.account(0), 100)
    ledgers.fund(ledgers.account(1), 100)
    return ledgers


@pytest.fixture
def three() -> Ledgers:
    """Three shards; account 0 in each has 100 USD (issued in 0) and 100 EUR (issued in 2)."""
    ledgers = Ledgers(3)
    for shard in range(3):
        ledgers.fund(ledgers.account(shard), 100)
        ledgers.fund(ledgers.account(shard), 100, "EUR")
    return ledgers


def sent(ledgers: Ledgers, source: int, destination: int) -> list[object]:
    return [record for bundle in ledgers.channels[source, destination] for record in bundle.records]


def assert_nothing_left(ledgers: Ledgers) -> None:
    for shard, state in enumerate(ledgers.states):
        assert state.totals().pending == 0
        assert not any(isinstance(record, Waiting | Prepared) for record in state.records.values())
        assert all(total.held == 0 for total in state.totals().assets)
        assert state.undecided.get(shard, 0) == 0
    for asset in ("USD", "EUR"):
        inside, issued = ledgers.supply(asset)
        assert (inside, ledgers.in_flight(asset)) == (issued, 0)


def test_payment_to_another_shard_step_by_step(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.pay(a, b, 30)
    two.block(0, transaction)
    assert two.outcomes(0, transaction) == [(PREPARED, OK)]
    assert two.balance(a) == (70, 30)
    assert sent(two, 0, 1) == [Prepare(encode(transaction), two.now + TIMEOUT)]
    assert two.states[0].totals().pending == 1
    two.block(1)
    assert two.balance(b) == (100, 0)
    assert two.outcomes(1, transaction) == []
    assert sent(two, 1, 0) == [PrepareVote(transaction.id, OK)]
    assert two.states[1].totals().pending == 1
    two.block(0)
    assert two.outcomes(0, transaction) == [(PREPARED, OK), (COMMITTED, OK)]
    assert two.balance(a) == (70, 0)
    assert sent(two, 0, 1) == [Decision(transaction.id, True)]
    assert two.in_flight("USD") == 30
    two.block(1)
    assert two.outcomes(1, transaction) == [(COMMITTED, OK)]
    assert two.balance(b) == (130, 0)
    assert_nothing_left(two)


def test_other_payments_of_the_account_go_on_while_a_hold_is_taken(two: Ledgers) -> None:
    a, b, c = two.account(0), two.account(1), two.account(0, 1)
    fits, too_much = two.pay(a, c, 70), two.pay(a, c, 1)
    two.block(0, two.pay(a, b, 30), fits, too_much)
    assert two.outcomes(0, fits) == [(COMMITTED, OK)]
    assert two.outcomes(0, too_much) == [(REJECTED, Code.INSUFFICIENT_FUNDS)]
    two.settle()
    assert (two.balance(a), two.balance(b), two.balance(c)) == ((0, 0), (130, 0), (70, 0))


@pytest.mark.parametrize("case", ["funds", "asset", "frozen payee", "not issuer"])
def test_home_refuses_at_once(two: Ledgers, case: str) -> None:
    a, b, c = two.account(0), two.account(1), two.account(0, 1)
    if case == "frozen payee":
        two.block(0, two.freeze(c))
    transaction, code = {
        "funds": (two.pay(a, b, 101), Code.INSUFFICIENT_FUNDS),
        "asset": (two.sign(Leg(a, c, "USD", 1), Leg(b, a, "XYZ", 1)), Code.UNKNOWN_ASSET),
        "frozen payee": (two.sign(Leg(a, c, "USD", 1), Leg(b, a, "USD", 1)), Code.ACCOUNT_FROZEN),
        "not issuer": (two.sign(Leg(a, b, "USD", 0, Action.FREEZE)), Code.NOT_ISSUER),
    }[case]
    execution = two.block(0, transaction)
    assert two.outcomes(0, transaction) == [(REJECTED, code)]
    assert execution.outbox == ()
    assert two.balance(a) == (100, 0)


@pytest.mark.parametrize("case", ["funds", "frozen payee", "frozen payer", "signature"])
def test_participant_refuses_with_its_reason(two: Ledgers, case: str) -> None:
    a, b, d = two.account(0), two.account(1), two.account(1, 1)
    transaction = two.sign(Leg(a, b, "USD", 10), Leg(b, a, "USD", 101 if case == "funds" else 5))
    code = Code.ACCOUNT_FROZEN
    if case == "funds":
        code = Code.INSUFFICIENT_FUNDS
    elif case == "frozen payee":
        transaction = two.sign(Leg(a, d, "USD", 10))
        two.block(0, two.freeze(d))
    elif case == "frozen payer":
        two.block(0, two.freeze(b))
    else:
        first, second = transaction.witnesses
        forged = Witness(second.public_key, first.signature)
        transaction, code = Transaction(transaction.order, (first, forged)), Code.BAD_SIGNATURE
    two.settle()
    two.block(0, transaction)
    two.block(1)
    assert sent(two, 1, 0) == [PrepareVote(transaction.id, code)]
    two.block(0)
    assert two.outcomes(0, transaction) == [(PREPARED, OK), (REJECTED, code)]
    assert sent(two, 0, 1) == []  # who refused is not told
    assert two.outcomes(1, transaction) == []
    assert (two.balance(a), two.balance(b)) == ((100, 0), (100, 0))
    assert_nothing_left(two)


def test_participant_checks_only_the_signatures_of_its_own_payers(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.sign(Leg(a, b, "USD", 10), Leg(b, a, "USD", 5))
    first, second = transaction.witnesses
    forged_elsewhere = Transaction(transaction.order, (Witness(first.public_key, second.signature), second))
    execution = two.inject(0, 1, Prepare(encode(forged_elsewhere), two.now + TIMEOUT))
    assert execution.outbox[0].records == (PrepareVote(transaction.id, OK),)


def test_refusal_aborts_those_who_may_be_prepared(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    transaction = three.sign(Leg(a, b, "USD", 10), Leg(b, c, "USD", 20), Leg(c, a, "USD", 200))
    three.block(0, transaction)
    three.block(1)
    three.block(2)
    assert three.balance(b) == (80, 20)
    three.block(0)
    assert three.outcomes(0, transaction)[-1] == (REJECTED, Code.INSUFFICIENT_FUNDS)
    assert sent(three, 0, 1) == [Decision(transaction.id, False)]
    assert sent(three, 0, 2) == []
    three.block(1)
    assert three.outcomes(1, transaction) == [(REJECTED, OK)]
    assert [three.balance(account) for account in (a, b, c)] == [(100, 0)] * 3
    assert_nothing_left(three)


def test_refusal_decides_before_the_other_answers_and_its_late_vote_is_ignored(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    transaction = three.sign(Leg(a, b, "USD", 10), Leg(c, b, "USD", 200))
    three.block(0, transaction)
    three.block(2)
    three.block(0)
    assert three.outcomes(0, transaction)[-1] == (REJECTED, Code.INSUFFICIENT_FUNDS)
    three.block(1, take=1)
    execution = three.block(0)
    assert execution.effects.receipts == ()
    three.settle()
    assert_nothing_left(three)


def test_commit_waits_for_all(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    transaction = three.sign(Leg(a, b, "USD", 10), Leg(a, c, "USD", 20))
    three.block(0, transaction)
    three.block(1)
    three.block(0)
    assert three.outcomes(0, transaction) == [(PREPARED, OK)]
    assert three.balance(a) == (70, 30)
    three.block(2)
    three.block(0)
    assert three.outcomes(0, transaction)[-1] == (COMMITTED, OK)
    three.settle()
    assert [three.balance(account)[0] for account in (a, b, c)] == [70, 110, 120]
    assert_nothing_left(three)


def test_several_payers_and_payees_over_three_shards(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    a2, b2 = three.account(0, 1), three.account(1, 1)
    transaction = three.sign(
        Leg(a, b, "USD", 10),
        Leg(a, c, "USD", 20),
        Leg(b, c, "USD", 30),
        Leg(b, b2, "USD", 5),
        Leg(c, a2, "USD", 7),
        Leg(c, a, "EUR", 9),
    )
    three.block(0, transaction)
    three.settle()
    assert [three.outcomes(shard, transaction)[-1] for shard in range(3)] == [(COMMITTED, OK)] * 3
    assert [three.balance(x)[0] for x in (a, b, c, a2, b2)] == [70, 75, 143, 7, 5]
    assert [three.balance(x, "EUR")[0] for x in (a, c)] == [109, 91]
    assert_nothing_left(three)


@pytest.mark.parametrize(("euros", "done"), [(90, True), (101, False)])
def test_exchange_of_two_assets_happens_entirely_or_not_at_all(two: Ledgers, euros: int, done: bool) -> None:
    a, b = two.account(0), two.account(1)
    two.fund(b, 100, "EUR")
    transaction = two.sign(Leg(a, b, "USD", 99), Leg(b, a, "EUR", euros))
    two.block(0, transaction)
    two.settle()
    expected = [(1, 0), (90, 0), (199, 0), (10, 0)] if done else [(100, 0), (0, 0), (100, 0), (100, 0)]
    assert [two.balance(a), two.balance(a, "EUR"), two.balance(b), two.balance(b, "EUR")] == expected
    assert_nothing_left(two)


def test_deadline_expires_and_a_late_yes_is_ignored(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.pay(a, b, 30)
    two.block(0, transaction)
    two.block(1)  # its vote is on the way
    two.now += TIMEOUT
    two.block(0, take=0)
    assert two.outcomes(0, transaction) == [(PREPARED, OK)]  # at the deadline there is still time
    two.now += 1
    two.block(0, take=0)
    assert two.outcomes(0, transaction)[-1] == (EXPIRED, Code.EXPIRED)
    assert two.balance(a) == (100, 0)
    assert sent(two, 0, 1) == [Decision(transaction.id, False)]
    execution = two.block(0)
    assert execution.effects.receipts == ()
    two.settle()
    assert two.outcomes(1, transaction) == [(REJECTED, OK)]
    assert two.balance(b) == (100, 0)
    assert_nothing_left(two)


def test_vote_in_the_block_that_would_expire_it_counts(two: Ledgers) -> None:
    transaction = two.pay(two.account(0), two.account(1), 30)
    two.block(0, transaction)
    two.block(1)
    two.now += TIMEOUT + 1
    two.block(0)
    assert two.outcomes(0, transaction)[-1] == (COMMITTED, OK)


def test_deadline_counts_in_blocks_not_committed_yet(two: Ledgers) -> None:
    transaction = two.pay(two.account(0), two.account(1), 30)
    parent = two.execute(0, transaction)
    two.now += TIMEOUT + 1
    child = two.execute(0, parent=parent)
    assert [(r.outcome, r.code) for r in child.effects.receipts] == [(EXPIRED, Code.EXPIRED)]
    grandchild = two.execute(0, parent=child)
    assert grandchild.effects.receipts == ()


def test_participant_past_the_deadline_refuses_as_expired(two: Ledgers) -> None:
    transaction = two.pay(two.account(0), two.account(1), 30)
    two.block(0, transaction)
    two.now += TIMEOUT + 1
    two.block(1)
    assert sent(two, 1, 0) == [PrepareVote(transaction.id, Code.EXPIRED)]
    two.now -= 1  # home chain is behind: it learns from the vote
    two.block(0)
    assert two.outcomes(0, transaction)[-1] == (EXPIRED, Code.EXPIRED)
    assert sent(two, 0, 1) == []
    assert_nothing_left(two)


def test_account_frozen_after_its_vote_still_pays_and_is_paid(two: Ledgers) -> None:
    a, b, d = two.account(0), two.account(1), two.account(1, 1)
    transaction = two.sign(Leg(a, d, "USD", 10), Leg(b, a, "USD", 20))
    two.block(0, transaction)
    two.block(1)
    freezes = [two.freeze(b), two.freeze(d)]
    two.block(0, *freezes, take=0)  # decided before the transaction: their Prepares go out first
    two.block(1)
    two.settle()
    assert two.outcomes(0, transaction)[-1] == (COMMITTED, OK)
    assert [two.outcomes(0, freeze)[-1] for freeze in freezes] == [(COMMITTED, OK)] * 2
    assert (two.balance(a), two.balance(b), two.balance(d)) == ((110, 0), (80, 0), (10, 0))
    assert all(dict(two.states[1].balances_of(x))["USD"].frozen for x in (b, d))
    refused = two.pay(a, d, 1)
    two.block(0, refused)
    two.settle()
    assert two.outcomes(0, refused)[-1] == (REJECTED, Code.ACCOUNT_FROZEN)


def test_frozen_account_stays_frozen_when_its_hold_is_spent_or_given_back(two: Ledgers) -> None:
    a, b, c, d = two.account(0), two.account(1), two.account(0, 1), two.account(1, 1)
    two.fund(c, 50)
    two.block(0, two.freeze(d))
    two.settle()
    done, undone = two.sign(Leg(a, b, "USD", 10), Leg(b, a, "USD", 1)), two.pay(c, d, 50)
    two.block(0, done, undone, two.freeze(a), two.freeze(c))
    two.settle()
    assert [two.outcomes(0, t)[-1][0] for t in (done, undone)] == [COMMITTED, REJECTED]
    assert two.states[0].balances_of(a) == (("USD", Balance(91, 0, True)),)
    assert two.states[0].balances_of(c) == (("USD", Balance(50, 0, True)),)


def test_mint_and_burn_across_shards_count_where_the_issuer_lives(two: Ledgers) -> None:
    b, usd = two.account(1), two.issuer("USD")
    two.block(1, two.pay(b, usd, 30))
    two.settle()
    home, there = (state.totals().assets[0] for state in two.states)
    assert (home.minted, home.burned, there.minted, there.burned) == (200, 30, 0, 0)
    assert [(p.shard, p.exported, p.imported) for p in home.peers] == [(1, 100, 30)]
    assert [(p.shard, p.exported, p.imported) for p in there.peers] == [(0, 30, 100)]
    assert_nothing_left(two)


def test_supply_cap_counts_pending_mints(two: Ledgers) -> None:
    usd = two.issuer("USD")
    big = two.pay(usd, two.account(1), MAX_AMOUNT - 200)
    over = two.pay(usd, two.account(0), 1)
    two.block(0, big, over)
    assert two.outcomes(0, big) == [(PREPARED, OK)]
    assert two.outcomes(0, over) == [(REJECTED, Code.LIMIT_EXCEEDED)]
    two.settle()
    assert two.balance(two.account(1)) == (MAX_AMOUNT - 100, 0)
    again = two.pay(usd, two.account(1), 1)
    two.block(0, again)
    assert two.outcomes(0, again) == [(REJECTED, Code.LIMIT_EXCEEDED)]


def test_released_mint_frees_its_room_under_the_cap(two: Ledgers) -> None:
    usd, d = two.issuer("USD"), two.account(1, 1)
    two.block(0, two.freeze(d))
    two.settle()
    refused = two.pay(usd, d, MAX_AMOUNT - 200)
    two.block(0, refused)
    two.settle()
    assert two.outcomes(0, refused)[-1] == (REJECTED, Code.ACCOUNT_FROZEN)
    assert two.states[0].flow(flow_key(ISSUER, b"USD")) == Flow(200)
    two.fund(two.account(0), MAX_AMOUNT - 200)


def test_money_sent_to_and_fro_meets_a_limit_before_the_figures_overflow(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    two.fund(a, MAX_AMOUNT - 200)
    two.block(0, two.pay(a, b, MAX_AMOUNT - 100))
    two.settle()
    two.block(1, two.pay(b, a, MAX_AMOUNT - 100))
    two.settle()
    over = two.pay(a, b, 101)
    two.block(0, over)
    assert two.outcomes(0, over) == [(REJECTED, Code.LIMIT_EXCEEDED)]
    assert two.balance(a) == (MAX_AMOUNT - 100, 0)


def test_waiting_queue_is_bounded(two: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_phase_commit, "MAX_WAITING", 2)
    transactions = [two.pay(two.account(0), two.account(1), 1) for _ in range(3)]
    two.block(0, *transactions)
    assert two.outcomes(0, transactions[2]) == [(REJECTED, Code.LIMIT_EXCEEDED)]
    two.settle()
    more = two.pay(two.account(0), two.account(1), 1)
    two.block(0, more)
    assert two.outcomes(0, more) == [(PREPARED, OK)]


# What only a captured committee sends.


def test_prepared_queue_of_one_home_is_bounded(two: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_phase_commit, "MAX_WAITING", 1)
    transactions = [two.pay(two.account(0), two.account(1), 1) for _ in range(2)]
    execution = two.inject(0, 1, *(Prepare(encode(t), two.now + TIMEOUT) for t in transactions))
    assert [vote.code for vote in execution.outbox[0].records if isinstance(vote, PrepareVote)] == [OK, Code.LIMIT_EXCEEDED]


def test_prepare_that_is_no_transaction(two: Ledgers) -> None:
    a = two.account(0)
    good = two.pay(a, two.account(1), 1)
    against_a_rule = Transaction(good.order, good.witnesses * 2)
    execution = two.inject(
        0, 1, Prepare(b"", 1), Prepare(b"\xc1" * 50, 1), Prepare(bytes(5000), 1), Prepare(encode(against_a_rule), two.now)
    )
    assert execution.outbox[0].records == (PrepareVote(good.id, Code.MALFORMED),)


@pytest.mark.parametrize("case", ["source", "untouched", "network", "deadline", "window"])
def test_prepare_against_the_protocol(two: Ledgers, case: str) -> None:
    a, b = two.account(0), two.account(1)
    deadline = two.now + TIMEOUT
    transaction, code = {
        "source": (two.pay(b, a, 1), Code.WRONG_SHARD),
        "untouched": (two.pay(a, two.account(0, 1), 1), Code.WRONG_SHARD),
        "network": (two.sign(Leg(a, b, "USD", 1), network=b"another!"), Code.WRONG_NETWORK),
        "deadline": (two.sign(Leg(a, b, "USD", 1), valid_until=two.now - 1), Code.EXPIRED),
        "window": (two.sign(Leg(a, b, "USD", 1), valid_until=two.now + 10_000 + TIMEOUT + 1), Code.LIMIT_EXCEEDED),
    }[case]
    execution = two.inject(0, 1, Prepare(encode(transaction), deadline))
    assert execution.outbox[0].records == (PrepareVote(transaction.id, code),)
    assert two.states[1].totals().pending == 0


def test_one_signature_is_good_for_one_payment(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.sign(Leg(a, b, "USD", 1), Leg(b, a, "USD", 40))
    prepare = Prepare(encode(transaction), two.now + TIMEOUT)
    execution = two.inject(0, 1, prepare, prepare, Decision(transaction.id, True), prepare)
    votes = [record.code for record in execution.outbox[0].records if isinstance(record, PrepareVote)]
    assert votes == [OK, Code.DUPLICATE, Code.DUPLICATE]
    two.channels[1, 0].clear()
    until = transaction.order.valid_until + TIMEOUT
    two.now = until
    assert two.inject(0, 1, prepare).outbox[0].records == (PrepareVote(transaction.id, Code.EXPIRED),)
    late = Prepare(prepare.transaction, until)
    two.channels[1, 0].clear()
    assert two.inject(0, 1, late).outbox[0].records == (PrepareVote(transaction.id, Code.DUPLICATE),)
    two.channels[1, 0].clear()
    two.now += 1
    two.block(1)
    assert transaction.id + ANSWERED not in two.states[1].records
    assert two.inject(0, 1, late, Prepare(prepare.transaction, two.now)).outbox[0].records == (
        (PrepareVote(transaction.id, Code.EXPIRED),) * 2
    )
    assert two.balance(b) == (61, 0)


def test_prepare_again_of_what_is_prepared_is_refused(two: Ledgers) -> None:
    transaction = two.pay(two.account(0), two.account(1), 1)
    prepare = Prepare(encode(transaction), two.now + TIMEOUT)
    execution = two.inject(0, 1, prepare, prepare)
    assert execution.outbox[0].records == (PrepareVote(transaction.id, OK), PrepareVote(transaction.id, Code.DUPLICATE))
    assert two.states[1].totals().pending == 1


def test_refused_prepare_leaves_no_row(two: Ledgers) -> None:
    transaction = two.sign(Leg(two.account(0), two.account(1), "EUR", 1), Leg(two.account(1), two.account(0), "EUR", 1))
    records = dict(two.states[1].records)
    two.inject(0, 1, Prepare(encode(transaction), two.now + TIMEOUT))
    changed = {key for key in two.states[1].records if records.get(key) != two.states[1].records[key]}
    assert changed == {channel_key(0, CURSOR), channel_key(0, SEQUENCE)}


def test_wake_up_calls_of_decided_transactions_are_dropped(two: Ledgers) -> None:
    two.block(0, two.pay(two.account(0), two.account(1), 1))
    two.settle()
    assert len(two.states[0].alarms_before(two.now + TIMEOUT + 1)) == 2  # a mint and the payment
    two.now += TIMEOUT + 1
    two.block(0)
    assert two.states[0].alarms_before(1 << 60) == []


def test_receiving_account_cannot_be_overflowed(three: Ledgers) -> None:
    b = three.account(1)
    fake = [three.sign(Leg(three.account(shard), b, "USD", MAX_AMOUNT - 1000), salt=7) for shard in (0, 2)]
    three.inject(0, 1, Prepare(encode(fake[0]), three.now + TIMEOUT), Decision(fake[0].id, True))
    execution = three.inject(2, 1, Prepare(encode(fake[1]), three.now + TIMEOUT))
    assert PrepareVote(fake[1].id, Code.LIMIT_EXCEEDED) in execution.outbox[0].records
    assert three.balance(b) == (MAX_AMOUNT - 900, 0)


def test_decision_of_another_shard_or_for_nothing_is_ignored(three: Ledgers) -> None:
    a, b = three.account(0), three.account(1)
    transaction = three.sign(Leg(a, three.account(2), "USD", 1), Leg(b, a, "USD", 40))
    three.block(0, transaction)
    three.block(1)
    for record in (Decision(transaction.id, True), Decision(transaction.id, False), Decision(bytes(32), True)):
        assert three.inject(2, 1, record).effects.receipts == ()
    assert three.balance(b) == (60, 40)


def test_votes_of_strangers_and_second_votes_are_ignored(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    to_both = three.sign(Leg(a, b, "USD", 10), Leg(a, c, "USD", 20))
    to_one = three.sign(Leg(a, b, "USD", 10))
    three.block(0, to_both, to_one)
    three.inject(2, 0, PrepareVote(to_one.id, OK), PrepareVote(to_one.id, Code.BAD_SIGNATURE), PrepareVote(bytes(32), OK))
    assert three.outcomes(0, to_one) == [(PREPARED, OK)]
    three.inject(1, 0, PrepareVote(to_both.id, OK), PrepareVote(to_both.id, OK), PrepareVote(to_both.id, Code.BAD_SIGNATURE))
    assert three.outcomes(0, to_both) == [(PREPARED, OK)]


def test_refused_first_mint_leaves_no_trace_in_the_state() -> None:
    ledgers = Ledgers(2)
    d = ledgers.account(1)
    ledgers.block(0, ledgers.freeze(d))
    ledgers.settle()
    ledgers.block(0, ledgers.pay(ledgers.issuer("USD"), d, 5))
    assert flow_key(ISSUER, b"USD") in ledgers.states[0].records
    ledgers.settle()
    assert {key[-1:] for state in ledgers.states for key in state.records} == {CURSOR, SEQUENCE}
