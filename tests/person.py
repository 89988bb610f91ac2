"""Somebody with an account at a gateway, whichever network is behind it. Amounts are decimal strings."""

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from gateway.keystore import ownership
from node.protocol.crypto import KeyPair
from tests.waiting import until

PASSWORD = "correct horse battery staple"
FINAL = ("committed", "rejected", "expired")
Wallet = dict[str, Any]


def mailed_token(http: httpx.Client, email: str, page: str) -> str:
    """The token in the latest mail to somebody that links to this page: "verify" or "reset"."""

    def find() -> str:
        mails = http.get("/v1/devnet/mails", params={"to": email}).json()["items"]
        found = [re.search(rf"/#/{page}\?token=(\S+)", mail["text"]) for mail in mails]
        return next((match[1] for match in found if match), "")

    return until(find, f"a mail to {email}")


class Person:
    """Signed up and logged in."""

    def __init__(self, url: str, email: str = "") -> None:
        self.email = email or f"person-{random.randbytes(4).hex()}@example.org"
        # Many threads share it: a pool that closes what it takes for idle may close what another thread is about to use.
        kept = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)
        self.http = httpx.Client(base_url=url, timeout=40, limits=kept)
        self._made("/v1/auth/register", {"email": self.email, "password": PASSWORD, "name": self.email})
        session = self.http.post("/v1/auth/login", json={"email": self.email, "password": PASSWORD}).json()
        assert session["token_type"] == "Bearer"
        self.refresh_token = session["refresh_token"]
        self.http.headers["Authorization"] = f"Bearer {session['access_token']}"

    def verify(self) -> "Person":
        """Proves the e-mail address with the mail of a development network."""
        answer = self.http.post("/v1/auth/verify", json={"token": mailed_token(self.http, self.email, "verify")})
        assert answer.status_code == 204, answer.text
        return self

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.http.get(path, params=parameters)

    def post(self, path: str, body: Any, key: str | None = None, **parameters: Any) -> httpx.Response:
        return self.http.post(path, json=body, params=parameters, headers={"Idempotency-Key": key} if key else {})

    def _made(self, path: str, body: Any) -> dict[str, Any]:
        made = self.post(path, body)
        assert made.status_code == 201, made.text
        view: dict[str, Any] = made.json()
        return view

    def wallet(self, shard: int | None = None, key: KeyPair | None = None, **amounts: str) -> Wallet:
        """A new wallet with money by asset: in a given shard (keys fall where they fall, so it may take a few), or one that
        shows what a key of the test's own holds."""
        body = {"label": "main"} | ({} if key is None else self.proof_of(key))
        wallet = next(made for _ in range(60) if (made := self._made("/v1/wallets", body))["shard"] == shard or shard is None)
        for asset, amount in amounts.items():
            done = self.faucet(wallet, amount, asset, wait=30)
            assert (done.status_code, done.json()["status"]) == (200, "committed"), done.text
        return wallet

    def proof_of(self, key: KeyPair) -> dict[str, str]:
        """What registers a key: it signs for this user of this network."""
        network = bytes.fromhex(self.get("/v1/network").json()["network"])
        signed = ownership(network, self.get("/v1/me").json()["id"])
        return {"public_key": key.public.hex(), "signature": key.sign(signed).hex()}

    def faucet(self, wallet: Wallet, amount: str, asset: str = "USD", key: str | None = None, wait: float = 0) -> httpx.Response:
        return self.post("/v1/faucet", {"wallet_id": wallet["id"], "asset": asset, "amount": amount}, key, wait=wait)

    def pay(
        self, wallet: Wallet, to: str, amount: str, memo: str = "", wait: float = 0, key: str | None = None
    ) -> httpx.Response:
        """A transfer of USD."""
        body = {"from_wallet": wallet["id"], "to": to, "asset": "USD", "amount": amount, "memo": memo}
        return self.post("/v1/transfers", body, key, wait=wait)

    def transfer(self, transfer_id: str, wait: float = 0) -> dict[str, Any]:
        answer = self.get(f"/v1/transfers/{transfer_id}", wait=wait)
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    def balance(self, wallet: Wallet, asset: str = "USD") -> tuple[str, str]:
        """(available, held)."""
        found = self.get(f"/v1/wallets/{wallet['id']}").json()["balances"].get(asset, {"available": "0.00", "held": "0.00"})
        return found["available"], found["held"]

    def history(self, wallet: Wallet, limit: int = 100) -> list[dict[str, Any]]:
        """All of it, page by page, latest first."""
        items, cursor = list[dict[str, Any]](), dict[str, str]()
        while True:
            page = self.get(f"/v1/wallets/{wallet['id']}/transfers", limit=limit, **cursor).json()
            assert len(page["items"]) <= limit
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}


class Deal(NamedTuple):
    """Ann, who has a purse with money, and Bob, who has a till."""

    ann: Person
    purse: Wallet
    bob: Person
    till: Wallet

    def pay(self, amount: str, **options: Any) -> dict[str, Any]:
        """What the gateway says of the transfer it took in."""
        answer = self.ann.pay(self.purse, self.till["address"], amount, **options)
        assert answer.status_code in (200, 202), answer.text
        view: dict[str, Any] = answer.json()
        return view

    def available(self) -> tuple[str, str]:
        """In purse and till; nothing is held in either."""
        found = self.ann.balance(self.purse), self.bob.balance(self.till)
        assert (found[0][1], found[1][1]) == ("0.00", "0.00")
        return found[0][0], found[1][0]


def deal(person: Callable[[], Person], home: int = 0, other: int | None = 0, amount: str = "10.00") -> Deal:
    """The purse is in shard ``home``, with ``amount``, the till in ``other``, or it is Bob's first wallet, wherever that is."""
    ann, bob = person(), person()
    return Deal(ann, ann.wallet(home, USD=amount), bob, bob.wallet(other))
