"""Somebody with an account at a gateway, whichever network is behind it. Amounts are decimal strings."""

import random
from typing import Any

import httpx

PASSWORD = "correct horse battery staple"
FINAL = ("committed", "rejected", "expired")


class Person:
    """Signed up and logged in."""

    def __init__(self, url: str, email: str = "") -> None:
        self.email = email or f"person-{random.randbytes(4).hex()}@example.org"
        self.http = httpx.Client(base_url=url, timeout=40)
        made = self.http.post("/v1/auth/register", json={"email": self.email, "password": PASSWORD, "name": self.email})
        assert made.status_code == 201, made.text
        session = self.http.post("/v1/auth/login", json={"email": self.email, "password": PASSWORD}).json()
        assert session["token_type"] == "Bearer"
        self.refresh_token = session["refresh_token"]
        self.http.headers["Authorization"] = f"Bearer {session['access_token']}"

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.http.get(path, params=parameters)

    def post(self, path: str, body: Any, key: str | None = None, **parameters: Any) -> httpx.Response:
        return self.http.post(path, json=body, params=parameters, headers={"Idempotency-Key": key} if key else {})

    def wallet(self, shard: int | None = None, **amounts: str) -> dict[str, Any]:
        """A new wallet, in a given shard if asked (keys fall where they fall, so it may take a few), with money by asset."""
        for _ in range(60):
            made = self.post("/v1/wallets", {"label": "main"})
            assert made.status_code == 201, made.text
            wallet: dict[str, Any] = made.json()
            if shard in (None, wallet["shard"]):
                break
        assert shard in (None, wallet["shard"])
        for asset, amount in amounts.items():
            self.fund(wallet, amount, asset)
        return wallet

    def own_wallet(self, public_key: bytes, **amounts: str) -> dict[str, Any]:
        """A wallet that shows what a key of the test's own holds."""
        made = self.post("/v1/wallets", {"label": "mine alone", "public_key": public_key.hex()})
        assert made.status_code == 201, made.text
        wallet: dict[str, Any] = made.json()
        for asset, amount in amounts.items():
            self.fund(wallet, amount, asset)
        return wallet

    def fund(self, wallet: dict[str, Any], amount: str, asset: str = "USD") -> None:
        done = self.post("/v1/faucet", {"wallet_id": wallet["id"], "asset": asset, "amount": amount}, wait=30)
        assert (done.status_code, done.json()["status"]) == (200, "committed"), done.text

    def pay(
        self, wallet: dict[str, Any], to: str, amount: str, memo: str = "", wait: float = 0, key: str | None = None
    ) -> httpx.Response:
        """A transfer of USD."""
        body = {"from_wallet": wallet["id"], "to": to, "asset": "USD", "amount": amount, "memo": memo}
        return self.post("/v1/transfers", body, key, wait=wait)

    def transfer(self, transfer_id: str, wait: float = 0) -> dict[str, Any]:
        answer = self.get(f"/v1/transfers/{transfer_id}", wait=wait)
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    def balance(self, wallet: dict[str, Any], asset: str = "USD") -> tuple[str, str]:
        """(available, held)."""
        found = self.get(f"/v1/wallets/{wallet['id']}").json()["balances"].get(asset, {"available": "0.00", "held": "0.00"})
        return found["available"], found["held"]

    def history(self, wallet: dict[str, Any], limit: int = 100) -> list[dict[str, Any]]:
        """All of it, page by page, latest first."""
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(f"/v1/wallets/{wallet['id']}/transfers", limit=limit, **cursor).json()
            assert len(page["items"]) <= limit
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}
