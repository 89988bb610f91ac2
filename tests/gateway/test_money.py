"""The stories of money in and out: cards, payouts, refunds, the faucet, and that nothing happens twice."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import PASSWORD, Person, Wallet
from tests.waiting import until

GOOD = "4242 4242 4242 4242"
DECLINING, NO_FUNDS, CONFIRMING = "4000000000000002", "4000000000009995", "4000000000003220"
DISPUTED, SLOW, LOSING, REFUSING = "4000000000000259", "4000000000000077", "4000000000000119", "4000000000005126"
IBAN, RETURNING = "DE89 3704 0044 0532 0130 00", "DE40370400440532010002"


class Customer:
    """Somebody with a wallet, who buys, refunds and cashes out."""

    def __init__(self, world: World, dollars: str | None = None) -> None:
        self.person: Person = world.person().verify()
        self.wallet: Wallet = self.person.wallet() if dollars is None else self.person.wallet(USD=dollars)

    def try_to_buy(
        self, amount: str, number: str = GOOD, key: str | None = None, wait: float = 20, **more: Any
    ) -> httpx.Response:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "987"} | more.pop("card", {})
        body = {"wallet_id": self.wallet["id"], "asset": "USD", "amount": amount, "card": card} | more
        return self.person.post("/v1/purchases", body, key, wait=wait)

    def buy(self, amount: str = "25.00", number: str = GOOD, **options: Any) -> dict[str, Any]:
        return seen(self.try_to_buy(amount, number, **options))

    def try_to_refund(self, purchase: dict[str, Any], amount: str | None = None, key: str | None = None) -> httpx.Response:
        body = {"purchase_id": purchase["id"]} | ({} if amount is None else {"amount": amount})
        return self.person.post("/v1/refunds", body, key, wait=20)

    def try_to_cash_out(self, amount: str, iban: str = IBAN, key: str | None = None, **more: Any) -> httpx.Response:
        body = {"wallet_id": self.wallet["id"], "asset": "USD", "amount": amount, "iban": iban, "name": "Ann Example"} | more
        return self.person.post("/v1/payouts", body, key, wait=20)

    def purchase(self, purchase: dict[str, Any], wait: float = 0) -> dict[str, Any]:
        return seen(self.person.get(f"/v1/purchases/{purchase['id']}", wait=wait))

    def settled_payout(self, payout: dict[str, Any]) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            view = seen(self.person.get(f"/v1/payouts/{payout['id']}"))
            return view if view["status"] in ("paid", "returned", "failed") else None

        view = until(ended, "the payout's end")
        assert view is not None
        return view

    @property
    def balance(self) -> str:
        available, held = self.person.balance(self.wallet)
        assert held == "0.00"
        return available


def seen(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code in (200, 202), answer.text
    view: dict[str, Any] = answer.json()
    return view


def path_of(view: dict[str, Any]) -> list[str]:
    return [line["status"] for line in view["history"]]


def events_of(world: World, subject: str) -> list[str]:
    with sqlite3.connect(world.folder / "gateway.db") as connection:
        rows = connection.execute("SELECT type FROM events WHERE subject = ? ORDER BY id", (subject,))
        return [one for (one,) in rows]


@pytest.fixture
def ann(world: World) -> Customer:
    return Customer(world)


def test_a_card_buys_coins_one_to_one(world: World, ann: Customer) -> None:
    answer = ann.try_to_buy("25.50")
    bought = answer.json()
    assert (answer.status_code, bought["status"], bought["amount"], ann.balance) == (200, "completed", "25.50", "25.50")
    assert bought["card"] == {"brand": "visa", "last4": "4242"}
    assert path_of(bought) == ["processing", "minting", "completed"]
    assert ann.person.transfer(bought["transfer_id"])["kind"] == "purchase"
    assert events_of(world, bought["id"]) == ["purchase.completed"]
    other = ann.buy("1.00")
    page = ann.person.get("/v1/purchases", limit=1).json()
    rest = ann.person.get("/v1/purchases", cursor=page["next_cursor"]).json()
    assert [page["items"], rest] == [[other], {"items": [bought], "next_cursor": None}]


@pytest.mark.parametrize(
    ("number", "year", "code"),
    [(DECLINING, 2040, "card_declined"), (NO_FUNDS, 2040, "insufficient_funds"), (GOOD, 2025, "expired_card")],
)
def test_a_declined_card_brings_nothing(world: World, ann: Customer, number: str, year: int, code: str) -> None:
    declined = ann.buy(number=number, card={"exp_year": year}, wait=0)
    assert (declined["status"], declined["decline_code"], declined["transfer_id"]) == ("declined", code, None)
    assert (ann.balance, events_of(world, declined["id"])) == ("0.00", ["purchase.declined"])


def test_a_cardholder_confirms_and_once_is_enough(world: World, ann: Customer) -> None:
    asked = ann.buy(number=CONFIRMING)
    assert (asked["status"], asked["next_action"]["type"], ann.balance) == ("requires_action", "confirm", "0.00")
    path = f"/v1/purchases/{asked['id']}/confirm"
    with ThreadPoolExecutor(5) as pool:
        done = [seen(one) for one in pool.map(lambda _: ann.person.post(path, {"code": "123456"}, wait=20), range(5))]
    assert [one["status"] for one in done] == ["completed"] * 5
    assert path_of(done[0]) == ["processing", "requires_action", "processing", "minting", "completed"]
    assert (ann.balance, done[0]["next_action"]) == ("25.00", None)
    refused = ann.buy(number=CONFIRMING)
    wrong = seen(ann.person.post(f"/v1/purchases/{refused['id']}/confirm", {"code": "654321"}, wait=20))
    assert (wrong["status"], wrong["decline_code"], ann.balance) == ("declined", "authentication_failed", "25.00")
    plain = ann.person.post(f"/v1/purchases/{ann.buy('1.00')['id']}/confirm", {"code": "123456"})
    assert problem(plain) == (409, "nothing_to_confirm")


def test_a_processor_that_loses_its_answer_charges_once(ann: Customer) -> None:
    lost = ann.buy("4.00", LOSING, wait=0)
    assert lost["status"] == "processing"
    assert (ann.purchase(lost, wait=20)["status"], ann.balance) == ("completed", "4.00")


def test_a_dispute_is_told(world: World, ann: Customer) -> None:
    bought = ann.buy(number=DISPUTED)
    until(lambda: ann.purchase(bought)["status"] == "disputed", "the dispute")
    assert events_of(world, bought["id"]) == ["purchase.completed", "purchase.disputed"]
    assert problem(ann.try_to_refund(bought)) == (409, "not_refundable")


def test_one_key_is_one_purchase_one_payout_one_refund(ann: Customer) -> None:
    def many(do: Callable[[int], httpx.Response]) -> dict[str, Any]:
        with ThreadPoolExecutor(10) as pool:
            views = [seen(answer) for answer in pool.map(do, range(20))]
        assert len({view["id"] for view in views}) == 1
        return views[0]

    bought = many(lambda _: ann.try_to_buy("20.00", key="buy"))
    assert (ann.purchase(bought, wait=20)["status"], ann.balance) == ("completed", "20.00")
    refunded = many(lambda _: ann.try_to_refund(bought, "5.00", key="refund"))
    assert (refunded["status"], ann.balance) == ("succeeded", "15.00")
    ann.settled_payout(many(lambda _: ann.try_to_cash_out("7.00", key="pay out")))
    assert ann.balance == "8.00"
    others = (
        ann.try_to_buy("20.00", CONFIRMING, key="buy"),
        ann.try_to_buy("2.00", key="buy"),
        ann.try_to_buy("1", key="refund"),
    )
    assert [problem(answer) for answer in others] == [(409, "idempotency_conflict")] * 3
    assert ann.try_to_buy("20.00", key="buy").json()["id"] == bought["id"]


def test_refunds_of_a_purchase_add_up_to_it_at_most(world: World, ann: Customer) -> None:
    bought = ann.buy("10.00")
    part = seen(ann.try_to_refund(bought, "4.00"))
    assert (part["status"], part["amount"], part["purchase_id"]) == ("succeeded", "4.00", bought["id"])
    assert (ann.purchase(bought)["amount_refunded"], ann.purchase(bought)["status"]) == ("4.00", "completed")
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: ann.try_to_refund(bought, "4.00"), range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert {problem(answer)[1] for answer in answers if answer.status_code == 409} == {"amount_too_large"}
    rest = seen(ann.try_to_refund(bought))
    whole = ann.purchase(bought)
    assert (rest["amount"], whole["status"], whole["amount_refunded"], ann.balance) == ("2.00", "refunded", "10.00", "0.00")
    assert problem(ann.try_to_refund(bought)) == (409, "not_refundable")
    assert events_of(world, bought["id"]) == ["purchase.completed", "purchase.refunded"]
    assert events_of(world, rest["id"]) == ["refund.succeeded"]
    assert len(ann.person.get("/v1/refunds").json()["items"]) == 3


def test_a_refund_the_wallet_cannot_pay_or_the_card_does_not_take_leaves_the_coins(world: World, ann: Customer) -> None:
    bought, refusing = ann.buy("10.00"), ann.buy("1.00", REFUSING)
    refused = seen(ann.try_to_refund(refusing))
    assert (refused["status"], refused["code"], ann.balance) == ("failed", "card_refused", "11.00")
    assert events_of(world, refused["id"]) == ["refund.failed"]
    ann.person.pay(ann.wallet, ann.person.wallet()["address"], "10.00", wait=20)
    poor = seen(ann.try_to_refund(bought))
    assert (poor["status"], poor["code"], ann.balance) == ("failed", "insufficient_funds", "1.00")
    assert ann.purchase(bought)["amount_refunded"] == "0.00"


def test_coins_are_paid_out_to_a_bank_and_come_back_when_it_returns_them(world: World) -> None:
    ann = Customer(world, "10.00")
    sent = seen(ann.try_to_cash_out("4.00"))
    returned = seen(ann.try_to_cash_out("3.00", RETURNING))
    assert (sent["status"], sent["iban"], ann.balance) == ("sent", "DE89**************3000", "3.00")
    assert path_of(ann.settled_payout(sent)) == ["processing", "sent", "paid"]
    back = ann.settled_payout(returned)
    assert (path_of(back), back["code"], ann.balance) == (["processing", "sent", "returned"], "returned_by_bank", "6.00")
    assert [ann.person.transfer(back[name])["kind"] for name in ("transfer_id", "return_transfer_id")] == ["payout", "reversal"]
    poor = seen(ann.try_to_cash_out("6.01"))
    assert (poor["status"], poor["code"], ann.balance) == ("failed", "insufficient_funds", "6.00")
    assert events_of(world, returned["id"]) == ["payout.sent", "payout.returned"]
    assert events_of(world, poor["id"]) == ["payout.failed"]


def test_what_one_user_may_have_is_limited(world: World, ann: Customer) -> None:
    assert problem(ann.try_to_buy("5000.01")) == (422, "amount_too_large")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ann.try_to_buy("5000.00"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    assert problem(ann.try_to_buy("0.01")) == (429, "purchase_limit")
    bob = Customer(world)
    assert bob.buy("1.00")["status"] == "completed"
    declined = [bob.try_to_buy("1.00", DECLINING, wait=0) for _ in range(11)]
    assert [answer.status_code for answer in declined] == [200] * 10 + [429]
    assert problem(bob.try_to_buy("1.00")) == (429, "too_many_declined")


def test_the_faucet_gives_each_user_only_so_much_a_day(world: World, ann: Customer) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ann.person.faucet(ann.wallet, "10000000.00", wait=20), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    assert problem(ann.person.faucet(ann.wallet, "0.01")) == (429, "faucet_limit")
    assert ann.balance == "20000000.00"
    assert Customer(world, "1.00").balance == "1.00"


def test_bad_orders_of_money_are_refused_with_a_code(ann: Customer) -> None:
    someone: dict[str, Any] = {"wallet_id": "0" * 32}
    assert problem(ann.try_to_buy("1.00", "4242424242424241")) == (422, "invalid_card_number")
    assert problem(ann.try_to_buy("1.00", card={"cvc": "12x"})) == (422, "invalid_cvc")
    assert problem(ann.try_to_buy("1", asset="VND")) == (409, "no_issuer_key")
    assert problem(ann.try_to_buy("1.001")) == (422, "invalid_amount")
    assert problem(ann.try_to_buy("1.00", **someone)) == (404, "wallet_not_found")
    assert problem(ann.try_to_cash_out("1.00", **someone)) == (404, "wallet_not_found")
    assert problem(ann.try_to_cash_out("1.00", "DE89370400440532013001")) == (422, "invalid_iban")
    names = ("", "a" * 71, "Ann\nExample")
    assert {problem(ann.try_to_cash_out("1.00", name=name)) for name in names} == {(422, "invalid_request")}
    both = {"purchase_id": "1", "payment_intent_id": "2"}
    assert [problem(ann.person.post("/v1/refunds", body)) for body in ({}, both)] == [(422, "invalid_request")] * 2
    assert ann.person.get("/v1/purchases").json()["items"] == []


def test_who_has_not_verified_an_address_buys_and_cashes_out_nothing(world: World, ann: Customer) -> None:
    ann.person = world.person()
    ann.wallet = ann.person.wallet(USD="1.00")
    answers = [ann.try_to_buy("1.00"), ann.try_to_cash_out("1.00")]
    assert [problem(answer) for answer in answers] == [(403, "email_not_verified")] * 2


def test_an_account_is_not_closed_while_money_is_on_its_way(world: World, ann: Customer) -> None:
    asked = ann.buy(number=CONFIRMING)
    assert problem(ann.person.http.request("DELETE", "/v1/me", json={"password": PASSWORD})) == (409, "under_way")
    ann.person.post(f"/v1/purchases/{asked['id']}/confirm", {"code": "wrong"}, wait=20)
    assert ann.person.http.request("DELETE", "/v1/me", json={"password": PASSWORD}).status_code == 204


def test_money_of_others_is_not_there(world: World, ann: Customer) -> None:
    bought = ann.buy(number=CONFIRMING)
    paid_out = ann.try_to_cash_out("1.00").json()
    eve = Customer(world)
    paths = (f"/v1/purchases/{bought['id']}", f"/v1/payouts/{paid_out['id']}", "/v1/refunds/1")
    answers = [eve.person.get(path) for path in paths]
    answers += [eve.person.post(f"{paths[0]}/confirm", {"code": "123456"}), eve.try_to_refund(bought)]
    assert {answer.status_code for answer in answers} == {404}
    assert [eve.person.get(f"/v1/{what}").json()["items"] for what in ("purchases", "payouts", "refunds")] == [[], [], []]


def test_no_card_number_and_no_iban_is_kept_or_logged(world: World, ann: Customer) -> None:
    ann.buy("2.00", number="5555 5555 5555 4444")
    echoed = ann.try_to_buy("1.00", number="5555 5555 5555 4444", card={"exp_month": 13, "cvc": "98765"})
    assert problem(echoed) == (422, "invalid_request")
    assert not any(secret in echoed.text for secret in ("5555", "98765"))
    ann.settled_payout(seen(ann.try_to_cash_out("1.00")))
    kept = b"".join(path.read_bytes() for path in world.folder.glob("gateway.*"))
    assert b"purchase" in kept
    for secret in (b"5555555555554444", b"5555 5555", b"DE89370400440532013000", b"DE89 3704"):
        assert secret not in kept
