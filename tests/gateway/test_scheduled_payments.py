"""Scheduled payments over HTTP: what is refused, whose they are, and one that is paid."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import Deal
from tests.waiting import until

PATH = "/v1/scheduled-payments"


def asked(made: Deal, seconds: int = 3600, **changes: Any) -> dict[str, Any]:
    """One of 1.00 USD from Ann's purse to Bob's till, at the first full second that is so many seconds ahead."""
    start = (datetime.now(UTC) + timedelta(seconds=seconds + 1)).strftime("%Y-%m-%dT%H:%M:%S")
    body = {"from_wallet": made.purse["id"], "to": made.till["id"], "asset": "USD", "amount": "1.00", "starts_at": start}
    return body | changes


def test_it_is_paid_when_its_time_comes_and_asked_for_twice_it_is_one(world: World) -> None:
    made = world.deal()
    body = asked(made, 2, memo="rent", reference="flat 4")
    first, again = (made.ann.post(PATH, body, key="rent") for _ in "ab")
    assert (first.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert first.json()["status"] == "active"
    one = f"{PATH}/{first.json()['id']}"
    done = until(lambda: found if (found := made.ann.get(one).json())["status"] == "completed" else {}, "its end")
    run = done["last_run"]
    assert (run["status"], run["due_at"], run["attempts"]) == ("paid", first.json()["next_run_at"], 1)
    assert made.ann.get(f"{one}/runs").json() == {"items": [run], "next_cursor": None}
    assert made.ann.transfer(run["transfer_id"])["memo"] == "rent"
    assert made.available() == ("9.00", "1.00")
    assert problem(made.ann.http.delete(one)) == (409, "scheduled_payment_over")


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"amount": "0"}, "invalid_amount", "/body/amount"),
        ({"asset": "XXX"}, "unknown_asset", "/body/asset"),
        ({"to": "0" * 32}, "unknown_recipient", "/body/to"),
        ({"to": "a b@example.org"}, "invalid_recipient", "/body/to"),
        ({"starts_at": "2020-01-01T00:00", "repeat": "weekly"}, "invalid_time", "/body/starts_at"),
        ({"starts_at": "2099-01-01T00:00"}, "invalid_time", "/body/starts_at"),
        ({"starts_at": "0001-01-01T00:00"}, "invalid_time", "/body/starts_at"),
        ({"starts_at": "2027-02-30T00:00"}, "invalid_time", "/body/starts_at"),
        ({"repeat": "monthly", "until": "2020-01-01"}, "invalid_time", "/body/starts_at"),
        ({"repeat": "monthly", "until": "2027-13-01"}, "invalid_time", "/body/until"),
        ({"repeat": "monthly", "until": "2099-01-01", "count": 3}, "invalid_time", "/body/until"),
        ({"count": 3}, "invalid_time", "/body/repeat"),
        ({"time_zone": "../../etc/passwd"}, "unknown_time_zone", "/body/time_zone"),
        ({"time_zone": "localtime"}, "unknown_time_zone", "/body/time_zone"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_is_refused_and_named(shared: Deal, changes: dict[str, Any], code: str, pointer: str) -> None:
    answer = shared.ann.post(PATH, asked(shared) | changes)
    assert (problem(answer), [one["pointer"] for one in answer.json()["errors"]]) == ((422, code), [pointer])
    assert shared.ann.get(PATH).json()["items"] == []


def test_they_are_ones_own(shared: Deal) -> None:
    assert problem(shared.bob.post(PATH, asked(shared))) == (404, "wallet_not_found")
    view = shared.ann.post(PATH, asked(shared)).json()
    one = f"{PATH}/{view['id']}"
    for path in (one, f"{one}/runs", f"{PATH}/x"):
        assert problem(shared.bob.get(path)) == (404, "scheduled_payment_not_found")
    answers = [shared.bob.http.delete(one), shared.bob.post(f"{one}/pause", {}), shared.bob.post(f"{one}/resume", {})]
    assert [problem(answer) for answer in answers] == [(404, "scheduled_payment_not_found")] * 3
    assert shared.ann.get(PATH, status="active").json()["items"] == [view]
    assert shared.ann.http.delete(one).json() == view | {"status": "canceled", "next_run_at": None}
    assert shared.ann.get(PATH, status="active").json()["items"] == []


@pytest.fixture(scope="module")
def shared(world: World) -> Deal:
    return world.deal()
