"""Credits: what each shard can have when an epoch begins, so that a captured one can pass on no more."""

import pytest

from node.ledger import bulkhead
from node.ledger.rows import figure_key
from node.ledger.rules import FIGURES_PAUSE
from node.protocol.block import AssetTotal, PeerTotal, Totals
from node.protocol.change import Change, Stage
from node.protocol.channel import Bundle, Decision, Figure, Figures, Prepare
from node.protocol.codec import encode
from node.protocol.credits import next_credits
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_AMOUNT
from tests.eras import ACCOUNTS, ISSUED_BY, Era, succession
from tests.histories import first

FOUR = first(4, 1, 4)
FIRSTS = [bytes([64 * quarter]) + bytes(19) for quarter in range(4)]
KEPT = succession(FOUR, {shard: (FIRSTS[shard], (shard,)) for shard in range(4)})
ISSUING = FOUR.shards.shard_of(ISSUED_BY["USD"])
CAPTURED, ONE, OTHER = (shard for shard in range(4) if shard != ISSUING)


def account(shard: int) -> bytes:
    return next(one for one in ACCOUNTS if FOUR.shards.shard_of(one) == shard)


def funded(units: int) -> Era:
    era = Era(FOUR)
    era.do(era.pay(ISSUED_BY["USD"], account(CAPTURED), units))
    return era


def told(asset: AssetTotal | None = None, upper: int = 0) -> Change:
    """What a captured shard says when it closes."""
    return Change(Stage.CLOSED, upper=(("USD", upper),), totals=Totals((asset,) if asset is not None else (), 0))


LIE = AssetTotal("USD", 10**9, 0, 10**9, 0, 0, (PeerTotal(CAPTURED, 10**9, 0),))


@pytest.mark.parametrize("lie", [LIE, None])
def test_what_a_shard_says_of_itself_counts_for_nothing(lie: AssetTotal | None) -> None:
    era = funded(100).next(KEPT, **{f"s{CAPTURED}": told(lie)})
    assert era.credit[CAPTURED, "USD"] == 100
    for shard in (ONE, OTHER):
        assert bulkhead.room(era.states[shard], era.rules[shard], CAPTURED, b"USD") == 100


def test_credits_go_on_from_epoch_to_epoch() -> None:
    era = funded(100).next(KEPT)
    era.do(era.pay(account(CAPTURED), account(ONE), 30))
    following = succession(KEPT, {shard: (FIRSTS[shard], (shard,)) for shard in range(4)})
    lie = AssetTotal("USD", 10**9, 0, 10**9, 0, 0, (PeerTotal(ONE, 30, 0),))
    era = era.next(following, **{f"s{CAPTURED}": told(lie)})
    assert (era.credit[CAPTURED, "USD"], era.credit[ONE, "USD"]) == (70, 30)


def test_a_captured_shard_passes_on_no_more_than_its_credit_and_what_it_is_paid() -> None:
    era = funded(100).next(KEPT)
    era.do(era.pay(ISSUED_BY["USD"], account(CAPTURED), 5))
    for shard in era.states:
        era.now += FIGURES_PAUSE
        era.block(shard)  # tells its figures
    for _ in range(5):
        payment = era.pay(account(CAPTURED), account(ONE), 35)
        for record in (Prepare(encode(payment), era.now + 500), Decision(payment.id, commit=True)):
            era.block(ONE, bundles=[Bundle(CAPTURED, ONE, era.states[ONE].cursor(CAPTURED) + 1, (record,))])
    assert era.balance(account(ONE)).available == 105


def test_nobody_overwrites_a_credit() -> None:
    era = funded(100).next(KEPT)
    row = figure_key(ONE, CAPTURED, b"USD")
    assert era.states[ONE].figure(row) == 100
    for source in sorted({CAPTURED, OTHER, ISSUING}):
        records = (Figures(tuple(Figure(shard, "USD", 10**6) for shard in range(4))),)
        era.block(ONE, bundles=[Bundle(source, ONE, era.states[ONE].cursor(source) + 1, records)])
    assert era.states[ONE].figure(row) == 100


def halves(upper: int) -> tuple[int, int]:
    """The credits of a shard's lower and upper half, of 100 in all, where it says so of the upper one."""
    middle, above = FIRSTS[CAPTURED][:1] + b"\x20" + bytes(18), 4
    ranges = {shard: (FIRSTS[shard], (shard,)) for shard in range(4)} | {above: (middle, (CAPTURED,))}
    era = funded(100).next(succession(FOUR, ranges), **{f"s{CAPTURED}": told(LIE, upper)})
    return era.credit.get((CAPTURED, "USD"), 0), era.credit.get((above, "USD"), 0)


@pytest.mark.parametrize(("upper", "expected"), [(0, (100, 0)), (30, (70, 30)), (100, (0, 100)), (10**9, (0, 100))])
def test_halves_have_what_the_whole_had(upper: int, expected: tuple[int, int]) -> None:
    assert halves(upper) == expected


def test_the_halves_of_an_issuers_shard_have_what_it_says() -> None:
    """Unlike others it can issue any amount: the one without the issuer's account can have no more from then on."""
    era = Era(one := first(1, 1, 1))
    low, high = min(ACCOUNTS), max(ACCOUNTS)
    era.do(era.pay(ISSUED_BY["USD"], low, 70), era.pay(ISSUED_BY["USD"], high, 30))
    era = era.next(succession(one, {0: (bytes(20), (0,)), 1: (b"\x80" + bytes(19), (0,))}))
    assert era.credit == {(0, "USD"): 70, (1, "USD"): 30}


def test_merged_shards_have_what_both_had() -> None:
    era = Era(FOUR)
    era.do(*(era.pay(ISSUED_BY["USD"], account(shard), 10 + shard) for shard in range(4)))
    ranges = {0: (FIRSTS[0], (0, 1)), 2: (FIRSTS[2], (2, 3))}
    era = era.next(succession(FOUR, ranges))
    other = 2 if ISSUING < 2 else 0
    assert era.credit[other, "USD"] == era.available(other) == 10 + other + 11 + other


def credits_of(document: EpochDocument, before: dict[tuple[int, str], int], **forged: Change) -> dict[tuple[int, str], int]:
    closings = Era(FOUR).closings(document, **forged)
    return next_credits(before, FOUR, document, closings, {"USD": ISSUED_BY["USD"]})


def test_who_was_taken_in_from_more_than_it_had_owes_it() -> None:
    took = AssetTotal("USD", 30, 0, 0, 0, 0, (PeerTotal(CAPTURED, 0, 30),))
    assert credits_of(KEPT, {(CAPTURED, "USD"): 20}, **{f"s{ONE}": told(took)})[CAPTURED, "USD"] == -10


def test_credits_are_figures_that_rows_can_have() -> None:
    others = [shard for shard in range(4) if shard != ISSUING]
    pair = next((a, b) for a, b in ((0, 1), (2, 3)) if {a, b} <= set(others))
    ranges = {pair[0]: (FIRSTS[pair[0]], pair)} | {s: (FIRSTS[s], (s,)) for s in range(4) if s not in pair}
    for units in (MAX_AMOUNT, -MAX_AMOUNT):
        before = {(shard, "USD"): units for shard in pair}
        assert credits_of(succession(FOUR, ranges), before)[pair[0], "USD"] == units
