"""Money in and out, the pure parts: what follows from how a charge stands, limits, and what adds up."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.api.purchases import CardFields
from gateway.money.banks import BankState, BankTransfer, compact_iban, masked_iban
from gateway.money.cards import Card, Charge, ChargeState, brand_of
from gateway.money.limits import MAX_DECLINES, MAX_PURCHASES, Limits, Today, check_faucet, check_purchase
from gateway.money.purchases import pause, turn_of
from gateway.money.reconciliation import Moved, compare_ledger, payout_pays, purchase_keeps
from gateway.problems import Problem
from node.protocol.block import AssetTotal
from node.protocol.genesis import Asset

USD = Asset("USD", 2, "02" + "00" * 32, 0, 50)
LIMITS = Limits(purchase=100, purchases_per_day=250, faucet_per_day=1_000)
KINDS = ("purchases", "faucet", "returned_payouts", "refused_refunds", "payouts", "refunds")


def refusal(check: Any, *arguments: Any) -> str | None:
    try:
        check(*arguments)
    except Problem as problem:
        return problem.code
    return None


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ChargeState.UNKNOWN, None),
        (ChargeState.PENDING, None),
        (ChargeState.AUTHORIZED, None),
        (ChargeState.ACTION, "requires_action"),
        (ChargeState.DECLINED, "declined"),
        (ChargeState.CANCELED, "failed"),
        (ChargeState.CAPTURED, "minting"),
        (ChargeState.DISPUTED, "failed"),
    ],
)
def test_only_a_captured_charge_has_coins_minted(state: ChargeState, status: str | None) -> None:
    assert turn_of(Charge(state)).status == status


def test_another_company_is_asked_ever_more_rarely() -> None:
    assert [pause(ms) for ms in (0, 10_000, 60_000, 10**9)] == [1.0, 1.0, 6.0, 300.0]


def test_purchases_are_limited_one_by_one_by_the_day_and_by_declines() -> None:
    def check(units: int, tried: int = 0, declined: int = 0, bought: int = 0) -> str | None:
        return refusal(check_purchase, USD, units, Today(tried, declined, bought), LIMITS)

    assert [check(units) for units in (49, 50, 10_000, 10_001)] == ["amount_too_small", None, None, "amount_too_large"]
    assert [check(10_000, bought=bought) for bought in (15_000, 15_001)] == [None, "purchase_limit"]
    assert [check(50, tried=tried) for tried in (MAX_PURCHASES - 1, MAX_PURCHASES)] == [None, "purchase_limit"]
    assert [check(50, 10, declined) for declined in (MAX_DECLINES - 1, MAX_DECLINES)] == [None, "too_many_declined"]


def test_the_faucet_gives_up_to_its_limit() -> None:
    assert [refusal(check_faucet, USD, 1, given, LIMITS) for given in (99_999, 100_000)] == [None, "faucet_limit"]


def test_a_cards_brand_is_in_its_first_digits_and_its_number_in_no_text() -> None:
    numbers = ("4242424242424242", "5555555555554444", "2223003122003222", "378282246310005", "6011111111111117")
    assert [brand_of(number) for number in numbers] == ["visa", "mastercard", "mastercard", "amex", "unknown"]
    assert "4242" not in f"{Card('4242424242424242', 1, 2040, '123')!r} {Card('4242424242424242', 1, 2040, '123')}"


def test_what_stands_for_a_card_in_a_fingerprint_is_its_last_four_digits() -> None:
    card = CardFields(number=SecretStr("4242 4242 4242 4242"), exp_month=1, exp_year=2040, cvc=SecretStr("987"))
    fields = card.model_dump(mode="json")
    assert fields["last4"] == "4242"
    assert not any(part in str(fields) for part in ("4242 4242", "42424242", "987"))
    assert card.checked() == Card("4242424242424242", 1, 2040, "987")


def test_an_iban_is_checked_and_shown_by_its_ends() -> None:
    assert compact_iban("de89 3704 0044 0532 0130 00") == "DE89370400440532013000"
    assert masked_iban("DE89370400440532013000") == "DE89**************3000"
    for bad in ("DE89370400440532013001", "DE8937040044", "XX89370400440532013000", "", "DE89 €704"):
        assert refusal(compact_iban, bad) == "invalid_iban"


@pytest.mark.parametrize(
    ("status", "refunded", "refunding", "good", "bad"),
    [
        ("processing", 0, 0, (0, 100), (101,)),
        ("minting", 0, 0, (0, 100), (101,)),
        ("completed", 0, 0, (100,), (0, 99, 101)),
        ("completed", 30, 0, (70,), (100, 69)),
        ("completed", 30, 20, (70, 50), (71, 49)),
        ("refunded", 100, 0, (0,), (1,)),
        ("declined", 0, 0, (0,), (100,)),
        ("failed", 0, 0, (0,), (100,)),
        ("disputed", 0, 0, (0,), (100,)),
    ],
)
def test_what_a_processor_may_hold_of_a_purchase(
    status: str, refunded: int, refunding: int, good: tuple[int, ...], bad: tuple[int, ...]
) -> None:
    row: Any = SimpleNamespace(status=status, units=100, refunded=refunded, refunding=refunding)
    assert [units in purchase_keeps(row) for units in (*good, *bad)] == [True] * len(good) + [False] * len(bad)


@pytest.mark.parametrize(
    ("status", "state", "good"),
    [
        ("processing", BankState.UNKNOWN, True),
        ("processing", BankState.PAID, True),
        ("failed", BankState.UNKNOWN, True),
        ("failed", BankState.PAID, False),
        ("sent", BankState.UNKNOWN, False),
        ("sent", BankState.PENDING, True),
        ("sent", BankState.RETURNED, True),
        ("paid", BankState.PAID, True),
        ("paid", BankState.RETURNED, False),
        ("returned", BankState.RETURNED, True),
        ("returned", BankState.PAID, False),
    ],
)
def test_what_a_bank_may_have_paid_of_a_payout(status: str, state: BankState, good: bool) -> None:
    row: Any = SimpleNamespace(status=status, units=100)
    assert (BankTransfer(state, "USD", 100).paid in payout_pays(row, state)) is good


def test_the_ledger_is_compared_within_what_is_under_way() -> None:
    def compared(minted: int, burned: int) -> list[tuple[str, int]]:
        before: dict[str, dict[str, Moved]] = {kind: {} for kind in KINDS}
        before |= {"purchases": {"USD": Moved(70, 30)}, "faucet": {"USD": Moved(30)}, "payouts": {"USD": Moved(40)}}
        after = before | {"purchases": {"USD": Moved(90, 15)}}
        return [(text.split()[0], units) for text, units in compare_ledger("USD", before, _total(minted, burned), after)]

    assert [compared(minted, 40) for minted in (100, 120, 135)] == [[], [], []]
    assert compared(99, 40) == [("this", 1)]
    assert compared(136, 40) == [("minted", 1)]
    assert compared(100, 39) == [("this", 1)]
    assert compared(100, 1_000) == [], "anybody may burn"


def _total(minted: int, burned: int) -> AssetTotal:
    return AssetTotal("USD", minted - burned, 0, minted, burned, 0, ())
