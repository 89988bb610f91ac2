"""How shards settle and close: the table of ``settlement``, whole changes, and those who lie."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ledger.execution import InvalidBlock
from node.ledger.rows import CHANGE_KEY
from node.ledger.rules import COUNT_TIME
from node.ledger.settlement import may_begin
from node.protocol.assignment import cut_of
from node.protocol.change import Change, RegisterPhase, Stage
from node.protocol.channel import (
    Bundle,
    CountRequest,
    Decision,
    Fence,
    Load,
    Prepare,
    PrepareVote,
    Record,
    Resolution,
    Settle,
    Settled,
)
from node.protocol.codec import encode
from node.protocol.codes import Code
from tests.unit.changing import STEP, TIMES, Changing
from tests.unit.ledger_driver import COMMITTED, PREPARED, Ledgers

MINING, SETTLING, SETTLED, CLOSED = Stage
PHASE = RegisterPhase
DOCUMENT = b"\x05" * 32


def changing(shards: int, more: int = 0) -> Changing:
    """Account 0 in each shard has 100 USD, and account 1 has 50."""
    made = Changing(shards, more)
    for shard in range(shards):
        made.fund(made.account(shard), 100)
        made.fund(made.account(shard, 1), 50)
    return made


@pytest.fixture
def two() -> Changing:
    return changing(2)


@pytest.fixture
def three() -> Changing:
    return changing(3)


def stages(at: Changing) -> list[Stage]:
    return [at.change(shard).stage for shard in at.shards]


def assert_nothing_is_undecided(at: Changing) -> None:
    """In any shard, nor on its way to one."""
    at.assert_settled()
    assert not any(isinstance(r, Prepare | Decision) for a, b in at.channels for r in at.sent(a, b))


# -- whole changes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_change_from_the_first_enrolment_to_the_closing_blocks_with_payments_under_way(shards: int) -> None:
    at = changing(shards)
    payments = [at.pay(at.account(shard), at.account((shard + 1) % shards, 1), 30 + shard) for shard in at.shards]
    at.enter(PHASE.HANDOFF)
    for shard, payment in enumerate(payments):
        at.block(shard, payment, take=0)
    at.enter(PHASE.SETTLEMENT)
    assert stages(at)[1:] == [MINING] * (shards - 1)
    at.enter(PHASE.CLOSED)
    assert [at.outcome(shard, payment) for shard, payment in enumerate(payments)] == [(COMMITTED, Code.OK)] * shards
    assert_nothing_is_undecided(at)
    document = at.prospect
    for state in at.states:
        change = state.change
        assert (change.stage, change.attempt, change.document, change.totals) == (CLOSED, 1, document.hash, state.totals())
        assert change.cut == cut_of(at.document, document, state.rules.shard)
        assert (change.closed, change.register is not None) == (state.height, state.rules.is_register)


def test_a_shard_fences_only_when_all_that_it_began_is_decided(two: Changing) -> None:
    payment = two.pay(two.account(1), two.account(0), 30)
    two.block(1, payment)
    two.enter(PHASE.HANDOFF)
    two.settle()
    late = two.pay(two.account(1), two.account(0), 30)
    two.block(1, late)
    two.enter(PHASE.SETTLEMENT)
    two.block(1)  # takes Settle in
    assert (two.change(1).stage, two.change(1).fenced) == (SETTLING, 0)
    assert not any(isinstance(record, Fence) for record in two.sent(1, 0))
    two.block(0)
    two.block(1)
    assert two.outcome(1, late) == (COMMITTED, Code.OK)
    assert two.sent(1, 0)[:2] == [Decision(late.id, True), Fence(1)], "every decision comes before the fence"


def test_a_payment_that_begins_in_the_very_block_of_settle_is_decided_before_the_fence(two: Changing) -> None:
    two.enter(PHASE.SETTLEMENT)
    payment = two.pay(two.account(1), two.account(0), 30)
    two.block(1, payment)
    assert (two.outcome(1, payment), two.change(1).stage, two.change(1).fenced) == ((PREPARED, Code.OK), SETTLING, 0)
    two.until(lambda: two.are_closed)
    assert two.outcome(1, payment) == (COMMITTED, Code.OK)
    assert_nothing_is_undecided(two)


def test_a_shard_with_something_prepared_is_not_settled(two: Changing) -> None:
    two.enter(PHASE.HANDOFF)
    two.block(1, two.pay(two.account(1), two.account(0), 30))
    two.block(0, take=1)  # voted
    two.write(*two.readiness())
    two.channels[0, 1].rotate(0)
    change = two.told(1, 0, Fence(1))
    assert change.stage is SETTLING
    assert two.states[0].prepared_for[1] == 1


def test_a_fence_that_comes_before_settle_is_kept(three: Changing) -> None:
    three.enter(PHASE.SETTLEMENT)
    three.block(1)
    assert Fence(1) in three.sent(1, 2)
    held = list(three.channels[0, 2])
    three.channels[0, 2].clear()
    three.block(2)
    assert (three.change(2).stage, three.change(2).fences) == (MINING, ((1, 1),))
    three.channels[0, 2].extend(held)
    three.block(2)
    assert three.change(2).stage is SETTLED
    three.until(lambda: three.are_closed)


def test_what_the_states_rows_are_restored_from_has_the_change_in_it(two: Changing) -> None:
    two.enter(PHASE.SETTLEMENT)
    two.round()
    before = two.change(0)
    for _ in range(12):
        two.write()
    assert two.disks[0].restored(two.rules[0]).change == before


# -- while it settles ------------------------------------------------------------------------------------------------


def test_while_it_settles_no_payment_across_shards_begins_and_others_go_on(two: Changing) -> None:
    a, b = two.account(1), two.account(1, 1)
    two.enter(PHASE.SETTLEMENT)
    two.block(1, two.pay(a, two.account(0), 1))
    for stage in (SETTLING, SETTLED):
        assert two.change(1).stage is stage
        assert not may_begin(two.states[1])
        with pytest.raises(InvalidBlock, match="begins across shards"):
            two.execute(1, two.pay(a, two.account(0), 1))
        inside = two.pay(a, b, 1)
        two.block(1, inside, take=0)
        assert two.outcome(1, inside) == (COMMITTED, Code.OK)
        while two.change(1).stage is SETTLING:
            two.block(0)
            two.block(1)


# -- closed ----------------------------------------------------------------------------------------------------------


def test_after_the_closing_block_only_empty_ones_are_valid_and_change_nothing(two: Changing) -> None:
    two.enter(PHASE.CLOSED)
    for shard in two.shards:
        state, change = two.states[shard], two.change(shard)
        bundle = Bundle(1 - shard, shard, state.cursor(1 - shard) + 1, (Resolution(1, close=False),))
        for content in ({"bundles": [bundle]}, {"entries": [two.call()]}):
            with pytest.raises(InvalidBlock, match="closed"):
                two.execute(shard, **content)
        with pytest.raises(InvalidBlock, match="closed"):
            two.execute(shard, two.pay(two.account(shard), two.account(shard, 1), 1))
        two.now += 1_000_000
        empty = two.execute(shard)
        assert (empty.outbox, empty.effects.receipts, list(empty.overlay.rows())) == ((), (), [])
        assert (empty.effects.totals, empty.overlay.change) == (state.totals(), change)


def test_the_closing_block_of_a_shard_that_is_split_sums_up_what_the_upper_part_has() -> None:
    at = changing(1, more=4)
    accounts = [at.account(0, number) for number in range(12, 22)]  # the issuers are 9 and 10
    for units, account in enumerate(accounts, 1):
        at.fund(account, units, "EUR")
    usd = at.pay(at.account(0), at.account(0, 1), 100)
    at.block(0, usd)
    at.enter(PHASE.CLOSED)
    change = at.change(0)
    assert change.cut == b"\x80" + bytes(19)
    expected = {"EUR": sum(units for units, account in enumerate(accounts, 1) if account >= change.cut)}
    expected["USD"] = 150 * (at.account(0, 1) >= change.cut)
    assert dict(change.upper) == {code: units for code, units in expected.items() if units}
    assert 0 < expected["EUR"] < 55


def test_what_the_upper_part_has_counts_blocks_that_are_not_final() -> None:
    at = changing(1, more=4)
    low, high = sorted([at.account(0), at.account(0, 1)])
    parent = at.execute(0, at.pay(low, high, 10))
    block = at.execute(0, at.pay(low, high, 5), parent=parent)
    assert parent.overlay.available_from(high)[b"USD"] == dict(parent.overlay.balances_of(high))["USD"].available
    assert block.overlay.available_from(high)[b"USD"] == dict(at.states[0].balances_of(high))["USD"].available + 15
    assert block.overlay.available_from(bytes(20)) == {b"USD": 150}


# -- called off ------------------------------------------------------------------------------------------------------


def test_a_shard_that_cannot_settle_has_the_attempt_called_off_and_the_next_one_succeeds(three: Changing) -> None:
    three.enter(PHASE.SETTLEMENT)
    since = three.register.since
    while three.register.phase is PHASE.SETTLEMENT:  # shard 2 makes no block
        three.now += STEP
        three.block(0)
        three.block(1)
    assert three.now == since + TIMES["settle_time"]
    assert (three.register.phase, three.register.failures, three.change(0).attempt) == (PHASE.REGISTRATION, 1, 2)
    assert (three.change(0).stage, three.change(0).fences) == (MINING, ())
    three.round()
    three.round()
    assert stages(three) == [MINING] * 3
    assert {three.change(shard).document for shard in three.shards} == {bytes(32)}
    payment = three.pay(three.account(2), three.account(1), 5)
    three.block(2, payment)
    three.settle()
    assert three.outcome(2, payment) == (COMMITTED, Code.OK)
    three.enter(PHASE.CLOSED)
    assert {three.change(shard).attempt for shard in three.shards} == {2}
    assert_nothing_is_undecided(three)


def test_fences_of_an_attempt_that_was_called_off_do_not_count_for_the_next(two: Changing) -> None:
    two.enter(PHASE.SETTLEMENT)
    two.block(1)  # fenced
    two.now += TIMES["settle_time"]
    two.block(0, take=0)
    assert two.change(0).attempt == 2
    two.block(0)  # its fence comes late
    assert two.change(0).fences == ()
    two.enter(PHASE.SETTLEMENT)
    assert two.change(0).stage is SETTLING


def test_settled_in_the_very_last_moment_is_in_time(two: Changing) -> None:
    two.enter(PHASE.SETTLEMENT)
    for _ in range(3):
        two.block(1)
        if Settled(1) in two.sent(1, 0):
            break
        two.block(0)
    two.now = two.register.since + TIMES["settle_time"]
    two.block(0)
    assert two.register.phase is PHASE.CLOSED


# -- counting --------------------------------------------------------------------------------------------------------


def test_transactions_count_for_a_second_after_it_was_asked(two: Changing) -> None:
    a, b = two.account(1), two.account(1, 1)
    two.block(1, two.pay(a, b, 1))
    two.enter(PHASE.REVEAL)
    two.block(1, two.pay(a, b, 1))  # takes the request in
    two.now += COUNT_TIME - 1
    two.block(1, two.pay(a, b, 1), two.pay(b, a, 1))
    assert two.change(1).counted == 2
    two.block(1, take=0)
    assert CHANGE_KEY not in two.execute(1).overlay.records, "no transaction, no row"
    two.now += 1
    two.block(1, two.pay(a, b, 1))
    assert two.sent(1, 0) == [Load(1, 3)]
    assert (two.change(1).counting_since, two.change(1).counted) == (0, 0)
    two.block(1, two.pay(a, b, 1))
    assert two.sent(1, 0) == [Load(1, 3)]


# -- who lies --------------------------------------------------------------------------------------------------------

SETTLE = Settle(1, DOCUMENT)


@pytest.mark.parametrize("record", [CountRequest(1), SETTLE, Resolution(1, close=False), Resolution(1, close=True)])
@pytest.mark.parametrize("phase", [PHASE.REGISTRATION, PHASE.SETTLEMENT])
def test_what_only_the_register_says_is_believed_of_nobody_else(three: Changing, record: Record, phase: PHASE) -> None:
    three.enter(phase)
    if phase is PHASE.SETTLEMENT:
        three.until(lambda: three.change(1).stage is SETTLED)
    for destination in (0, 1):
        three.channels[2, destination].clear()
        assert three.told(2, destination, record) == three.change(destination)


@pytest.mark.parametrize("record", [Load(1, 5), Settled(1)])
def test_what_is_told_to_the_register_means_nothing_elsewhere(three: Changing, record: Record) -> None:
    assert three.told(0, 1, record) == three.change(1) == Change()


@pytest.mark.parametrize(
    ("before", "records"),
    [
        ([], [Resolution(1, close=True)]),
        ([], [Resolution(1, close=False)]),
        ([SETTLE], [Resolution(1, close=True)]),  # it is not settled
        ([SETTLE], [Resolution(2, close=False)]),
        ([SETTLE], [CountRequest(1)]),
        ([SETTLE], [Settle(1, bytes(32), b"\x01" * 20)]),
        ([SETTLE], [Settle(2, bytes(32))]),
        ([Settle(2, DOCUMENT)], [Fence(1)]),
        ([CountRequest(2)], [CountRequest(1)]),
        ([CountRequest(2)], [Settle(1, DOCUMENT)]),
        ([Settle(1, DOCUMENT), Fence(1)], [Resolution(2, close=True)]),
    ],
)
def test_a_record_of_another_attempt_or_out_of_stage_changes_nothing(
    two: Changing, before: list[Record], records: list[Record]
) -> None:
    """In shard 1, from the register."""
    two.now += STEP
    if before:
        two.inject(0, 1, *before)
    assert two.told(0, 1, *records) == two.change(1)
    assert CHANGE_KEY not in two.execute(1).overlay.records


def test_who_fenced_and_went_on_does_not_settle_in_that_attempt_again(two: Changing) -> None:
    """It has begun payments since: nobody would wait for them."""
    two.inject(0, 1, SETTLE)
    two.inject(0, 1, Resolution(1, close=False))
    two.block(1, two.pay(two.account(1), two.account(0), 1))
    assert two.told(0, 1, SETTLE, Fence(1)).stage is MINING
    assert two.told(0, 1, Settle(2, DOCUMENT)).stage is SETTLING


def test_a_fence_of_a_far_attempt_counts_for_no_other(two: Changing) -> None:
    two.inject(0, 1, Fence(2**53), SETTLE)
    assert two.change(1).stage is SETTLING
    two.inject(0, 1, Fence(1))
    assert two.change(1).stage is SETTLED


def test_without_a_document_a_shard_takes_part_in_no_change() -> None:
    plain = Ledgers(2)
    plain.inject(0, 1, CountRequest(1), SETTLE, Fence(1), Resolution(1, close=True))
    plain.inject(1, 0, Load(1, 1), Settled(1), Fence(1))
    assert all(state.record(CHANGE_KEY) is None for state in plain.states)


def test_a_shard_that_begins_a_payment_after_its_fence_is_refused_and_keeps_nobody_from_closing(three: Changing) -> None:
    three.enter(PHASE.SETTLEMENT)
    three.until(lambda: three.change(1).stage is SETTLED)
    payment = three.pay(three.account(2), three.account(1), 10)
    assert three.inject(2, 1, Prepare(encode(payment), three.now + 1_000)) == (PrepareVote(payment.id, Code.EXPIRED),)
    assert three.states[1].totals().pending == 0
    three.until(lambda: three.are_closed)
    assert_nothing_is_undecided(three)


# -- any order of deliveries -----------------------------------------------------------------------------------------

COUNTS = st.tuples(*[st.integers(0, 2)] * 3)
MOVES = st.lists(st.tuples(st.integers(0, 2), COUNTS, st.integers(0, 5), st.sampled_from([0, STEP, 1_100])), max_size=60)


@settings(max_examples=40, deadline=None)
@given(shards=st.integers(2, 3), ready_at=st.integers(0, 8), moves=MOVES)
def test_in_whatever_order_bundles_come_closed_shards_have_nothing_undecided(
    shards: int, ready_at: int, moves: list[tuple[int, tuple[int, ...], int, int]]
) -> None:
    """``moves``: which shard makes a block, with how many bundles of each other one, with payments of how much to the others, and
    how much later. ``ready_at``: after so many of them the members of the next document are ready."""
    at, payments = _funded(shards), []
    at.enter(PHASE.HANDOFF)
    ready = at.readiness()
    for number, (maker, counts, amount, later) in enumerate(moves):
        shard = maker % shards
        at.now += later
        others = [other for other in at.shards if other != shard]
        bundles = [b for other in others for b in _pop(at, other, shard, counts[other])]
        begun = [
            at.pay(at.account(shard), at.account(other), amount) for other in others if amount and may_begin(at.states[shard])
        ]
        is_due = shard == 0 and number >= ready_at and at.register.phase is PHASE.HANDOFF
        at.block(shard, *begun, take=0, bundles=bundles, entries=ready if is_due else [])
        at.assert_conserved()
        payments += [(shard, payment) for payment in begun]
    for _ in range(20):
        if at.register.phase < PHASE.SETTLEMENT:
            at.enter(PHASE.SETTLEMENT)
        at.until(lambda: at.are_closed or at.register.phase is not PHASE.SETTLEMENT)
        at.until(lambda: at.are_closed or at.register.phase is not PHASE.CLOSED)
        if at.are_closed:
            break
    assert_nothing_is_undecided(at)
    assert all(at.outcome(home, payment)[0] is not PREPARED for home, payment in payments)
    for state in at.states:
        assert (state.change.document, state.change.totals) == (at.prospect.hash, state.totals())


def _pop(at: Changing, source: int, destination: int, count: int) -> list[Bundle]:
    """Off their way; a closed shard takes none."""
    channel = at.channels[source, destination]
    most = 0 if at.change(destination).stage is CLOSED else min(count, len(channel))
    return [channel.popleft() for _ in range(most)]


def _funded(shards: int) -> Changing:
    at = Changing(shards)
    for shard in range(shards):
        at.fund(at.account(shard), 1_000)
    return at


ORDERS = st.sampled_from(
    [CountRequest(1), Fence(1), Fence(2), Fence(3)]
    + [
        order
        for attempt in (1, 2, 3)
        for order in (Settle(attempt, DOCUMENT), Resolution(attempt, False), Resolution(attempt, True))
    ]
)
TURNS = st.lists(st.tuples(st.integers(1, 2), st.lists(ORDERS, max_size=3), st.integers(0, 2), st.integers(0, 5)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(turns=TURNS)
def test_whatever_a_captured_register_says_no_shard_closes_with_anything_undecided(
    turns: list[tuple[int, list[Record], int, int]],
) -> None:
    """``turns``: which of the two others makes a block, what the register tells it, how many bundles of the other one it takes,
    and how much it pays to that."""
    at = _funded(3)
    for shard, orders, count, amount in turns:
        at.now += STEP
        other = 3 - shard
        bundles = _pop(at, other, shard, count)
        if orders and at.change(shard).stage is not CLOSED:
            bundles.append(Bundle(0, shard, at.states[shard].cursor(0) + 1, tuple(orders)))
        payment = at.pay(at.account(shard), at.account(other), amount)
        at.block(shard, *([payment] if amount and may_begin(at.states[shard]) else []), take=0, bundles=bundles)
        at.assert_conserved()
        assert at.change(shard).stage is not CLOSED or at.states[shard].totals().pending == 0
