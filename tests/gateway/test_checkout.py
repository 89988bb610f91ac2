"""The stories of checkout: payment intents, reservations, exchanges, and payments of several legs."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import segno

from node.protocol.address import address_of, decode_address
from node.protocol.crypto import KeyPair
from node.protocol.transaction import Action, Leg
from tests.chains import key
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.test_accounts import problem
from tests.gateway.test_payments import events_of
from tests.gateway.world import World
from tests.person import PASSWORD, Deal, Person, Wallet
from tests.waiting import until

View = dict[str, Any]


def ask(made: Deal, amount: str = "4.00", **more: Any) -> View:
    """Bob, who has the till, wants so much USD."""
    answer = made.bob.post("/v1/payment-intents", {"wallet_id": made.till["id"], "asset": "USD", "amount": amount} | more)
    assert answer.status_code == 201, answer.text
    view: View = answer.json()
    return view


def confirm(person: Person, intent: View, wallet: Wallet, wait: float = 15, once: str | None = None) -> httpx.Response:
    return person.post(f"/v1/payment-intents/{intent['id']}/confirm", {"from_wallet": wallet["id"]}, once, wait=wait)


def paid(made: Deal, intent: View) -> View:
    """Ann has paid it."""
    answer = confirm(made.ann, intent, made.purse)
    assert answer.status_code == 200, answer.text
    view: View = answer.json()
    return view


def capture(made: Deal, intent: View, once: str | None = None, **body: str) -> httpx.Response:
    return made.bob.post(f"/v1/payment-intents/{intent['id']}/capture", body, once, wait=15)


def cancel(person: Person, intent: View) -> httpx.Response:
    return person.post(f"/v1/payment-intents/{intent['id']}/cancel", None)


def now(person: Person, intent: View) -> View:
    answer = person.get(f"/v1/payment-intents/{intent['id']}")
    assert answer.status_code == 200, answer.text
    view: View = answer.json()
    return view


def told(world: World, person: Person, intent: View) -> list[str]:
    """The types of the events about it."""
    return [kind for kind, subject in events_of(world, person.email) if subject == intent["id"]]


def freeze(world: World, wallet: Wallet, action: Action = Action.FREEZE) -> None:
    """Have the issuer of USD (un)freeze a wallet, and wait until its shard has done so."""
    shard = world.network.chains.shards[wallet["shard"]]
    address = decode_address(wallet["address"])
    leg = Leg(address_of(USD_ISSUER.public), address, "USD", 0, action)
    sign_and_hand_in(world, USD_ISSUER, leg)
    until(lambda: dict(shard.state.balances_of(address))["USD"].frozen is (action is Action.FREEZE), "frozen, or not any more")


def sign_and_hand_in(world: World, payer: KeyPair, leg: Leg) -> None:
    """Around the gateway."""
    world.network.hand_in(world.network.chains.sign([payer], leg, valid_until=int(time.time() * 1000) + 60_000))


def owner_of_dong(world: World, shard: int, amount: int = 100_000) -> tuple[Person, Wallet]:
    """Somebody new with a wallet in a shard; this gateway has no key to mint VND with."""
    person = world.person()
    wallet, issuer = person.wallet(shard), world.network.chains.issuers["VND"]
    sign_and_hand_in(world, issuer, Leg(address_of(issuer.public), decode_address(wallet["address"]), "VND", amount))
    until(lambda: person.balance(wallet, "VND")[0] == str(amount), "VND has come")
    return person, wallet


class TestPaymentIntents:
    def test_a_buyer_pays_exactly_what_the_shop_asks_for_and_the_shop_is_told(self, world: World) -> None:
        made = world.deal(0, 1)
        order = {"description": "Two coffees", "reference": "order 7", "metadata": {"table": "12"}}
        links = {"success_url": "https://shop.example/thanks?o=7", "cancel_url": "http://localhost:9000/cart"}
        intent = ask(made, "4.05", **order, **links)
        assert {
            "status": "requires_payment",
            "amount": "4.05",
            "amount_captured": "0.00",
            **order,
            **links,
        }.items() <= intent.items()
        assert intent["merchant"] == made.bob.email, "the display name, which is the address in these tests"
        seen = now(made.ann, intent)
        assert (seen["reference"], seen["metadata"], seen["description"]) == (None, None, "Two coffees")
        result = paid(made, intent)
        assert (result["status"], result["amount_captured"]) == ("succeeded", "4.05")
        assert made.available() == ("5.95", "4.05")
        shown = now(made.bob, intent)
        assert (shown["transfer_id"], shown["reference"]) == (result["transfer_id"], "order 7")
        assert made.ann.transfer(shown["transfer_id"])["status"] == "committed"
        assert told(world, made.bob, intent) == ["payment_intent.processing", "payment_intent.succeeded"]
        assert told(world, made.ann, intent) == [], "hers are the transfer's"
        assert ("transfer.committed", shown["transfer_id"]) in events_of(world, made.ann.email)
        assert now(world.person(), intent)["transfer_id"] is None, "a stranger with the link does not learn who paid"

    def test_of_buyers_who_confirm_at_once_one_pays_once(self, world: World) -> None:
        made = world.deal(0, 1)
        intent, buyers = ask(made), [(made.ann, made.purse)]
        for _ in range(2):
            buyer = world.person()
            buyers.append((buyer, buyer.wallet(0, USD="10.00")))
        with ThreadPoolExecutor(12) as pool:
            answers = [*pool.map(lambda n: (n % 3, confirm(buyers[n % 3][0], intent, buyers[n % 3][1])), range(12))]
        outcomes = {n: {answer.status_code for m, answer in answers if m == n} for n in range(3)}
        assert sorted(map(sorted, outcomes.values())) == [[200], [409], [409]], "who pays is told so each time, the others never"
        assert {problem(answer) for _, answer in answers if answer.status_code == 409} == {(409, "intent_not_payable")}
        assert made.bob.balance(made.till) == ("4.00", "0.00")
        assert sorted(buyer.balance(wallet)[0] for buyer, wallet in buyers) == ["10.00", "10.00", "6.00"]
        assert sum(len(buyer.history(wallet)) for buyer, wallet in buyers) == 4, "three were funded, one paid"

    def test_who_has_too_little_is_refused_leaves_no_trace_and_can_try_again(self, world: World) -> None:
        made = world.deal()
        intent = ask(made, "10.01")
        assert problem(confirm(made.ann, intent, made.purse)) == (409, "insufficient_funds")
        assert [line["kind"] for line in made.ann.history(made.purse)] == ["faucet"]
        assert (now(made.bob, intent)["status"], told(world, made.bob, intent)) == ("requires_payment", [])
        made.ann.faucet(made.purse, "0.01", wait=15)
        assert paid(made, intent)["status"] == "succeeded"

    def test_what_the_chain_rejects_can_be_paid_again_with_another_key(self, world: World) -> None:
        made = world.deal(0, 1)
        intent = ask(made)
        freeze(world, made.purse)
        failed = confirm(made.ann, intent, made.purse, once="first")
        assert (failed.status_code, failed.json()["status"], failed.json()["code"]) == (200, "requires_payment", "account_frozen")
        freeze(world, made.purse, Action.UNFREEZE)
        assert confirm(made.ann, intent, made.purse, once="first").json()["status"] == "requires_payment", "that was this attempt"
        again = confirm(made.ann, intent, made.purse, once="second").json()
        assert (again["status"], again["code"]) == ("succeeded", None)
        assert made.available() == ("6.00", "4.00")

    def test_time_ends_what_nobody_pays_but_not_what_is_being_paid(self, world: World) -> None:
        made = world.deal()
        unpaid, late = ask(made, expires_in=2), ask(made, expires_in=2)
        with world.network.switched(hold=True):
            assert confirm(made.ann, late, made.purse, wait=0).json()["status"] == "processing"
            assert problem(cancel(made.bob, late)) == (409, "intent_not_cancelable")
            until(lambda: now(made.bob, unpaid)["status"] == "expired", "the unpaid one expires")
            assert now(made.bob, late)["status"] == "processing"
        until(lambda: now(made.bob, late)["status"] == "succeeded", "the other is paid")
        assert problem(confirm(made.ann, unpaid, made.purse)) == (409, "intent_not_payable")
        assert told(world, made.bob, unpaid) == ["payment_intent.expired"]
        assert made.available() == ("6.00", "4.00")

    def test_one_key_makes_one_intent_and_a_canceled_one_cannot_be_paid(self, world: World) -> None:
        made = world.deal()
        body = {"wallet_id": made.till["id"], "asset": "USD", "amount": "1.00"}
        first, second = (made.bob.post("/v1/payment-intents", body, "order-8") for _ in range(2))
        assert first.json() == second.json()
        assert problem(made.bob.post("/v1/payment-intents", body | {"amount": "2"}, "order-8")) == (409, "idempotency_conflict")
        intent = first.json()
        assert [cancel(made.bob, intent).json()["status"] for _ in range(2)] == ["canceled"] * 2
        assert told(world, made.bob, intent) == ["payment_intent.canceled"]
        assert problem(confirm(made.ann, intent, made.purse)) == (409, "intent_not_payable")

    def test_lists_are_the_shops_own_filtered_and_page_by_page(self, world: World) -> None:
        made = world.deal()
        asked = [ask(made, reference=f"order {n % 2}")["id"] for n in range(5)]
        cancel(made.bob, {"id": asked[0]})

        def listed(**query: Any) -> list[str]:
            found, cursor = list[str](), dict[str, str]()
            while True:
                page = made.bob.get("/v1/payment-intents", **query, limit=2, **cursor).json()
                found += [item["id"] for item in page["items"]]
                if page["next_cursor"] is None:
                    return found
                cursor = {"cursor": page["next_cursor"]}

        assert listed() == asked[::-1]
        assert listed(reference="order 0") == [asked[4], asked[2], asked[0]]
        assert listed(status="canceled", reference="order 0") == [asked[0]]
        assert made.ann.get("/v1/payment-intents").json() == {"items": [], "next_cursor": None}
        for wrong in ({"status": "unpaid"}, {"limit": 101}):
            assert problem(made.bob.get("/v1/payment-intents", **wrong)) == (422, "invalid_request")
        assert problem(made.bob.get("/v1/payment-intents", colour="red")) == (422, "unknown_parameter")

    def test_only_the_shop_captures_and_cancels_and_unknown_ones_are_not_there(self, world: World) -> None:
        made = world.deal()
        intent, unknown = ask(made), {"id": "0" * 32}
        for odd in ("ä", "x" * 1000):
            assert problem(made.ann.get(f"/v1/payment-intents/{odd}")) == (404, "payment_intent_not_found")
            assert problem(made.ann.get(f"/v1/exchanges/{odd}")) == (404, "exchange_not_found")
        for one in (intent, unknown):
            answers = [cancel(made.ann, one), made.ann.post(f"/v1/payment-intents/{one['id']}/capture", {})]
            assert {problem(answer) for answer in answers} == {(404, "payment_intent_not_found")}
        answers = [made.ann.get(f"/v1/payment-intents/{unknown['id']}"), confirm(made.ann, unknown, made.purse)]
        answers.append(world.gateway.http.get(f"/v1/payment-intents/{unknown['id']}/qr.svg"))
        assert {problem(answer) for answer in answers} == {(404, "payment_intent_not_found")}
        assert problem(confirm(world.person(), intent, made.purse)) == (404, "wallet_not_found")
        assert problem(confirm(made.bob, intent, made.till)) == (422, "same_account")

    def test_bad_wishes_are_refused_with_a_pointer(self, world: World) -> None:
        made = world.deal()
        good: View = {"wallet_id": made.till["id"], "asset": "USD", "amount": "1.00"}
        bad: list[tuple[str, Any]] = [("success_url", url) for url in ("javascript:alert(1)", "//x", "https://", "http://a@b/")]
        bad += [("metadata", {str(n): "" for n in range(21)}), ("expires_in", 0), ("capture_method", "maybe"), ("amount", 1)]
        for name, value in bad:
            answer = made.bob.post("/v1/payment-intents", good | {name: value})
            assert (problem(answer), answer.json()["errors"][0]["pointer"]) == ((422, "invalid_request"), f"/body/{name}"), value
        assert problem(made.bob.post("/v1/payment-intents", good | {"amount": "0"})) == (422, "invalid_amount")
        assert problem(made.bob.post("/v1/payment-intents", good | {"wallet_id": made.purse["id"]})) == (404, "wallet_not_found")

    def test_the_qr_code_is_that_of_the_link_and_needs_no_login(self, world: World) -> None:
        intent = ask(world.deal())
        assert intent["checkout_url"] == f"{world.gateway.url}/#/pay/{intent['id']}"
        answer = world.gateway.http.get(f"/v1/payment-intents/{intent['id']}/qr.svg")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        (_, drawn), wanted = answer.text.split('stroke="#000" d="'), segno.make(intent["checkout_url"], error="m", micro=False)
        assert drawn.split('"')[0] == wanted.svg_inline(scale=6).split(' d="')[1].split('"')[0]

    def test_an_account_closes_when_nobody_waits_for_it_and_its_wishes_end_with_it(self, world: World) -> None:
        made = world.deal()
        authorized, unpaid = ask(made, capture_method="manual"), ask(made, reference="order 9")
        confirm(made.ann, authorized, made.purse)

        def close() -> httpx.Response:
            return made.bob.http.request("DELETE", "/v1/me", json={"password": PASSWORD})

        assert problem(close()) == (409, "under_way")
        cancel(made.bob, authorized)
        assert close().status_code == 204
        assert problem(confirm(made.ann, unpaid, made.purse)) == (409, "intent_not_payable")
        with sqlite3.connect(world.folder / "gateway.db") as connection:
            ((left,),) = connection.execute("SELECT count(*) FROM payment_intents WHERE reference = 'order 9'").fetchall()
        assert left == 0

    def test_a_shops_key_asks_for_money_and_cannot_spend_any(self, world: World) -> None:
        made = world.deal()
        made.bob.verify()
        key = made.bob.post("/v1/api-keys", {"name": "till", "scopes": ["checkout"]}).json()["key"]
        shop, other = httpx.Client(base_url=world.gateway.url, headers={"Authorization": f"Bearer {key}"}), ask(made)
        body = {"wallet_id": made.till["id"], "asset": "USD", "amount": "1.00"}
        asked = shop.post("/v1/payment-intents", json=body)
        assert asked.status_code == 201, asked.text
        assert shop.get(f"/v1/payment-intents/{asked.json()['id']}").json() == asked.json()
        refused = shop.post(f"/v1/payment-intents/{other['id']}/confirm", json={"from_wallet": made.till["id"]})
        assert problem(refused)[0] == 403
        assert shop.post(f"/v1/payment-intents/{asked.json()['id']}/cancel").json()["status"] == "canceled"

    def test_what_does_not_show_is_refused(self, world: World) -> None:
        made = world.deal()
        for text in ("a\x00b", "a\nb", "a\u202eb"):
            for name in ("description", "reference"):
                body = {"wallet_id": made.till["id"], "asset": "USD", "amount": "1.00", name: text}
                assert problem(made.bob.post("/v1/payment-intents", body)) == (422, "invalid_request")
            assert problem(made.bob.get("/v1/payment-intents", reference=text)) == (422, "invalid_request")


class TestRefunds:
    def refund(self, person: Person, intent: View, once: str | None = None, **body: str) -> httpx.Response:
        return person.post("/v1/refunds", {"payment_intent_id": intent["id"]} | body, once, wait=15)

    def test_a_shop_pays_back_in_parts_at_most_what_it_captured(self, world: World) -> None:
        made = world.deal(0, 1)
        intent = ask(made, "6.00")
        assert problem(self.refund(made.bob, intent)) == (409, "not_refundable"), "nothing is paid yet"
        paid(made, intent)
        part = self.refund(made.bob, intent, "sorry", amount="2.50")
        assert (part.status_code, part.json()["status"], part.json()["amount"]) == (200, "succeeded", "2.50")
        assert self.refund(made.bob, intent, "sorry", amount="2.50").json() == part.json()
        assert (made.available(), now(made.bob, intent)["amount_refunded"]) == (("6.50", "3.50"), "2.50")
        assert problem(self.refund(made.bob, intent, amount="3.51")) == (409, "not_refundable")
        assert self.refund(made.bob, intent).json()["amount"] == "3.50"
        assert (made.available(), now(made.bob, intent)["amount_refunded"]) == (("10.00", "0.00"), "6.00")
        assert problem(self.refund(made.bob, intent)) == (409, "not_refundable")
        assert told(world, made.bob, intent)[-2:] == ["payment_intent.refunded"] * 2
        assert told(world, made.bob, part.json()) == ["refund.succeeded"]
        assert problem(self.refund(made.ann, intent)) == (404, "payment_intent_not_found"), "not the buyer"

    def test_refunds_at_once_are_together_at_most_what_was_captured(self, world: World) -> None:
        made = world.deal()
        intent = ask(made, "6.00")
        paid(made, intent)
        made.bob.faucet(made.till, "20.00", wait=15)
        with ThreadPoolExecutor(6) as pool:
            answers = [*pool.map(lambda _: self.refund(made.bob, intent, amount="2.00").status_code, range(6))]
        assert Counter(answers) == {200: 3, 409: 3}
        assert made.available() == ("10.00", "20.00")

    def test_a_refund_that_the_shop_cannot_pay_or_the_chain_rejects_refunds_nothing(self, world: World) -> None:
        made = world.deal(0, 1)
        intent = ask(made, "6.00")
        paid(made, intent)
        freeze(world, made.till)
        failed = self.refund(made.bob, intent).json()
        freeze(world, made.till, Action.UNFREEZE)
        assert (failed["status"], failed["code"], now(made.bob, intent)["amount_refunded"]) == (
            "failed",
            "account_frozen",
            "0.00",
        )
        assert made.bob.pay(made.till, made.purse["address"], "1.00", wait=15).json()["status"] == "committed"
        assert problem(self.refund(made.bob, intent)) == (409, "insufficient_funds")
        assert self.refund(made.bob, intent, amount="5.00").json()["status"] == "succeeded"
        assert made.available() == ("10.00", "0.00")


class TestAuthorization:
    def test_what_is_authorized_cannot_be_spent_until_it_is_captured_in_part(self, world: World) -> None:
        made = world.deal(0, 1)
        intent = ask(made, "6.00", capture_method="manual")
        authorized = confirm(made.ann, intent, made.purse)
        assert (authorized.status_code, authorized.json()["status"]) == (200, "requires_capture")
        assert made.available() == ("10.00", "0.00"), "nothing is on the chain yet"
        assert made.pay("4.01")["code"] == "insufficient_funds"
        other = ask(made, "4.01", capture_method="manual")
        assert problem(confirm(made.ann, other, made.purse)) == (409, "insufficient_funds")
        assert made.pay("1.00", wait=15)["status"] == "committed"
        assert problem(capture(made, intent, amount="6.01")) == (422, "amount_too_large")
        captured = capture(made, intent, "take", amount="5.00")
        assert (captured.status_code, captured.json()["status"], captured.json()["amount_captured"]) == (200, "succeeded", "5.00")
        assert capture(made, intent, "take", amount="5.00").json() == captured.json()
        assert problem(capture(made, intent, amount="1.00")) == (409, "intent_not_capturable")
        assert made.pay("4.00", wait=15)["status"] == "committed", "the rest is free"
        assert made.available() == ("0.00", "10.00")
        states = ["requires_capture", "processing", "succeeded"]
        assert told(world, made.bob, intent) == [f"payment_intent.{state}" for state in states]

    def test_what_is_voided_or_not_captured_in_time_is_free_again(self, world: World) -> None:
        made = world.deal()
        voided, forgotten = (ask(made, "5.00", capture_method="manual") for _ in range(2))
        for intent in (voided, forgotten):
            assert confirm(made.ann, intent, made.purse).json()["status"] == "requires_capture"
        assert made.pay("0.01")["code"] == "insufficient_funds"
        assert cancel(made.bob, voided).json()["status"] == "canceled"
        assert made.pay("5.00", wait=15)["status"] == "committed"
        with sqlite3.connect(world.folder / "gateway.db") as connection:  # a week passes
            connection.execute("UPDATE payment_intents SET capture_before = 1 WHERE id = ?", (forgotten["id"],))
            connection.execute("UPDATE jobs SET due_at = 1 WHERE subject = ?", (forgotten["id"],))
        until(lambda: now(made.bob, forgotten)["status"] == "canceled", "the authorization expires")
        assert now(made.bob, forgotten)["code"] == "authorization_expired"
        assert made.pay("5.00", wait=15)["status"] == "committed"

    def test_of_buyers_who_authorize_at_once_one_has_it_reserved(self, world: World) -> None:
        made = world.deal()
        intent, buyers = ask(made, "10.00", capture_method="manual"), [(made.ann, made.purse)]
        other = world.person()
        buyers.append((other, other.wallet(1, USD="10.00")))
        with ThreadPoolExecutor(8) as pool:
            answers = [*pool.map(lambda n: confirm(*pair(buyers[n % 2], intent)), range(8))]
        assert Counter(answer.status_code for answer in answers) == {200: 4, 409: 4}
        payers = [buyer.pay(wallet, made.till["address"], "10.00", wait=15).json()["status"] for buyer, wallet in buyers]
        assert sorted(payers) == ["committed", "rejected"], "the other's money is free"
        assert capture(made, intent).json()["status"] == "succeeded"
        assert made.bob.balance(made.till) == ("20.00", "0.00")

    def test_capture_and_cancel_at_once_are_one_of_the_two(self, world: World) -> None:
        for _ in range(3):
            made = world.deal()
            intent = ask(made, "10.00", capture_method="manual")
            confirm(made.ann, intent, made.purse)
            with ThreadPoolExecutor(2) as pool:
                taking, leaving = pool.submit(capture, made, intent), pool.submit(cancel, made.bob, intent)
            outcome = (taking.result().status_code, leaving.result().status_code)
            assert outcome in ((200, 409), (409, 200))
            assert made.pay("10.00", wait=15)["status"] == ("committed" if outcome == (409, 200) else "rejected")
            assert made.available() == ("0.00", "10.00")

    def test_a_capture_that_the_chain_rejects_leaves_it_authorized(self, world: World) -> None:
        made = world.deal(0, 1)
        intent = ask(made, "6.00", capture_method="manual")
        confirm(made.ann, intent, made.purse)
        freeze(world, made.purse)
        failed = capture(made, intent).json()
        assert (failed["status"], failed["code"], failed["amount_captured"]) == ("requires_capture", "account_frozen", "0.00")
        freeze(world, made.purse, Action.UNFREEZE)
        assert made.pay("4.01")["code"] == "insufficient_funds"
        assert capture(made, intent).json()["status"] == "succeeded"
        assert made.available() == ("4.00", "6.00")

    def test_what_came_to_several_addresses_is_authorized_and_captured_together(self, world: World) -> None:
        made = world.deal(0, 1)
        carl = world.person()
        purse = carl.wallet(0, USD="1.00")
        for amount in ("2.00", "3.00"):
            assert made.ann.pay(made.purse, carl.email, amount, wait=15).json()["status"] == "committed"
        own = carl.get("/v1/wallets").json()["items"][0]
        if own["id"] != purse["id"]:  # received in the first one, which is not in that shard
            purse = own
            carl.faucet(purse, "1.00", wait=15)
        intent = ask(made, "5.50", capture_method="manual")
        assert confirm(carl, intent, purse).json()["status"] == "requires_capture"
        assert carl.pay(purse, made.till["address"], "0.51").json()["code"] == "insufficient_funds"
        assert capture(made, intent, amount="5.25").json()["amount_captured"] == "5.25"
        assert carl.pay(purse, made.till["address"], "0.75", wait=15).json()["status"] == "committed"
        assert made.bob.balance(made.till) == ("6.00", "0.00")

    def test_what_is_captured_in_several_shards_can_be_spent_in_none_meanwhile(self, world: World) -> None:
        made = world.deal()
        carl, friend = world.person(), world.person().wallet(1)
        purse = carl.wallet(1, USD="3.00")
        carl.http.patch("/v1/me", json={"default_wallet": purse["id"]})
        assert made.ann.pay(made.purse, carl.email, "4.00", wait=15).json()["status"] == "committed"
        intent = ask(made, "7.00", capture_method="manual")
        assert confirm(carl, intent, purse).json()["status"] == "requires_capture"
        with world.network.switched(slow_commit=True):
            captured = capture(made, intent).json()
            assert captured["status"] == "processing"
            transfer = f"/v1/transactions/{captured['transfer_id']}"
            until(lambda: made.bob.get(transfer).json()["status"] == "prepared")
            assert carl.pay(purse, friend["address"], "0.01").json()["code"] == "insufficient_funds"
        until(lambda: made.bob.get(f"/v1/payment-intents/{intent['id']}").json()["status"] == "succeeded")
        assert carl.balance(purse) == ("0.00", "0.00")

    def test_a_wallet_whose_key_is_elsewhere_can_authorize_nothing(self, world: World) -> None:
        made = world.deal()
        own = made.ann.wallet(key=key("own key of checkout"))
        for method in ("manual", "automatic"):
            assert problem(confirm(made.ann, ask(made, capture_method=method), own)) == (409, "key_not_held")

    def test_reservations_and_payments_under_way_survive_a_crash(self, new_world: Callable[..., World]) -> None:
        world = new_world()
        world.start_gateway()
        made = world.deal(0, 1)
        reserved, paying = ask(made, "6.00", capture_method="manual"), ask(made, "1.50")
        confirm(made.ann, reserved, made.purse)
        with world.network.switched(hold=True):
            assert confirm(made.ann, paying, made.purse, wait=0).json()["status"] == "processing"
            world.gateway.kill()
            world.start_gateway("/healthz")
            assert now(made.bob, paying)["status"] == "processing"
            assert made.pay("2.51")["code"] == "insufficient_funds"
        until(lambda: now(made.bob, paying)["status"] == "succeeded", "the payment goes on")
        assert made.pay("2.51")["code"] == "insufficient_funds"
        assert capture(made, reserved).json()["status"] == "succeeded"
        assert made.available() == ("2.50", "7.50")


def pair(buyer: tuple[Person, Wallet], intent: View) -> tuple[Person, View, Wallet]:
    return buyer[0], intent, buyer[1]


class Trade:
    """Ann has 10.00 USD in shard 0, Bob 100000 VND in shard 1; each has one wallet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ann, (self.bob, self.dong) = world.person(), owner_of_dong(world, 1)
        self.dollars = self.ann.wallet(0, USD="10.00")

    def offer(self, usd: str = "4.00", vnd: str = "90000", **more: Any) -> View:
        """Ann's."""
        coins = {"give": {"asset": "USD", "amount": usd}, "want": {"asset": "VND", "amount": vnd}}
        answer = self.ann.post("/v1/exchanges", {"wallet_id": self.dollars["id"]} | coins | more)
        assert answer.status_code == 201, answer.text
        view: View = answer.json()
        return view

    def accept(self, offer: View, person: Person | None = None, wallet: Wallet | None = None) -> httpx.Response:
        """By Bob, if nobody else is named."""
        taker, taken = person or self.bob, wallet or self.dong
        return taker.post(f"/v1/exchanges/{offer['id']}/accept", {"wallet_id": taken["id"]}, wait=15)

    def balances(self) -> list[float]:
        """USD and VND of Ann, then of Bob; nothing is held."""
        pairs = (self.ann, self.dollars), (self.bob, self.dong)
        found = [person.balance(wallet, asset) for person, wallet in pairs for asset in ("USD", "VND")]
        assert {float(held) for _, held in found} == {0.0}
        return [float(available) for available, _ in found]


class TestExchanges:
    def test_two_users_exchange_two_assets_across_shards_in_one_transaction(self, world: World) -> None:
        trade = Trade(world)
        offer = trade.offer()
        assert (offer["status"], offer["mine"]) == ("offered", True)
        assert trade.bob.get(f"/v1/exchanges/{offer['id']}").json()["mine"] is False
        settled = trade.accept(offer)
        assert (settled.status_code, settled.json()["status"]) == (200, "settled"), settled.text
        assert trade.balances() == [6.0, 90_000, 4.0, 10_000]
        transfer = trade.ann.transfer(settled.json()["transfer_id"])
        assert (transfer["status"], transfer["shards"], len(transfer["legs"])) == ("committed", [0, 1], 2)
        for person in (trade.ann, trade.bob):
            assert told(world, person, offer) == ["exchange.settled"]
            assert [item["id"] for item in person.get("/v1/exchanges").json()["items"]] == [offer["id"]]
        assert trade.accept(offer).json() == settled.json(), "by the same wallet it is accepted already"
        assert world.person().get(f"/v1/exchanges/{offer['id']}").json()["transfer_id"] is None

    def test_when_one_is_short_of_funds_nothing_moves_and_the_offer_stays(self, world: World) -> None:
        trade = Trade(world)
        greedy, empty = trade.offer(vnd="100001"), trade.offer(usd="10.01")
        assert problem(trade.accept(greedy)) == (409, "insufficient_funds")
        assert problem(trade.accept(empty)) == (409, "offer_not_covered")
        assert trade.balances() == [10.0, 0, 0, 100_000]
        assert {trade.ann.get(f"/v1/exchanges/{one['id']}").json()["status"] for one in (greedy, empty)} == {"offered"}
        trade.ann.faucet(trade.dollars, "0.01", wait=15)
        assert trade.accept(empty).json()["status"] == "settled"

    def test_what_the_chain_rejects_has_failed_and_moved_nothing_on_either_side(self, world: World) -> None:
        trade = Trade(world)
        offer = trade.offer()
        freeze(world, trade.dollars)
        failed = trade.accept(offer).json()
        freeze(world, trade.dollars, Action.UNFREEZE)
        assert (failed["status"], failed["code"]) == ("failed", "account_frozen")
        assert trade.balances() == [10.0, 0, 0, 100_000]
        assert [told(world, person, offer) for person in (trade.ann, trade.bob)] == [["exchange.failed"]] * 2
        assert problem(trade.accept(offer, trade.ann, trade.ann.wallet(0))) == (409, "offer_not_open")

    def test_an_offer_that_many_accept_at_once_settles_once(self, world: World) -> None:
        trade = Trade(world)
        offer, takers = trade.offer(), [(trade.bob, trade.dong), *(owner_of_dong(world, shard) for shard in (0, 1))]
        with ThreadPoolExecutor(9) as pool:
            answers = [*pool.map(lambda n: trade.accept(offer, *takers[n % 3]), range(9))]
        assert Counter(answer.status_code for answer in answers) == {200: 3, 409: 6}
        assert {problem(answer) for answer in answers if answer.status_code == 409} == {(409, "offer_not_open")}
        assert trade.ann.balance(trade.dollars) == ("6.00", "0.00")
        assert sorted(taker.balance(wallet, "VND")[0] for taker, wallet in takers) == ["10000", "100000", "100000"]

    def test_an_offer_ends_by_its_maker_or_by_time_and_only_then(self, world: World) -> None:
        trade = Trade(world)
        canceled, late = trade.offer(), trade.offer(expires_in=1)
        path = f"/v1/exchanges/{canceled['id']}/cancel"
        assert problem(trade.bob.post(path, None)) == (404, "exchange_not_found")
        assert trade.ann.post(path, None).json()["status"] == "canceled"
        until(lambda: trade.ann.get(f"/v1/exchanges/{late['id']}").json()["status"] == "expired", "the other expires")
        for offer in (canceled, late):
            assert problem(trade.accept(offer)) == (409, "offer_not_open")
        body = {
            "wallet_id": trade.dollars["id"],
            "give": {"asset": "USD", "amount": "1"},
            "want": {"asset": "USD", "amount": "1"},
        }
        assert problem(trade.ann.post("/v1/exchanges", body)) == (422, "same_asset")
        assert problem(trade.bob.post("/v1/exchanges", body | {"want": {"asset": "VND", "amount": "1"}})) == (
            404,
            "wallet_not_found",
        )
        assert problem(trade.ann.get("/v1/exchanges", status="offered")) == (422, "unknown_parameter")


class TestLegs:
    def test_a_batch_pays_everybody_named_in_any_way_or_nobody(self, world: World) -> None:
        made = world.deal(0, 1)
        carl = world.person()
        his = carl.wallet()
        others = [made.till["address"], carl.email, made.till["id"]]
        legs = [{"to": to, "asset": "USD", "amount": amount} for to, amount in zip(others, ("1.10", "2.20", "3.30"), strict=True)]

        def pay(*legs: View, once: str | None = None) -> httpx.Response:
            body = {"from_wallet": made.purse["id"], "legs": [*legs], "memo": "June"}
            return made.ann.post("/v1/transfers", body, once, wait=15)

        done = pay(*legs, once="June")
        assert (done.status_code, done.json()["status"], len(done.json()["legs"])) == (200, "committed", 3)
        assert pay(*legs, once="June").json() == done.json()
        assert (made.available(), carl.balance(his)) == (("3.40", "4.40"), ("2.20", "0.00"))
        assert [line["amount"] for line in made.ann.history(made.purse)[:3]] == ["3.30", "2.20", "1.10"]
        assert [line["memo"] for line in made.bob.history(made.till)] == ["June"] * 2
        short = pay(*(leg | {"amount": "1.14"} for leg in legs)).json()
        assert (short["status"], short["code"], made.available()) == ("rejected", "insufficient_funds", ("3.40", "4.40"))
        assert pay(*[legs[0] | {"amount": "0.01"}] * 16).json()["status"] == "committed"

    def test_a_bad_leg_is_named_and_nothing_is_paid(self, world: World) -> None:
        made = world.deal()
        good: View = {"to": made.till["address"], "asset": "USD", "amount": "1.00"}
        cases: list[tuple[str, str, Any]] = [
            ("invalid_recipient", "to", "nobody@example"),
            ("unknown_recipient", "to", "0" * 32),
            ("invalid_address", "to", "spay1qqqq"),
            ("same_account", "to", made.purse["id"]),
            ("invalid_amount", "amount", "1.001"),
            ("unknown_asset", "asset", "XYZ"),
            ("invalid_request", "amount", 1),
            ("invalid_request", "colour", "red"),
        ]
        for code, name, value in cases:
            answer = made.ann.post(
                "/v1/transfers", {"from_wallet": made.purse["id"], "legs": [good] * 3 + [good | {name: value}]}
            )
            assert (problem(answer), answer.json()["errors"][0]["pointer"]) == ((422, code), f"/body/legs/3/{name}")
        assert made.available() == ("10.00", "0.00")

    def test_there_are_1_to_16_legs_and_no_other_payee(self, world: World) -> None:
        made = world.deal()
        leg = {"to": made.till["address"], "asset": "USD", "amount": "0.10"}
        for legs, pointer in (([], "/body/legs"), ([leg] * 17, "/body/legs")):
            answer = made.ann.post("/v1/transfers", {"from_wallet": made.purse["id"], "legs": legs})
            assert (problem(answer), answer.json()["errors"][0]["pointer"]) == ((422, "invalid_request"), pointer)
        mixed = {"from_wallet": made.purse["id"], "legs": [leg], "to": made.till["address"]}
        assert made.ann.post("/v1/transfers", mixed).json()["errors"][0]["pointer"] == "/body/to"
