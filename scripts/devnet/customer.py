"""Somebody at a gateway, for scripts that need payers: an account, wallets with play money, payments over HTTP."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from node.protocol.amounts import format_amount, parse_amount

PASSWORD = "correct horse battery staple"
ASSET, DECIMALS = "USD", 2
MAX_TRIES = 90


class CustomerError(Exception):
    """The gateway does not do what customers need to begin with; the text says what."""


class Purse(NamedTuple):
    id: str
    address: str
    shard: int


class Customer:
    """Somebody with an account and wallets, who is logged in."""

    def __init__(self, url: str, name: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=15)
        self._login = {"email": f"{name}@example.org", "password": PASSWORD}
        self._expect(self._http.post("/v1/auth/register", json=self._login | {"name": name}), 201)
        self._log_in()
        self.wallets: list[Purse] = []

    def open_wallets(self, shards: Iterable[int], units: int) -> None:
        """One in each of ``shards``, as often as it is named - keys fall where they fall - with ``units`` of play money."""
        missing, tries = Counter(shards), 0
        while missing.total():
            if (tries := tries + 1) > MAX_TRIES:
                raise CustomerError(f"{MAX_TRIES} new wallets, and still none in {dict(+missing)} (wallets by shard)")
            view = self._expect(self._http.post("/v1/wallets", json={"label": "daily"}), 201)
            if missing[view["shard"]]:
                missing[view["shard"]] -= 1
                self.wallets.append(self._funded(Purse(view["id"], view["address"], view["shard"]), units))

    def post(self, payer: Purse, payee: Purse, units: int, key: str) -> httpx.Response | None:
        """A transfer; None when there is no answer."""
        body = {"from_wallet": payer.id, "to": payee.address, "asset": ASSET, "amount": format_amount(units, DECIMALS)}
        with suppress(httpx.TransportError, CustomerError):
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

    def _funded(self, wallet: Purse, units: int) -> Purse:
        body = {"wallet_id": wallet.id, "asset": ASSET, "amount": format_amount(units, DECIMALS)}
        if self._expect(self._http.post("/v1/faucet?wait=15", json=body), 200)["status"] != "committed":
            raise CustomerError("a wallet could not be funded")
        return wallet

    def _log_in(self) -> None:
        session = self._expect(self._http.post("/v1/auth/login", json=self._login), 200)
        self.authorization = f"Bearer {session['access_token']}"
        self._http.headers["Authorization"] = self.authorization

    @staticmethod
    def _expect(answer: httpx.Response, code: int) -> dict[str, Any]:
        if answer.status_code != code:
            raise CustomerError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:200]}")
        body: dict[str, Any] = answer.json()
        return body
