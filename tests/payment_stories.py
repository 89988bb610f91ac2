"""What paying is for the people who do it: the same over HTTP whether nodes or a small stand-in are behind the gateway."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.person import FINAL, Person, deal

INTRA, CROSS = pytest.param(0, id="inside a shard"), pytest.param(1, id="across shards")


class PaymentStories:
    """A module that inherits them provides the fixture ``person``, which makes one."""

    @pytest.mark.parametrize(("home", "other"), [(0, 0), (0, 1), (1, 0)])
    def test_a_payment_arrives_to_the_cent_with_its_memo_in_both_histories(
        self, person: Callable[[], Person], home: int, other: int
    ) -> None:
        ann, purse, bob, till = made = deal(person, home, other)
        paid = made.pay("3.25", memo="for the räksmörgås", wait=30)
        assert (paid["status"], paid["code"]) == ("committed", None)
        assert (paid["home_shard"], paid["shards"]) == (home, sorted({home, other}))
        assert paid["height"] > 0
        assert made.available() == ("6.75", "3.25")
        sent, funded = ann.history(purse)
        (received,) = bob.history(till)
        assert (sent["direction"], sent["counterparty"], funded["kind"]) == ("sent", till["address"], "faucet")
        assert (received["direction"], received["counterparty"]) == ("received", purse["address"])
        expected = {"id": paid["id"], "memo": "for the räksmörgås", "amount": "3.25", "asset": "USD", "status": "committed"}
        assert [expected.items() <= line.items() for line in (sent, received)] == [True, True]
        assert bob.transfer(paid["id"])["status"] == "committed"

    def test_a_payee_is_found_by_mail_address_and_by_wallet(self, person: Callable[[], Person]) -> None:
        ann, purse, bob, first = deal(person, 1, None)
        second = bob.wallet(0)
        paid = ann.pay(purse, bob.email.upper(), "1", wait=30).json()
        assert (paid["status"], paid["shards"]) == ("committed", [1])
        assert ann.pay(purse, second["id"], "1.5", wait=30).json()["legs"][0]["to"] == second["address"]
        assert (bob.balance(first), bob.balance(second)) == (("1.00", "0.00"), ("1.50", "0.00"))
        unknown = ann.pay(purse, "0" * 32, "1")
        assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_recipient")

    @pytest.mark.parametrize("other", [INTRA, CROSS])
    def test_an_overdraft_is_rejected_and_holds_nothing(self, person: Callable[[], Person], other: int) -> None:
        made = deal(person, 0, other)
        refused = made.pay("10.01", wait=30)
        assert (refused["status"], refused["code"]) == ("rejected", "insufficient_funds")
        assert (made.available(), made.bob.history(made.till)) == (("10.00", "0.00"), [])
        assert made.pay("10.00", wait=30)["status"] == "committed", "all of it can still be spent"

    def test_one_key_makes_one_transfer_even_at_once(self, person: Callable[[], Person]) -> None:
        ann, purse, bob, till = made = deal(person, 0, 1)
        with ThreadPoolExecutor(20) as pool:
            answers = [*pool.map(lambda _: made.pay("1.00", key="rent-may", wait=30), range(20))]
        answers.append(made.pay("1.00", key="rent-may", wait=30))
        assert len({answer["id"] for answer in answers}) == 1
        assert {answer["status"] for answer in answers} == {"committed"}
        assert made.available() == ("9.00", "1.00")
        for conflict in (ann.pay(purse, till["address"], "2.00", key="rent-may"), ann.faucet(purse, "1.00", key="rent-may")):
            assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
            assert conflict.headers["content-type"] == "application/problem+json"
        other = bob.pay(till, purse["address"], "1.00", key="rent-may", wait=30)
        assert other.json()["status"] == "committed", "keys are each user's own"

    @pytest.mark.parametrize("other", [INTRA, CROSS])
    def test_of_many_at_once_exactly_the_affordable_ones_commit(self, person: Callable[[], Person], other: int) -> None:
        made = deal(person, 0, other, "100.00")

        def pay(_: int) -> tuple[str, Any]:
            view = made.pay("1.00", wait=30)
            while view["status"] not in FINAL:
                view = made.ann.transfer(view["id"], wait=30)
            return view["status"], view["code"]

        with ThreadPoolExecutor(50) as pool:
            outcomes = Counter(pool.map(pay, range(200)))
        assert outcomes == {("committed", None): 100, ("rejected", "insufficient_funds"): 100}
        assert made.available() == ("0.00", "100.00")

    def test_history_pages_join_without_gap_or_repetition(self, person: Callable[[], Person]) -> None:
        _, _, bob, till = made = deal(person)
        paid = [made.pay("0.10", memo=str(i), wait=30)["id"] for i in range(7)]
        assert [item["id"] for item in bob.history(till, limit=3)] == paid[::-1]
        bad = bob.get(f"/v1/wallets/{till['id']}/transfers", cursor="%%%")
        assert (bad.status_code, bad.json()["code"]) == (422, "invalid_cursor")
