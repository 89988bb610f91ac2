"""What time and a transfer's end make of payment intents and exchanges; and what is reserved for a capture."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from gateway.checkout.reservations import Part, parts_of, read_parts, reserve, take, write_parts
from gateway.checkout.states import (
    End,
    ExchangeStatus,
    IntentStatus,
    exchange_changes,
    intent_changes,
    intent_deadline,
    next_look,
)
from gateway.database import Owed, open_engine
from gateway.projection import Status
from node.protocol.transaction import Leg

UNDER_WAY, COMMITTED = End.of(Status.SUBMITTED, ""), End.of(Status.COMMITTED, "")
REJECTED, LATE = End.of(Status.REJECTED, "account_frozen"), End.of(Status.EXPIRED, "expired")


@dataclass
class Intent:
    status: str
    capturing: int = 0
    capture_before: int | None = None
    expires_at: int = 100


def test_a_transfer_under_way_decides_and_time_does_not() -> None:
    for end in (UNDER_WAY, End.of(Status.PREPARED, "")):
        assert intent_changes(Intent(IntentStatus.PROCESSING, capturing=7), end, now=10**9) == {}
        assert exchange_changes(ExchangeStatus.PROCESSING, end, expires_at=100, now=10**9) == {}


@pytest.mark.parametrize("now", [50, 1000], ids=["in time", "late"])
def test_what_is_committed_is_paid_however_late(now: int) -> None:
    paid = intent_changes(Intent(IntentStatus.PROCESSING, capturing=7), COMMITTED, now)
    assert paid == {"status": IntentStatus.SUCCEEDED, "amount_captured": 7, "capturing": 0}
    assert exchange_changes(ExchangeStatus.PROCESSING, COMMITTED, 100, now) == {"status": ExchangeStatus.SETTLED}


@pytest.mark.parametrize(("end", "code"), [(REJECTED, "account_frozen"), (LATE, "expired"), (End.of("expired", ""), "expired")])
def test_a_failed_payment_can_be_tried_again_while_there_is_time(end: End, code: str) -> None:
    processing = Intent(IntentStatus.PROCESSING, capturing=7)
    again, over = intent_changes(processing, end, now=99), intent_changes(processing, end, now=100)
    assert (again["status"], over["status"]) == (IntentStatus.REQUIRES_PAYMENT, IntentStatus.EXPIRED)
    assert {name: again[name] for name in ("code", "payer_wallet_id", "transfer_id", "capturing")} == {
        "code": code,
        "payer_wallet_id": None,
        "transfer_id": None,
        "capturing": 0,
    }
    assert "amount_captured" not in again
    assert exchange_changes(ExchangeStatus.PROCESSING, end, 100, 50) == {"status": ExchangeStatus.FAILED, "code": code}


def test_a_failed_capture_stays_authorized_while_that_lasts_and_keeps_its_payer() -> None:
    capturing = Intent(IntentStatus.PROCESSING, capturing=7, capture_before=500)
    again, over = intent_changes(capturing, LATE, now=499), intent_changes(capturing, LATE, now=500)
    assert (again["status"], over["status"]) == (IntentStatus.REQUIRES_CAPTURE, IntentStatus.CANCELED)
    assert "payer_wallet_id" not in again


def test_time_ends_what_nobody_pays_captures_or_accepts_and_nothing_that_has_ended() -> None:
    authorized = Intent(IntentStatus.REQUIRES_CAPTURE, capture_before=500)
    assert intent_changes(Intent(IntentStatus.REQUIRES_PAYMENT), None, 99) == {}
    assert intent_changes(Intent(IntentStatus.REQUIRES_PAYMENT), None, 100) == {"status": IntentStatus.EXPIRED}
    assert intent_changes(authorized, None, 499) == {}
    assert intent_changes(authorized, None, 500) == {"status": IntentStatus.CANCELED, "code": "authorization_expired"}
    assert exchange_changes(ExchangeStatus.OFFERED, None, 100, 99) == {}
    assert exchange_changes(ExchangeStatus.OFFERED, None, 100, 100) == {"status": ExchangeStatus.EXPIRED}
    for status in (IntentStatus.SUCCEEDED, IntentStatus.CANCELED, IntentStatus.EXPIRED):
        assert intent_changes(Intent(status, capture_before=1), None, 10**9) == {}
        assert intent_deadline(Intent(status, capture_before=1)) is None
    for ended in set(ExchangeStatus) - {ExchangeStatus.OFFERED, ExchangeStatus.PROCESSING}:
        assert exchange_changes(ended, None, 100, 10**9) == {}


def test_a_deadline_is_when_the_state_changes_by_itself() -> None:
    for intent in (Intent(IntentStatus.REQUIRES_PAYMENT), Intent(IntentStatus.REQUIRES_CAPTURE, capture_before=500)):
        deadline = intent_deadline(intent)
        assert deadline is not None
        assert intent_changes(intent, None, deadline - 1) == {}
        assert intent_changes(intent, None, deadline) != {}


def test_a_transfer_is_looked_at_often_at_first_and_never_rarely() -> None:
    assert [next_look(waited) for waited in (0.0, 2.0, 60.0)] == [0.1, 0.5, 2.0]


ANN, ANNS_OTHER, SHOP, ISSUER = (bytes([number]) * 20 for number in range(4))


def test_what_is_reserved_is_each_addresss_payment_and_its_fee_and_is_read_as_it_was_written() -> None:
    payments = [Leg(ANN, SHOP, "USD", 50), Leg(ANNS_OTHER, SHOP, "USD", 7)]
    parts = parts_of(payments, [*payments, Leg(ANN, ISSUER, "USD", 3), Leg(ANNS_OTHER, ISSUER, "USD", 3)])
    assert parts == [Part(ANN, 50, 3), Part(ANNS_OTHER, 7, 3)]
    assert read_parts(write_parts(parts)) == parts
    assert parts_of(payments[:1], payments[:1]) == [Part(ANN, 50, 0)]


@pytest.mark.parametrize(("units", "taken"), [(57, [50, 7]), (51, [50, 1]), (50, [50]), (1, [1])])
def test_a_capture_takes_exactly_its_amount_of_what_is_reserved(units: int, taken: list[int]) -> None:
    assert [part.units for part in take([Part(ANN, 50, 3), Part(ANNS_OTHER, 7, 3)], units)] == taken


def test_what_is_reserved_is_owed_while_it_waits_to_be_captured(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")
    parts = write_parts([Part(ANN, 50, 3), Part(ANNS_OTHER, 7, 0)])
    free, held = (SimpleNamespace(status=status, asset="USD", reserved=parts) for status in ("processing", "requires_capture"))
    changes = [(free, held), (held, held), (held, free), (free, free), (free, held)]
    seen = list[list[int]]()
    with engine.begin() as connection:
        for before, after in changes:
            reserve(connection, cast(Any, before), cast(Any, after))
            seen.append(list(connection.execute(select(Owed.units).order_by(Owed.address)).scalars()))
    engine.dispose()
    assert seen == [[53, 7], [53, 7], [0, 0], [0, 0], [53, 7]]
