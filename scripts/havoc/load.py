"""Customers who pay each other over HTTP, keep the receipt of every payment taken in, and ask again when nobody answers."""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from node.protocol.address import decode_address
from node.protocol.shards import ShardTable
from scripts.devnet.customer import Customer, CustomerError, Purse

FUNDS = 10_000
LARGEST_PAYMENT = 1_500
CUSTOMERS = 4
REPEATED_SHARE = 0.05
WATCH_SECONDS = 0.2
FINAL = ("committed", "rejected", "expired")


class Payment(NamedTuple):
    """A transfer the gateway took in, under ``key``."""

    payer: Purse
    payee: Purse
    units: int
    key: str
    posted: float


class Load:
    """Posts at a steady rate: every customer from any of its wallets to anybody's, so inside shards and across.

    Attributes:
        taken: by transfer id, whatever the gateway answered 200 or 202 to.
        committed: ids the API has called committed, while watching.
        wrong: answers that must not be.
        unanswered: requests repeated because nobody answered, or the gateway asked to.
    """

    def __init__(self, url: str, shards: Sequence[int], rate: float, seed: int) -> None:
        tag = random.Random(time.time_ns()).randbytes(3).hex()
        self.customers = [Customer(url, f"customer-{tag}-{index}") for index in range(CUSTOMERS)]
        for customer in self.customers:
            customer.open_wallets(shards, FUNDS)
        self._seed, self._pause = seed, CUSTOMERS / rate
        self._everybody = [wallet for customer in self.customers for wallet in customer.wallets]
        self._stop, self._give_up, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._pay, args=(index,), daemon=True) for index in range(CUSTOMERS)]
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.taken: dict[str, Payment] = {}
        self.committed: set[str] = set()
        self.wrong: list[str] = []
        self.unanswered = 0
        self.repeated = 0

    def start(self) -> None:
        for thread in (*self._threads, self._watcher):
            thread.start()

    def stop(self, seconds: float) -> bool:
        """Post nothing new. Whether every request under way was answered within ``seconds``."""
        self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        answered = not any(thread.is_alive() for thread in self._threads)
        self._give_up.set()
        if self._watcher.is_alive():
            self._watcher.join(20)
        return answered

    def flows(self, since: float, shards: ShardTable) -> bool:
        """Whether of the payments posted after ``since`` (monotonic) one has committed from each shard that wallets are in.
        ``shards``: as they are now."""
        with self._lock:
            payers = {
                self.taken[transfer_id].payer
                for transfer_id in self.committed
                if transfer_id in self.taken and self.taken[transfer_id].posted > since
            }
        return _homes(payers, shards) == _homes(self._everybody, shards)

    def outcomes(self, within: float) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Once stopped: what the API says became of each transfer its payer's history shows, by id, when all are final or
        after ``within`` seconds; and what the histories show twice, or show and nobody sent."""
        views: dict[str, dict[str, Any]] = {}
        odd: list[str] = []
        deadline = time.monotonic() + within
        for customer in self.customers:
            for wallet in customer.wallets:
                for item in customer.history(wallet):
                    if item["id"] in views or item["id"] not in self.taken:
                        odd.append(item["id"])
                    views[item["id"]] = item
        by_wallet = {wallet: customer for customer in self.customers for wallet in customer.wallets}
        for transfer_id, view in views.items():
            while view["status"] not in FINAL and transfer_id in self.taken and time.monotonic() < deadline:
                with suppress(httpx.HTTPError):
                    view = by_wallet[self.taken[transfer_id].payer].get(f"/v1/transfers/{transfer_id}?wait=5")
                views[transfer_id] = view
        return views, odd

    def balances(self) -> dict[Purse, tuple[int, int]]:
        """(available, held) of every wallet, as the API says."""
        return {wallet: customer.balance(wallet) for customer in self.customers for wallet in customer.wallets}

    def _pay(self, index: int) -> None:
        customer, chance = self.customers[index], random.Random(f"{self._seed} {index}")
        made: list[tuple[str, Payment]] = []
        number, due = 0, time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            payer = chance.choice(customer.wallets)
            payee = chance.choice([wallet for wallet in self._everybody if wallet != payer])
            payment = Payment(payer, payee, chance.randint(1, LARGEST_PAYMENT), f"chaos-{number}", time.monotonic())
            if transfer_id := self._post(customer, payment):
                with self._lock:
                    self.taken[transfer_id] = payment
                made.append((transfer_id, payment))
            if made and chance.random() < REPEATED_SHARE:
                self._repeat(customer, *chance.choice(made[-500:]))
            number += 1
            due = max(due + self._pause, time.monotonic() - 5 * self._pause)  # an outage is not made up for by a burst

    def _repeat(self, customer: Customer, transfer_id: str, payment: Payment) -> None:
        """As a client does that is not sure: it must get the same transfer."""
        again = self._post(customer, payment)
        self.repeated += 1
        if again is not None and again != transfer_id:
            self.wrong.append(f"key {payment.key} gave transfer {transfer_id}, and when repeated {again}")

    def _post(self, customer: Customer, payment: Payment) -> str | None:
        """The transfer's id; asks until there is an answer."""
        while not self._give_up.is_set():
            answer = customer.post(*payment[:4])
            if answer is not None and answer.status_code in (200, 202):
                return str(answer.json()["id"])
            if answer is not None and answer.status_code not in (429, 503):
                self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
                if answer.status_code < 500:
                    return None
            self.unanswered += 1
            time.sleep(0.1)
        return None

    def _watch(self) -> None:
        own = [(customer, wallet) for customer in self.customers for wallet in customer.wallets]
        turn = 0
        while not self._give_up.wait(WATCH_SECONDS):
            customer, wallet = own[turn % len(own)]
            turn += 1
            with suppress(httpx.HTTPError, CustomerError):
                seen = {item["id"] for item in customer.history(wallet, limit=50) if item["status"] == "committed"}
                with self._lock:
                    self.committed |= seen


def _homes(wallets: Iterable[Purse], shards: ShardTable) -> set[int]:
    return {shards.shard_of(decode_address(wallet.address)) for wallet in wallets}
