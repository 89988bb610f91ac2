"""The stories of paying, before a small network that can be told to dawdle; and what the API refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.conftest import World
from tests.payment_stories import PaymentStories
from tests.person import Person


@pytest.fixture
def person(world: World) -> Callable[[], Person]:
    return world.person


class TestPayments(PaymentStories):
    """On the small network."""


def test_a_cross_shard_payment_shows_prepared_with_the_amount_held_until_all_sides_have_it(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(1)
    alice.fund(purse, "10.00")
    with world.network.switched(slow_commit=True):
        pending = alice.pay(purse, till["address"], "4", wait=1).json()
        assert pending["status"] == "prepared"
        assert alice.balance(purse) == ("6.00", "4.00")
        assert bob.balance(till) == ("0.00", "0.00")
    assert alice.get(f"/v1/transfers/{pending['id']}", wait=10).json()["status"] == "committed"
    assert (alice.balance(purse), bob.balance(till)) == (("6.00", "0.00"), ("4.00", "0.00"))


def test_what_belongs_to_others_is_not_there(world: World) -> None:
    alice, eve = world.person(), world.person()
    purse, hers = alice.wallet(), eve.wallet()
    alice.fund(purse, "1.00")
    transfer_id = alice.get(f"/v1/wallets/{purse['id']}/transfers").json()["items"][0]["id"]
    for answer in (
        eve.get(f"/v1/wallets/{purse['id']}"),
        eve.get(f"/v1/wallets/{purse['id']}/transfers"),
        eve.get(f"/v1/transfers/{transfer_id}"),
        eve.pay(purse, hers["address"], "1.00"),
        eve.post("/v1/faucet", {"wallet_id": purse["id"], "asset": "USD", "amount": "1"}),
    ):
        assert answer.status_code == 404, answer.text
    assert purse["id"] not in {wallet["id"] for wallet in eve.get("/v1/wallets").json()["items"]}


def refusal(person: Person, **changes: Any) -> tuple[int, str]:
    wallet = person.wallet()
    body = {"from_wallet": wallet["id"], "to": person.wallet()["address"], "asset": "USD", "amount": "1.00", **changes}
    answer = person.post("/v1/transfers", body)
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": "1.001"}, "invalid_amount"),
        ({"amount": "-1"}, "invalid_amount"),
        ({"amount": "1e3"}, "invalid_amount"),
        ({"amount": "0.00"}, "invalid_amount"),
        ({"amount": "92233720368547758.08"}, "invalid_amount"),
        ({"amount": 1.5}, "invalid_request"),
        ({"asset": "XYZ"}, "unknown_asset"),
        ({"asset": "usd"}, "invalid_request"),
        ({"to": "spay1qqqq"}, "invalid_address"),
        ({"memo": "é" * 71}, "invalid_request"),
        ({"surprise": 1}, "invalid_request"),
    ],
)
def test_bad_orders_are_refused_with_a_code(world: World, changes: dict[str, Any], code: str) -> None:
    assert refusal(world.person(), **changes) == (422, code)
