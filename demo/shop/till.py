"""Being paid: a payment intent for each order, the webhook that says it is paid, and the proof that it really is."""

import hmac
import secrets
import time
from decimal import Decimal
from hashlib import sha256
from typing import Any

import httpx
import msgspec

from demo.shop.account import Account
from demo.shop.orders import PAID, REFUNDED, REFUNDING, WAITING, Order, Orders
from gateway.proofs.checking import Refused, check
from gateway.proofs.form import TransactionProof
from node.protocol.genesis import Genesis

ASSET = "USD"
TOLERANCE = 300
"""Seconds that a webhook may be old."""


class Untrue(Exception):
    """A webhook that is not believed; the text says why."""


class Till:
    def __init__(self, gateway: httpx.Client, account: Account, orders: Orders, genesis: Genesis, url: str) -> None:
        self._gateway, self._account, self._genesis, self._url = gateway, account, genesis, url
        self._headers = {"Authorization": f"Bearer {account.api_key}"}
        self.orders = orders

    def order(self, goods: str, amount: str) -> str:
        """Take an order; returns where the buyer pays it. Raises httpx.HTTPError."""
        order_id = secrets.token_urlsafe(12)
        intent = self._post(
            "/v1/payment-intents",
            {
                "wallet_id": self._account.wallet_id,
                "asset": ASSET,
                "amount": amount,
                "description": goods,
                "reference": order_id,
                "success_url": f"{self._url}/orders/{order_id}",
                "cancel_url": f"{self._url}/",
            },
            order_id,
        )
        self.orders.add(Order(order_id, goods, amount, WAITING, intent["id"], ""))
        return str(intent["checkout_url"])

    def refund(self, order: Order) -> None:
        """Pay all of it back. Raises httpx.HTTPError."""
        self._post("/v1/refunds", {"payment_intent_id": order.intent_id}, f"refund-{order.id}")
        self.orders.move(order.id, (PAID,), REFUNDING)

    def hear(self, body: bytes, signature: str) -> None:
        """Take in a webhook. Raises Untrue; httpx.HTTPError when the proof cannot be had now, then it comes again."""
        check_signature(body, signature, self._account.webhook_secret, time.time())
        event = msgspec.json.decode(body)
        intent = event["data"]
        order = self.orders.get(intent["reference"] or "")
        if order is None or order.intent_id != intent["id"]:
            raise Untrue("no order of ours")
        if event["type"] == "payment_intent.refunded":
            self.orders.move(order.id, (PAID, REFUNDING), REFUNDED)
        elif event["type"] == "payment_intent.succeeded" and order.status == WAITING:
            self.orders.move(order.id, (WAITING,), PAID, self._proven(order, intent["transfer_id"]))

    def _proven(self, order: Order, transfer_id: str) -> str:
        """In which block the shop was paid, by a proof that needs no trust in the gateway. Raises Untrue."""
        answer = self._gateway.get(f"/v1/transactions/{transfer_id}/proof").raise_for_status()
        try:
            proof = TransactionProof.model_validate_json(answer.content)
            check(proof, self._genesis)
        except (ValueError, Refused) as error:
            raise Untrue(f"the proof: {error}") from None
        claim = proof.claim
        paid = sum(Decimal(leg.amount) for leg in claim.legs if (leg.payee, leg.asset) == (self._account.address, ASSET))
        if claim.status != "committed" or paid != Decimal(order.amount):
            raise Untrue("the proof is of another payment")
        block = claim.receipts[0].block
        return f"block {block.height} of shard {block.shard}"

    def _post(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        headers = self._headers | {"Idempotency-Key": key}
        made: dict[str, Any] = self._gateway.post(path, json=body, headers=headers).raise_for_status().json()
        return made


def check_signature(body: bytes, header: str, secret: str, now: float) -> None:
    """Whether the gateway said this, lately. Raises Untrue."""
    parts = [part.partition("=") for part in header.split(",")]
    at = next((value for name, _, value in parts if name == "t" and value.isascii() and value.isdigit()), "0")
    right = hmac.new(secret.encode(), at.encode() + b"." + body, sha256).hexdigest()
    if not any(hmac.compare_digest(right.encode(), value.encode()) for name, _, value in parts if name == "v1"):
        raise Untrue("the signature does not fit")
    if abs(now - int(at)) > TOLERANCE:
        raise Untrue("the signature is old")
