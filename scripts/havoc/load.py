"""Customers who pay each other over HTTP, keep the receipt of every payment taken in, and ask again when nobody answers."""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from node.protocol.amounts import format_amount, parse_amount

PASSWORD = "correct horse battery staple"
ASSET, DECIMALS = "USD", 2
FUNDS = 10_000
LARGEST_PAYMENT = 1_500
CUSTOMERS = 4
MAX_TRIES = 90
REPEATED_SHARE = 0.05
WATCH_SECONDS = 0.2
FINAL = ("committed", "rejected", "expired")


class LoadError(Exception):
    """The gateway does not do what customers need to begin with; the text says what."""


class Purse(NamedTuple):
    id: str
    address: str
    shard: int


class Payment(NamedTuple):
    """A transfer the gateway took in, under ``key``."""

    payer: Purse
    payee: Purse
    units: int
    key: str
    posted: float


class Customer:
    """Somebody with an account and a wallet in every shard."""

    def __init__(self, url: str, name: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=15)
        self._login = {"email": f"{name}@example.org", "password": PASSWORD}
        self._expect(self._http.post("/v1/auth/register", json=self._login | {"name": name}), 201)
        self._log_in()
        self.wallets: list[Purse] = []

    def open_wallets(self, shards: Iterable[int]) -> None:
        """One in each shard - keys fall where they fall - with FUNDS."""
        missing = set(shards)
        for _ in range(MAX_TRIES):
            if not missing:
                break
            view = self._expect(self._http.post("/v1/wallets", json={"label": "chaos"}), 201)
            if view["shard"] in missing:
                missing.remove(view["shard"])
                self.wallets.append(Purse(view["id"], view["address"], view["shard"]))
        for wallet in self.wallets:
            body = {"wallet_id": wallet.id, "asset": ASSET, "amount": format_amount(FUNDS, DECIMALS)}
            if self._expect(self._http.post("/v1/faucet?wait=15", json=body), 200)["status"] != "committed":
                raise LoadError("a wallet could not be funded")

    def post(self, payer: Purse, payee: Purse, units: int, key: str) -> httpx.Response | None:
        """A transfer; None when there is no answer."""
        body = {"from_wallet": payer.id, "to": payee.address, "asset": ASSET, "amount": format_amount(units, DECIMALS)}
        with suppress(httpx.TransportError, LoadError):
            answer = self._http.post("/v1/transfers", json=body, headers={"Idempotency-Key": key})
            if answer.status_code != 401:
                return answer
            self._log_in()
        return None

    def get(self, path: str) -> dict[str, Any]:
        """Raises httpx.HTTPError."""
        answer = self._http.get(path)
        if answer.status_code == 401:
            self._log_in()
            answer = self._http.get(path)
        body: dict[str, Any] = answer.raise_for_status().json()
        return body

    def history(self, wallet: Purse, limit: int | None = None) -> list[dict[str, Any]]:
        """What the wallet sent to others, latest first; all of it, or what is among the last ``limit`` lines."""
        items, cursor = [], ""
        while True:
            page = self.get(f"/v1/wallets/{wallet.id}/transfers?limit={limit or 100}{cursor}")
            items += [item for item in page["items"] if item["direction"] == "sent" and item["kind"] == "transfer"]
            if limit or page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    def balance(self, wallet: Purse) -> tuple[int, int]:
        """(available, held) in units."""
        amounts = self.get(f"/v1/wallets/{wallet.id}")["balances"].get(ASSET, {"available": "0", "held": "0"})
        return parse_amount(amounts["available"], DECIMALS), parse_amount(amounts["held"], DECIMALS)

    def _log_in(self) -> None:
        session = self._expect(self._http.post("/v1/auth/login", json=self._login), 200)
        self._http.headers["Authorization"] = f"Bearer {session['access_token']}"

    @staticmethod
    def _expect(answer: httpx.Response, code: int) -> dict[str, Any]:
        if answer.status_code != code:
            raise LoadError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:200]}")
        body: dict[str, Any] = answer.json()
        return body


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
            customer.open_wallets(shards)
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

    def flows(self, since: float) -> bool:
        """Whether of the payments posted after ``since`` (monotonic) one has committed from each shard."""
        with self._lock:
            homes = {
                self.taken[transfer_id].payer.shard
                for transfer_id in self.committed
                if transfer_id in self.taken and self.taken[transfer_id].posted > since
            }
        return homes == {wallet.shard for wallet in self._everybody}

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
            with suppress(httpx.HTTPError, LoadError):
                seen = {item["id"] for item in customer.history(wallet, limit=50) if item["status"] == "committed"}
                with self._lock:
                    self.committed |= seen
