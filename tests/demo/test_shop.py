"""The example shop believes only what is signed, recent, about an order of its own, and proven by the ledger."""

import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.shop.account import Account
from demo.shop.orders import PAID, REFUNDED, REFUNDING, WAITING, Order, Orders
from demo.shop.till import Till, Untrue
from node.protocol.address import address_of, encode_address
from tests.chains import Network
from tests.unit.test_proofs import Story, told

SECRET = "whsec_of the shop"
INTENT = {"id": "intent", "reference": "order", "transfer_id": "00" * 32}


@pytest.fixture(scope="module")
def story() -> Story:
    """Bob, the shop, was paid 2.50 USD."""
    return told(Network())


@pytest.fixture
def make_till(story: Story, tmp_path: Path) -> Callable[..., Till]:
    """A shop that waits for the payment of an order, at a gateway that gives the proof of Bob's."""

    def make(amount: str = "2.50", proof: bytes | None = None) -> Till:
        found = story.proof().model_dump_json().encode() if proof is None else proof
        gateway = httpx.Client(
            base_url="http://gateway", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=found))
        )
        address = encode_address(address_of(story.network.person(1).public))
        orders = Orders(tmp_path / f"orders-{amount}-{len(found)}.db")
        orders.add(Order("order", "1 × Mug", amount, WAITING, "intent", ""))
        return Till(gateway, Account("wallet", address, "spk_key", SECRET), orders, story.network.genesis, "http://shop")

    return make


def webhook(kind: str = "payment_intent.succeeded", age: int = 0, secret: str = SECRET, **changes: str) -> tuple[bytes, str]:
    """Body and signature."""
    body = json.dumps({"id": "1", "type": kind, "data": INTENT | changes}).encode()
    at = str(int(time.time()) - age)
    return body, f"t={at},v1={hmac.new(secret.encode(), at.encode() + b'.' + body, sha256).hexdigest()}"


def status(till: Till) -> str:
    order = till.orders.get("order")
    assert order is not None
    return order.status


def test_a_proven_payment_is_believed_once_and_a_refund_after_it(make_till: Callable[..., Till]) -> None:
    till = make_till()
    for _ in range(2):
        till.hear(*webhook())
        order = till.orders.get("order")
        assert order is not None
        assert (order.status, order.paid_in[:6]) == (PAID, "block ")
    till.orders.move("order", (PAID,), REFUNDING)
    till.hear(*webhook("payment_intent.refunded"))
    till.hear(*webhook())
    assert status(till) == REFUNDED


@pytest.mark.parametrize(
    ("heard", "why"),
    [
        (lambda: webhook(secret="whsec_of another"), "signature"),
        (lambda: webhook(age=301), "old"),
        (lambda: webhook(age=-400), "old"),
        (lambda: (webhook()[0] + b" ", webhook()[1]), "signature"),
        (lambda: (webhook()[0], "t=,v1=é"), "signature"),
        (lambda: (webhook()[0], ""), "signature"),
        (lambda: webhook(reference="of another"), "no order"),
        (lambda: webhook(id="another intent"), "no order"),
    ],
)
def test_what_the_gateway_did_not_say_of_an_order_changes_nothing(
    make_till: Callable[..., Till], heard: Callable[[], tuple[bytes, str]], why: str
) -> None:
    till = make_till()
    with pytest.raises(Untrue, match=why):
        till.hear(*heard())
    assert status(till) == WAITING


def test_a_signed_webhook_without_a_proof_of_this_payment_changes_nothing(make_till: Callable[..., Till], story: Story) -> None:
    proof: dict[str, Any] = json.loads(story.proof().model_dump_json())
    proof["claim"]["legs"][0]["amount"] = "9.50"
    for till, why in (
        (make_till("9.50", json.dumps(proof).encode()), "the proof: claim"),
        (make_till("9.50"), "another payment"),
        (make_till("2.50", b"{}"), "the proof: "),
    ):
        with pytest.raises(Untrue, match=why):
            till.hear(*webhook())
        assert status(till) == WAITING
