"""The example shop in Node, as a shop runs it: paid through the gateway, told by a webhook, with the proof of it."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.events.signatures import HEADER, sign
from scripts.devnet.layout import ROOT
from tests.gateway.test_checkout import confirm
from tests.gateway.test_proofs import verify
from tests.gateway.world import World
from tests.person import Deal
from tests.processes import ServerProcess, free_port
from tests.waiting import until

SCOPES = ["read", "checkout", "webhooks"]


class Shop:
    """Bob's, whose till is paid; Ann is a customer."""

    def __init__(self, node: str, world: World, folder: Path) -> None:
        self.made: Deal = world.deal()
        self.made.bob.verify()
        key = self.made.bob.post("/v1/api-keys", {"name": "shop", "scopes": SCOPES}).json()["key"]
        port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self.account, self.proofs, self.log = folder / "account.json", folder / "paid", folder / "shop.log"
        account = {"gateway": world.gateway.url, "key": key, "wallet": self.made.till["id"], "port": port}
        self.account.write_text(json.dumps(account | {"url": f"http://127.0.0.1:{port}", "folder": str(self.proofs)}))
        self.process = ServerProcess([node, str(ROOT / "demo/shop-node/shop.mjs"), str(self.account)])
        self.process.start_until(lambda: self.http.get("/").status_code == 404, self.log)

    def buy(self) -> dict[str, str]:
        answer = self.http.post("/buy/tea")
        assert answer.status_code == 201, self.log.read_text()
        ordered: dict[str, str] = answer.json()
        return ordered

    def order(self, number: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/orders/{number}").json()
        return found

    def told(self, event: object, secret: str, age: int = 0) -> int:
        """The status code of its answer to a webhook, signed with ``secret`` so many seconds ago."""
        body = json.dumps(event).encode()
        headers = {HEADER: sign(body, [secret], int(time.time()) - age)}
        return self.http.post("/webhook", content=body, headers=headers).status_code


@pytest.fixture(scope="module")
def shop(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    node = shutil.which("node")
    if node is None:
        missing = "no Node found: apt install nodejs"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    made = Shop(node, world, tmp_path_factory.mktemp("shop-node"))
    yield made
    made.process.kill()


def test_an_order_is_paid_once_the_webhook_has_come_and_its_proof_is_kept(world: World, shop: Shop, tmp_path: Path) -> None:
    bought, other = shop.buy(), shop.buy()
    intent = shop.made.ann.get(f"/v1/payment-intents/{bought['pay_here'].rpartition('/')[2]}").json()
    assert (intent["amount"], intent["description"]) == ("4.50", "tea")
    assert shop.order(bought["order"]) == {"status": "requires_payment", "paid": False}
    assert confirm(shop.made.ann, intent, shop.made.purse).status_code == 200
    until(lambda: shop.order(bought["order"]) == {"status": "succeeded", "paid": True}, "the order paid")
    kept = httpx.Response(200, content=(shop.proofs / f"{bought['order']}.json").read_bytes())
    assert verify(world, kept, tmp_path) == 0
    assert shop.order(other["order"]) == {"status": "requires_payment", "paid": False}
    assert shop.http.get(f"/orders/{'0' * 36}").status_code == 404


def test_a_webhook_is_believed_only_if_the_gateway_signed_it_lately(shop: Shop) -> None:
    unpaid = {"reference": shop.buy()["order"], "amount": "4.50", "transfer_id": "00" * 32}
    event = {"id": "1", "type": "payment_intent.succeeded", "data": unpaid}
    secret = json.loads(shop.account.read_text())["secret"]
    assert shop.told(event, "whsec_of another") == 400
    assert shop.told(event, secret, age=301) == shop.told(event, secret, age=-400) == 400
    assert shop.http.post("/webhook", json=event).status_code == 400
    # Signed, but the ledger knows nothing of it: it is to come again, and nothing is paid.
    assert shop.told(event, secret) == 503
    assert not shop.order(unpaid["reference"])["paid"]
    # A transfer that paid somebody else.
    other = shop.made.bob.pay(shop.made.till, shop.made.purse["address"], "4.50", wait=15).json()
    assert shop.told({**event, "data": unpaid | {"transfer_id": other["id"]}}, secret) == 503
    assert not shop.order(unpaid["reference"])["paid"]
    assert shop.account.stat().st_mode & 0o777 == 0o600
