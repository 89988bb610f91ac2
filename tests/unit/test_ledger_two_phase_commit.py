"""Transactions over several shards: every row of the tables in ``two_phase_commit``."""

from typing import Any

import pytest

from node.ledger import two_phase_commit
from node.ledger.rows import ANSWERED, CURSOR, ISSUER, REPLAYED, SEQUENCE, Flow, channel_key, flow_key
from node.protocol.block import Balance
from node.protocol.channel import Decision, Prepare, PrepareVote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Leg, Transaction, Witness
from tests.unit.ledger_driver import ASSETS, COMMITTED, EXPIRED, PREPARED, REJECTED, Ledgers

TIMEOUT = 1_000
OK = Code.OK


@pytest.fixture
def two() -> Ledgers:
    """Two shards; account 0 in each has 100 USD (issued in shard 0)."""
    ledgers = Ledgers(2)
    for shard in range(2):
        ledgers.fund(ledgers.account(shard), 100)
    return ledgers


@pytest.fixture
def three() -> Ledgers:
    """Three shards; account 0 in each has 100 USD (issued in 0) and 100 EUR (issued in 2)."""
    ledgers = Ledgers(3)
    for shard in range(3):
        for asset in ASSETS:
            ledgers.fund(ledgers.account(shard), 100, asset)
    return ledgers


def prepare(ledgers: Ledgers, transaction: Transaction, deadline: int = TIMEOUT) -> Prepare:
    return Prepare(encode(transaction), ledgers.now + deadline)


def vote(transaction: Transaction, code: Code = OK) -> PrepareVote:
    return PrepareVote(transaction.id, code)


def with_witnesses(transaction: Transaction, *order: int) -> Transaction:
    """With the signatures at these places under the public keys in their order."""
    witnesses = transaction.witnesses
    swapped = (Witness(own.public_key, witnesses[i].signature) for own, i in zip(witnesses, order, strict=True))
    return Transaction(transaction.order, tuple(swapped))


# -- what honest shards do -------------------------------------------------------------------------------------------


def test_payment_to_another_shard_step_by_step(two: Ledgers) -> None:
    a, b, c = two.account(0), two.account(1), two.account(0, 1)
    transaction, fits, too_much = two.pay(a, b, 30), two.pay(a, c, 70), two.pay(a, c, 1)
    two.block(0, transaction, fits, too_much)
    assert [two.outcome(0, t) for t in (transaction, fits)] == [(PREPARED, OK), (COMMITTED, OK)]
    assert two.outcome(0, too_much) == (REJECTED, Code.INSUFFICIENT_FUNDS)
    assert two.sent(0, 1) == [prepare(two, transaction)]
    assert (two.balance(a), two.states[0].totals().pending) == ((0, 30), 1)
    two.block(1)
    assert two.sent(1, 0) == [vote(transaction)]
    assert (two.balance(b), two.states[1].totals().pending, two.outcomes(1, transaction)) == ((100, 0), 1, [])
    two.block(0)
    assert two.outcomes(0, transaction) == [(PREPARED, OK), (COMMITTED, OK)]
    assert (two.sent(0, 1), two.balance(a)) == ([Decision(transaction.id, True)], (0, 0))
    two.assert_conserved()
    two.block(1)
    assert (two.outcomes(1, transaction), two.balance(b)) == ([(COMMITTED, OK)], (130, 0))
    two.assert_settled()


@pytest.mark.parametrize(
    ("legs", "code"),
    [
        ([("a", "b", "USD", 101)], Code.INSUFFICIENT_FUNDS),
        ([("a", "b", "USD", 60), ("a", "c", "USD", 60)], Code.INSUFFICIENT_FUNDS),
        ([("a", "c", "USD", 1), ("b", "a", "XYZ", 1)], Code.UNKNOWN_ASSET),
        ([("a", "frozen", "USD", 1), ("b", "a", "USD", 1)], Code.ACCOUNT_FROZEN),
        ([("a", "b", "USD", 0, Action.FREEZE)], Code.NOT_ISSUER),
    ],
)
def test_home_refuses_at_once(two: Ledgers, legs: list[Any], code: Code) -> None:
    who = {"a": two.account(0), "b": two.account(1), "c": two.account(0, 1), "frozen": two.account(0, 2)}
    two.block(0, two.freeze(who["frozen"]))
    transaction = two.sign(*(Leg(who[payer], who[payee], *rest) for payer, payee, *rest in legs))
    assert two.block(0, transaction).outbox == ()
    assert (two.outcomes(0, transaction), two.balance(who["a"])) == ([(REJECTED, code)], (100, 0))


@pytest.mark.parametrize("case", ["funds", "frozen payee", "frozen payer", "signature"])
def test_participant_refuses_with_its_reason(two: Ledgers, case: str) -> None:
    a, b, d = two.account(0), two.account(1), two.account(1, 1)
    transaction = two.sign(Leg(a, d, "USD", 10), Leg(b, a, "USD", 101 if case == "funds" else 5))
    code = Code.INSUFFICIENT_FUNDS if case == "funds" else Code.ACCOUNT_FROZEN
    if case.startswith("frozen"):
        two.block(0, two.freeze(d if case == "frozen payee" else b))
        two.settle()
    if case == "signature":
        transaction, code = with_witnesses(transaction, 0, 0), Code.BAD_SIGNATURE
    two.block(0, transaction)
    two.block(1)
    assert two.sent(1, 0) == [vote(transaction, code)]
    two.block(0)
    assert two.outcomes(0, transaction) == [(PREPARED, OK), (REJECTED, code)]
    assert (two.sent(0, 1), two.outcomes(1, transaction)) == ([], []), "who refused is not told"
    assert (two.balance(a), two.balance(b)) == ((100, 0), (100, 0))
    two.assert_settled()


def test_a_refusal_decides_before_the_other_answers_and_aborts_it(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    transaction = three.sign(Leg(a, b, "USD", 10), Leg(b, c, "USD", 20), Leg(c, a, "USD", 200))
    three.block(0, transaction)
    three.block(2)
    three.block(0)
    assert three.outcome(0, transaction) == (REJECTED, Code.INSUFFICIENT_FUNDS)
    assert (three.sent(0, 1)[1:], three.sent(0, 2)) == ([Decision(transaction.id, False)], [])
    three.block(1, take=1)
    assert three.balance(b) == (80, 20)
    assert three.block(0).effects.receipts == (), "its late vote"
    three.block(1)
    assert three.outcomes(1, transaction) == [(REJECTED, OK)]
    assert [three.balance(account) for account in (a, b, c)] == [(100, 0)] * 3
    three.assert_settled()


def test_several_payers_and_payees_commit_when_all_shards_said_yes(three: Ledgers) -> None:
    a, b, c, a2, b2 = (three.account(shard, n) for shard, n in ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1)))
    pays = [(a, b, 10), (a, c, 20), (b, c, 30), (b, b2, 5), (c, a2, 7)]
    transaction = three.sign(*(Leg(x, y, "USD", amount) for x, y, amount in pays), Leg(c, a, "EUR", 9))
    three.block(0, transaction)
    three.block(1)
    three.block(0)
    assert three.outcomes(0, transaction) == [(PREPARED, OK)], "shard 2 has not answered"
    three.settle()
    assert [three.outcome(shard, transaction) for shard in range(3)] == [(COMMITTED, OK)] * 3
    assert [three.balance(x)[0] for x in (a, b, c, a2, b2)] == [70, 75, 143, 7, 5]
    assert [three.balance(x, "EUR")[0] for x in (a, c)] == [109, 91]
    three.assert_settled()


# -- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vote_arrives", [False, True])
def test_a_deadline_expires_unless_the_vote_is_in_the_same_block_and_a_late_yes_is_ignored(
    two: Ledgers, vote_arrives: bool
) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.pay(a, b, 30)
    two.block(0, transaction)
    two.block(1)  # its vote is on the way
    two.now += TIMEOUT
    two.block(0, take=0)
    assert two.outcomes(0, transaction) == [(PREPARED, OK)], "at the deadline there is still time"
    two.now += 1
    two.block(0, take=vote_arrives)
    assert two.sent(0, 1) == [Decision(transaction.id, vote_arrives)]
    assert two.outcome(0, transaction) == ((COMMITTED, OK) if vote_arrives else (EXPIRED, Code.EXPIRED))
    assert two.block(0).effects.receipts == ()
    two.settle()
    assert two.outcomes(1, transaction) == [(COMMITTED if vote_arrives else REJECTED, OK)]
    assert (two.balance(a), two.balance(b)) == (((70, 0), (130, 0)) if vote_arrives else ((100, 0), (100, 0)))
    two.assert_settled()


def test_a_deadline_counts_in_blocks_not_committed_yet(two: Ledgers) -> None:
    parent = two.execute(0, two.pay(two.account(0), two.account(1), 30))
    two.now += TIMEOUT + 1
    child = two.execute(0, parent=parent)
    assert [(r.outcome, r.code) for r in child.effects.receipts] == [(EXPIRED, Code.EXPIRED)]
    assert two.execute(0, parent=child).effects.receipts == ()


@pytest.mark.parametrize(("late", "code"), [(0, OK), (1, Code.EXPIRED)])
def test_a_participant_past_the_deadline_refuses_as_expired(two: Ledgers, late: int, code: Code) -> None:
    transaction = two.pay(two.account(0), two.account(1), 30)
    two.block(0, transaction)
    two.now += TIMEOUT + late
    two.block(1)
    assert two.sent(1, 0) == [vote(transaction, code)]
    two.now -= late  # the home chain is behind: it learns from the vote
    two.block(0)
    assert two.outcome(0, transaction) == ((EXPIRED, Code.EXPIRED) if late else (COMMITTED, OK))
    assert len(two.sent(0, 1)) == 1 - late
    two.settle()
    two.assert_settled()


def test_a_block_deals_with_a_bounded_number_of_deadlines_and_drops_those_of_the_decided(
    two: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_phase_commit, "MAX_WOKEN", 2)
    two.block(0, two.pay(two.account(0), two.account(1), 1))
    two.settle()
    transactions = [two.pay(two.account(0), two.account(1), 1) for _ in range(5)]
    two.block(0, *transactions)
    two.now += TIMEOUT + 1
    assert [len(two.block(0, take=0).effects.receipts) for _ in range(4)] == [2, 2, 1, 0]
    assert all(two.outcome(0, transaction) == (EXPIRED, Code.EXPIRED) for transaction in transactions)
    assert all(key.endswith(REPLAYED) for _, key in two.states[0].alarms_before(1 << 60))


# -- frozen accounts, mints, limits ----------------------------------------------------------------------------------


def test_an_account_frozen_after_its_vote_still_pays_and_is_paid(two: Ledgers) -> None:
    a, b, d = two.account(0), two.account(1), two.account(1, 1)
    transaction = two.sign(Leg(a, d, "USD", 10), Leg(b, a, "USD", 20))
    two.block(0, transaction)
    two.block(1)
    freezes = [two.freeze(b), two.freeze(d)]
    two.block(0, *freezes, take=0)  # decided before the transaction: their Prepares go out first
    two.block(1)
    two.settle()
    assert [two.outcome(0, t) for t in (transaction, *freezes)] == [(COMMITTED, OK)] * 3
    assert (two.balance(a), two.balance(b), two.balance(d)) == ((110, 0), (80, 0), (10, 0))
    assert all(dict(two.states[1].balances_of(x))["USD"].frozen for x in (b, d))


def test_a_frozen_account_stays_frozen_when_its_hold_is_spent_or_given_back(two: Ledgers) -> None:
    a, b, c, d = two.account(0), two.account(1), two.account(0, 1), two.account(1, 1)
    two.fund(c, 50)
    two.block(0, two.freeze(d))
    two.settle()
    done, undone = two.sign(Leg(a, b, "USD", 10), Leg(b, a, "USD", 1)), two.pay(c, d, 50)
    two.block(0, done, undone, two.freeze(a), two.freeze(c))
    two.settle()
    assert [two.outcome(0, t) for t in (done, undone)] == [(COMMITTED, OK), (REJECTED, Code.ACCOUNT_FROZEN)]
    assert two.states[0].balances_of(a) == (("USD", Balance(91, 0, True)),)
    assert two.states[0].balances_of(c) == (("USD", Balance(50, 0, True)),)


def test_mint_and_burn_across_shards_count_where_the_issuer_lives(two: Ledgers) -> None:
    two.block(1, two.pay(two.account(1), two.issuer("USD"), 30))
    two.settle()
    home, there = (state.totals().assets[0] for state in two.states)
    assert (home.minted, home.burned, there.minted, there.burned) == (200, 30, 0, 0)
    assert [(p.shard, p.exported, p.imported) for p in (*home.peers, *there.peers)] == [(1, 100, 30), (0, 30, 100)]
    two.assert_settled()


@pytest.mark.parametrize("payee_is_frozen", [False, True])
def test_the_supply_cap_counts_pending_mints_and_forgets_those_refused(two: Ledgers, payee_is_frozen: bool) -> None:
    usd, d = two.issuer("USD"), two.account(1, 1)
    if payee_is_frozen:
        two.block(0, two.freeze(d))
        two.settle()
    big, over, again = (two.pay(usd, account, amount) for account, amount in ((d, MAX_AMOUNT - 200), (two.account(0), 1), (d, 1)))
    two.block(0, big, over)
    assert [two.outcome(0, mint) for mint in (big, over)] == [(PREPARED, OK), (REJECTED, Code.LIMIT_EXCEEDED)]
    two.settle()
    if payee_is_frozen:
        assert two.outcome(0, big) == (REJECTED, Code.ACCOUNT_FROZEN)
        assert two.states[0].flow(flow_key(ISSUER, b"USD")) == Flow(200)
        two.fund(two.account(0), MAX_AMOUNT - 200)
    else:
        assert two.balance(d) == (MAX_AMOUNT - 200, 0)
        two.block(0, again)
        assert two.outcome(0, again) == (REJECTED, Code.LIMIT_EXCEEDED)


def test_money_sent_to_and_fro_closes_no_channel(two: Ledgers) -> None:
    a, b, c, d = two.account(0), two.account(1), two.account(0, 1), two.account(1, 1)
    two.fund(a, 10**18)  # one unit of an asset with 18 decimals
    two.fund(c, 1)
    for _ in range(50):  # 10^20 over the boundary, five times round its tallies
        for home, payer, payee in ((0, a, b), (1, b, a)):
            two.block(home, payment := two.pay(payer, payee, 10**18))
            two.settle()
            assert two.outcome(home, payment) == (COMMITTED, OK)
    two.block(0, others := two.pay(c, d, 1))
    two.settle()
    assert two.outcome(0, others) == (COMMITTED, OK)
    two.assert_settled()


def test_tallies_that_come_round_to_zero_leave_no_row_and_no_total(two: Ledgers) -> None:
    """A holder can bring a boundary's figures there on purpose."""
    a, b = two.account(0, 2), two.account(1, 2)
    two.block(1, two.pay(two.account(1), two.account(0), 100))  # the fixture's payment goes back
    two.settle()
    two.fund(a, MAX_AMOUNT - 200)
    for amount in (2**62, 2**62, 2**62, 2**62 - 100):
        for home, payer, payee in ((0, a, b), (1, b, a)):
            two.block(home, two.pay(payer, payee, amount))
            two.settle()
    assert flow_key(1, b"USD") not in two.states[0].records
    assert two.states[0].totals().assets[0].peers == ()
    assert two.states[1].totals().assets == ()
    two.assert_settled()


def test_the_queues_of_home_and_participant_are_bounded(two: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_phase_commit, "MAX_WAITING", 2)
    transactions = [two.pay(two.account(0), two.account(1), 1) for _ in range(4)]
    two.block(0, *transactions[:3])
    assert [two.outcome(0, t) for t in transactions[:3]] == [(PREPARED, OK)] * 2 + [(REJECTED, Code.LIMIT_EXCEEDED)]
    two.settle()
    two.block(0, transactions[3])
    assert two.outcome(0, transactions[3]) == (PREPARED, OK)
    two.settle()
    codes = (OK,) * 4 + (Code.LIMIT_EXCEEDED,)
    more = [two.pay(two.account(0), two.account(1), 1) for _ in codes]
    assert two.inject(0, 1, *(prepare(two, t) for t in more)) == tuple(map(vote, more, codes))


def test_a_participant_that_stands_still_stops_only_what_touches_it(three: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shard 2 is dead: it does not answer, until its queue and that of payments to several shards are full."""
    monkeypatch.setattr(two_phase_commit, "MAX_WAITING", 2)
    a, b, c = (three.account(shard) for shard in range(3))
    dead = [three.pay(a, c, 1) for _ in range(3)]
    several = [three.sign(Leg(a, b, "USD", 1), Leg(a, c, "USD", 1)) for _ in range(3)]
    three.block(0, *dead, *several)
    queues = [(PREPARED, OK)] * 2 + [(REJECTED, Code.LIMIT_EXCEEDED)]
    assert [three.outcome(0, t) for t in (*dead, *several)] == queues * 2
    for _ in range(2):
        healthy = [three.pay(a, b, 1) for _ in range(2)]
        three.block(0, *healthy)
        three.block(1)
        three.block(0)
        assert [three.outcome(0, t) for t in healthy] == [(COMMITTED, OK)] * 2
    three.settle()
    three.assert_settled()


def test_a_refused_first_mint_leaves_no_trace_in_the_state() -> None:
    ledgers = Ledgers(2)
    d = ledgers.account(1)
    ledgers.block(0, ledgers.freeze(d))
    ledgers.settle()
    ledgers.block(0, ledgers.pay(ledgers.issuer("USD"), d, 5))
    assert flow_key(ISSUER, b"USD") in ledgers.states[0].records
    ledgers.settle()
    assert {key[-1:] for state in ledgers.states for key in state.records} == {CURSOR, SEQUENCE, ANSWERED, REPLAYED}


# -- what only a captured committee sends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payer", "payee", "asset", "action", "checked"),
    [
        ("a", "b", "USD", Action.PAY, False),  # the home's own account: its word is enough
        ("b", "a", "USD", Action.PAY, True),
        ("c", "b", "USD", Action.PAY, True),
        ("c", "a", "USD", Action.PAY, False),  # gives this shard nothing to do
        ("usd", "b", "USD", Action.FREEZE, True),
        ("eur", "b", "EUR", Action.FREEZE, True),
        ("usd", "b", "USD", Action.PAY, True),
        ("eur", "b", "EUR", Action.UNFREEZE, True),
        ("usd", "b", "EUR", Action.PAY, False),  # not this asset's issuer: an account like others
    ],
)
def test_a_participant_checks_each_signature_that_gives_it_something_to_do_but_those_of_the_homes_own_payers(
    three: Ledgers, payer: str, payee: str, asset: str, action: Action, checked: bool
) -> None:
    """The home is shard 0, which keeps a and the issuer of USD; the issuer of EUR and c are in shard 2."""
    who = {name: three.account(shard) for shard, name in enumerate("abc")} | {x.lower(): three.issuer(x) for x in ASSETS}
    first = Leg(three.account(0, 1), three.account(1, 1), "USD", 1)
    transaction = three.sign(first, Leg(who[payer], who[payee], asset, 1 if action is Action.PAY else 0, action))
    forged = with_witnesses(transaction, 0, 0)
    answers = three.inject(0, 1, prepare(three, forged), Decision(transaction.id, True), prepare(three, transaction))
    assert answers[0] == vote(transaction, Code.BAD_SIGNATURE if checked else OK)
    assert three.outcomes(1, transaction) == ([] if checked else [(COMMITTED, OK)])
    assert answers[1] == vote(transaction), "the true one, or a second time in the name of the home's accounts alone"
    assert (transaction.id + ANSWERED in three.states[1].records) == checked


def test_nobody_but_the_issuer_freezes_whatever_the_home_says(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.sign(Leg(a, b, "USD", 1), Leg(a, b, "USD", 0, Action.FREEZE))
    assert two.inject(0, 1, prepare(two, transaction)) == (vote(transaction, Code.NOT_ISSUER),)


@pytest.mark.parametrize("signer", ["issuer", "third shard's payer"])
def test_a_signature_of_others_is_good_for_one_transaction_too(three: Ledgers, signer: str) -> None:
    b = three.account(1)
    legs = [Leg(three.account(0), b, "USD", 1), Leg(three.account(2), b, "USD", 5)]
    transaction = three.freeze(b) if signer == "issuer" else three.sign(*legs)
    thaw = three.freeze(b, action=Action.UNFREEZE)
    three.inject(0, 1, prepare(three, transaction), Decision(transaction.id, True), prepare(three, thaw), Decision(thaw.id, True))
    again = prepare(three, transaction)
    assert three.inject(0, 1, again, Decision(transaction.id, True)) == (vote(transaction, Code.DUPLICATE),)
    assert dict(three.states[1].balances_of(b))["USD"] == Balance(100 if signer == "issuer" else 106)


def test_a_prepare_that_is_no_transaction(two: Ledgers) -> None:
    good = two.pay(two.account(0), two.account(1), 1)
    against_a_rule = Transaction(good.order, good.witnesses * 2)
    garbage = (Prepare(data, 1) for data in (b"", b"\xc1" * 50, bytes(5000)))
    assert two.inject(0, 1, *garbage, prepare(two, against_a_rule)) == (vote(good, Code.MALFORMED),)


@pytest.mark.parametrize(
    ("payer", "payee", "changes", "code"),
    [
        (1, 0, {}, Code.WRONG_SHARD),  # not the source's
        (0, 0, {}, Code.WRONG_SHARD),  # does not touch this shard
        (0, 1, {"network": b"another network!"}, Code.WRONG_NETWORK),
        (0, 1, {"asset": "XYZ"}, Code.UNKNOWN_ASSET),
        (0, 1, {"valid_until": -1}, Code.EXPIRED),  # the deadline lies further behind it than an honest home's
        (0, 1, {"valid_until": 0}, OK),
        (0, 1, {"valid_until": 10_000 + TIMEOUT}, OK),
        (0, 1, {"valid_until": 10_000 + TIMEOUT + 1}, Code.LIMIT_EXCEEDED),
    ],
)
def test_a_refused_prepare_has_its_reason_and_leaves_no_row(
    two: Ledgers, payer: int, payee: int, changes: dict[str, Any], code: Code
) -> None:
    asset, before = changes.pop("asset", "USD"), dict(two.states[1].records)
    until = two.now + changes.pop("valid_until", 5_000)
    transaction = two.sign(Leg(two.account(payer), two.account(payee, 1), asset, 1), valid_until=until, **changes)
    assert two.inject(0, 1, prepare(two, transaction)) == (vote(transaction, code),)
    assert two.states[1].totals().pending == (code is OK)
    changed = {key for key, record in two.states[1].records.items() if before.get(key) != record}
    assert code is OK or changed == {channel_key(0, CURSOR), channel_key(0, SEQUENCE)}


def test_one_signature_is_good_for_one_payment(two: Ledgers) -> None:
    a, b = two.account(0), two.account(1)
    transaction = two.sign(Leg(a, b, "USD", 1), Leg(b, a, "USD", 40))
    again, twice = prepare(two, transaction), vote(transaction, Code.DUPLICATE)
    votes = two.inject(0, 1, again, again, Decision(transaction.id, True), again)
    assert votes == (vote(transaction), twice, twice)
    two.now = until = transaction.order.valid_until + TIMEOUT
    late = Prepare(again.transaction, until)
    two.block(1)
    assert two.inject(0, 1, again, late) == (vote(transaction, Code.EXPIRED), twice)
    two.now += 1
    two.block(1)
    assert transaction.id + ANSWERED not in two.states[1].records
    assert two.inject(0, 1, late, prepare(two, transaction, 0)) == (vote(transaction, Code.EXPIRED),) * 2
    assert two.balance(b) == (61, 0)


def test_what_is_prepared_without_own_payers_is_not_prepared_again(two: Ledgers) -> None:
    transaction = two.pay(two.account(0), two.account(1), 1)
    votes = two.inject(0, 1, *[prepare(two, transaction)] * 2)
    assert votes == (vote(transaction), vote(transaction, Code.DUPLICATE))
    assert two.states[1].totals().pending == 1


def test_decisions_and_votes_of_strangers_for_nothing_and_second_votes_are_ignored(three: Ledgers) -> None:
    a, b, c = (three.account(shard) for shard in range(3))
    to_both, to_one = three.sign(Leg(a, c, "USD", 1), Leg(b, a, "USD", 40)), three.sign(Leg(a, b, "USD", 10))
    three.block(0, to_both, to_one)
    three.block(1)
    for record in (Decision(to_both.id, True), Decision(to_both.id, False), Decision(bytes(32), True)):
        assert three.inject(2, 1, record) == ()
    assert (three.outcomes(1, to_both), three.balance(b)) == ([], (60, 40))
    three.channels[1, 0].clear()
    three.inject(2, 0, vote(to_one), vote(to_one, Code.BAD_SIGNATURE), PrepareVote(bytes(32), OK))
    assert three.outcomes(0, to_one) == [(PREPARED, OK)]
    three.channels[1, 0].clear()
    three.inject(1, 0, vote(to_both), vote(to_both), vote(to_both, Code.BAD_SIGNATURE))
    assert three.outcomes(0, to_both) == [(PREPARED, OK)]
