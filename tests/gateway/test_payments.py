"""Paying: inside a shard and across, refused and repeated, seen from both sides."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.conftest import World
from tests.gateway.harness import Person


@pytest.mark.parametrize(("home", "other"), [(0, 0), (0, 1), (1, 0)])
def test_a_payment_arrives_to_the_cent_and_in_both_histories(world: World, home: int, other: int) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(home), bob.wallet(other)
    alice.fund(purse, "10.00")

    paid = alice.pay(purse, till["address"], "3.25", memo="coffee ☕", wait=10)

    assert paid.status_code == 200, paid.text
    transfer = paid.json()
    assert (transfer["status"], transfer["code"]) == ("committed", None)
    assert (transfer["home_shard"], transfer["shards"]) == (home, sorted({home, other}))
    assert alice.balance(purse) == ("6.75", "0.00")
    assert bob.balance(till) == ("3.25", "0.00")
    sent = alice.get(f"/v1/wallets/{purse['id']}/transfers").json()["items"][0]
    received = bob.get(f"/v1/wallets/{till['id']}/transfers").json()["items"][0]
    assert (sent["direction"], sent["counterparty"], sent["memo"]) == ("sent", till["address"], "coffee ☕")
    assert (received["direction"], received["counterparty"], received["memo"]) == ("received", purse["address"], "coffee ☕")
    assert sent["amount"] == received["amount"] == "3.25"
    assert bob.get(f"/v1/transfers/{transfer['id']}").json()["status"] == "committed"


def test_the_recipient_may_be_an_email_or_a_wallet(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, first, second = alice.wallet(), bob.wallet(), bob.wallet()
    alice.fund(purse, "5")
    assert alice.pay(purse, bob.email.upper(), "1", wait=10).json()["to"] == first["address"]
    assert alice.pay(purse, second["id"], "1", wait=10).json()["to"] == second["address"]
    assert bob.balance(first) == bob.balance(second) == ("1.00", "0.00")
    unknown = alice.pay(purse, "nobody@example.org", "1")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_recipient")


@pytest.mark.parametrize("other", [0, 1])
def test_an_overdraft_is_rejected_and_holds_nothing(world: World, other: int) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(other)
    alice.fund(purse, "10.00")
    refused = alice.pay(purse, till["address"], "10.01", wait=10).json()
    assert (refused["status"], refused["code"]) == ("rejected", "insufficient_funds")
    assert alice.balance(purse) == ("10.00", "0.00")
    assert bob.get(f"/v1/wallets/{till['id']}/transfers").json()["items"] == []


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


def test_one_key_makes_one_transfer_even_at_once(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(), bob.wallet()
    alice.fund(purse, "10.00")

    def pay(_: int) -> Any:
        return alice.pay(purse, till["address"], "1.00", key="rent-may", wait=10).json()

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(pay, range(20)))
    assert len({answer["id"] for answer in answers}) == 1
    assert {answer["status"] for answer in answers} == {"committed"}
    assert bob.balance(till) == ("1.00", "0.00")
    conflict = alice.pay(purse, till["address"], "2.00", key="rent-may")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    other = bob.pay(till, purse["address"], "1.00", key="rent-may", wait=10)
    assert other.json()["status"] == "committed", "keys are each user's own"


@pytest.mark.parametrize("other", [0, 1])
def test_of_many_at_once_exactly_the_affordable_ones_commit(world: World, other: int) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(0), bob.wallet(other)
    alice.fund(purse, "100.00")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: alice.pay(purse, till["address"], "1.00", wait=25).json(), range(200)))
    outcomes = [(answer["status"], answer["code"]) for answer in answers]
    assert outcomes.count(("committed", None)) == 100
    assert outcomes.count(("rejected", "insufficient_funds")) == 100
    assert (alice.balance(purse), bob.balance(till)) == (("0.00", "0.00"), ("100.00", "0.00"))


def test_history_pages_join_without_gap_or_repetition(world: World) -> None:
    alice, bob = world.person(), world.person()
    purse, till = alice.wallet(), bob.wallet()
    alice.fund(purse, "10.00")
    made = [alice.pay(purse, till["address"], "0.10", memo=str(i), wait=10).json()["id"] for i in range(7)]
    collected: list[str] = []
    cursor = None
    while True:
        parameters = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = bob.get(f"/v1/wallets/{till['id']}/transfers", **parameters).json()
        assert len(page["items"]) <= 3
        collected += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert collected == made[::-1]
    bad = bob.get(f"/v1/wallets/{till['id']}/transfers", cursor="%%%")
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_cursor")


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
