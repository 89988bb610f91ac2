"""The stories of paying, before a small network that can be told to dawdle; and what the API refuses."""

from collections.abc import Callable

import pytest

from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.payment_stories import PaymentStories
from tests.person import Person


@pytest.fixture
def person(world: World) -> Callable[[], Person]:
    return world.person


class TestPayments(PaymentStories):
    """On the small network."""


def test_a_cross_shard_payment_shows_prepared_with_the_amount_held_until_all_sides_have_it(world: World) -> None:
    made = world.deal(0, 1)
    with world.network.switched(slow_commit=True):
        pending = made.pay("4", wait=1)
        assert pending["status"] == "prepared"
        assert (made.ann.balance(made.purse), made.bob.balance(made.till)) == (("6.00", "4.00"), ("0.00", "0.00"))
    assert made.ann.transfer(pending["id"], wait=10)["status"] == "committed"
    assert made.available() == ("6.00", "4.00")


def test_what_belongs_to_others_is_not_there(world: World) -> None:
    _, purse, eve, hers = made = world.deal()
    mine = f"/v1/wallets/{purse['id']}"
    others = made.ann.pay(purse, made.ann.wallet()["address"], "1").json()["id"]
    answers = [eve.get(path) for path in (mine, f"{mine}/transfers", f"/v1/transfers/{others}")]
    for answer in (*answers, eve.pay(purse, hers["address"], "1.00"), eve.faucet(purse, "1")):
        assert answer.status_code == 404, answer.text
    assert purse["id"] not in {wallet["id"] for wallet in eve.get("/v1/wallets").json()["items"]}


def test_bad_orders_are_refused_with_a_code(world: World) -> None:
    ann, purse, _, till = world.deal()
    good = {"from_wallet": purse["id"], "to": till["address"], "asset": "USD", "amount": "1.00"}
    amounts = ("1.001", "-1", "1e3", "0.00", "92233720368547758.08")
    bad: list[tuple[str, dict[str, object]]] = [("invalid_amount", {"amount": amount}) for amount in amounts]
    malformed: list[dict[str, object]] = [{"amount": 1.5}, {"asset": "usd"}, {"memo": "é" * 71}, {"surprise": 1}]
    bad += [("invalid_request", changes) for changes in malformed]
    bad += [("unknown_asset", {"asset": "XYZ"}), ("invalid_address", {"to": "spay1qqqq"}), ("same_account", {"to": purse["id"]})]
    for code, changes in bad:
        assert (problem(ann.post("/v1/transfers", good | changes)), changes) == ((422, code), changes)
