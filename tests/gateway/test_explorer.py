"""What anybody may see, transactions signed elsewhere, and what operators look at."""

import base64
import time
from typing import Any

import redis

from node.protocol.address import decode_address, encode_address
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate
from node.protocol.topics import TransactionBatch, transactions_topic
from node.protocol.transaction import Leg, Order, Transaction
from tests.gateway.conftest import World
from tests.gateway.fake_network import USD_ISSUER, address
from tests.gateway.test_accounts import problem
from tests.waiting import until


def signed(world: World, payer: KeyPair, payee: bytes, amount: int, memo: str = "", salt: bytes = bytes(8)) -> Transaction:
    valid_until = time.time_ns() // 1_000_000 + 60_000
    return Order(world.network.network, (Leg(address(payer), payee, "USD", amount),), memo, valid_until, salt).sign([payer])


def send_directly(world: World, transaction: Transaction) -> None:
    """Around the gateway, as any other client of the network."""
    home = world.network.shard_of(transaction.order.payers[0])
    channel = transactions_topic(world.network.network, home)
    redis.Redis.from_url(world.broker.url).publish(channel, encode(TransactionBatch((encode(transaction),))))


def key_in(world: World, shard: int) -> KeyPair:
    while True:
        if world.network.shard_of(address(pair := generate())) == shard:
            return pair


def test_payments_signed_elsewhere_show_up_from_inside_and_across_shards(world: World) -> None:
    bob = world.person()
    for shard in (0, 1):
        till = bob.wallet(shard)
        transaction = signed(world, USD_ISSUER, decode_address(till["address"]), 1234, f"from afar to {shard}")
        send_directly(world, transaction)

        def items(till: dict[str, Any] = till) -> list[Any]:
            found: list[Any] = bob.get(f"/v1/wallets/{till['id']}/transfers").json()["items"]
            return found

        (item,) = until(items, "in the history")
        assert (item["id"], item["kind"], item["direction"]) == (transaction.id.hex(), "incoming", "received")
        assert (item["memo"], item["amount"]) == (f"from afar to {shard}", "12.34")
        assert (item["status"], item["counterparty"]) == ("committed", encode_address(address(USD_ISSUER)))
        assert bob.balance(till) == ("12.34", "0.00")


def test_a_key_with_a_past_is_taken_over_with_its_balance_and_pays_with_its_own_signature(world: World) -> None:
    bob, pair = world.person(), key_in(world, 0)
    till = bob.wallet(1)
    send_directly(world, signed(world, USD_ISSUER, address(pair), 1000))
    until(lambda: world.network.balance(address(pair)) == (1000, 0), "funded")

    made = bob.post("/v1/wallets", {"label": "mine", "public_key": pair.public.hex()})
    assert (made.status_code, made.json()["custodial"]) == (201, False)
    wallet = made.json()
    assert bob.balance(wallet) == ("10.00", "0.00")
    assert problem(bob.pay(wallet, till["address"], "1.00")) == (409, "key_not_held")
    taken = world.person().post("/v1/wallets", {"label": "mine", "public_key": pair.public.hex()})
    assert problem(taken) == (409, "key_taken")

    encoded = encode(signed(world, pair, decode_address(till["address"]), 400, "by hand"))
    done = bob.post("/v1/transactions", {"transaction": base64.b64encode(encoded).decode()}, wait=10)
    assert (done.status_code, done.json()["status"]) == (200, "committed")
    again = bob.post("/v1/transactions", {"transaction": encoded.hex()})
    assert (again.status_code, again.json()["id"]) == (200, done.json()["id"])
    assert (bob.balance(wallet), bob.balance(till)) == (("6.00", "0.00"), ("4.00", "0.00"))
    assert bob.get(f"/v1/wallets/{wallet['id']}/transfers").json()["items"][0]["direction"] == "sent"
    public = world.gateway.http.get(f"/v1/transactions/{done.json()['transaction_id']}")
    assert public.json()["status"] == "committed"


def test_transactions_that_cannot_be_right_are_refused_at_the_door(world: World) -> None:
    bob, pair, other = world.person(), generate(), generate()
    good = signed(world, pair, address(other), 1)
    forged = Transaction(good.order, signed(world, pair, address(other), 2).witnesses)
    late = Order(world.network.network, good.order.legs, "", 1, bytes(8)).sign([pair])
    elsewhere = Order(bytes(8), good.order.legs, "", good.order.valid_until, bytes(8)).sign([pair])
    far = Order(world.network.network, good.order.legs, "", 2**52, bytes(8)).sign([pair])
    expected = {
        encode(forged): "bad_signature",
        encode(late): "expired",
        encode(elsewhere): "wrong_network",
        encode(far): "limit_exceeded",
        encode(good)[:-1]: "malformed",
        b"\xc1": "malformed",
    }
    for encoded, code in expected.items():
        assert problem(bob.post("/v1/transactions", {"transaction": encoded.hex()})) == (422, code)
    assert problem(bob.post("/v1/transactions", {"transaction": "?"})) == (422, "malformed")


def test_the_network_as_it_is(world: World) -> None:
    def up() -> Any:
        seen = world.gateway.http.get("/v1/network").json()
        return seen if all(m["up"] for c in seen["committees"] for m in c["members"]) else None

    seen = until(up, "all up")
    assert (seen["network"], seen["epoch"], seen["phase"]) == (world.network.network.hex(), 1, "mining")
    assert {asset["code"]: asset["decimals"] for asset in seen["assets"]} == {"USD": 2, "VND": 0}
    assert [committee["shard"] for committee in seen["committees"]] == [0, 1]
    for committee in seen["committees"]:
        assert committee["faults_tolerated"] == 1
        assert committee["height"] > 0
        assert len({member["name"] for member in committee["members"]}) == 4


def test_blocks_one_by_one_and_as_a_list(world: World) -> None:
    alice = world.person()
    purse = alice.wallet(world.network.shard_of(address(USD_ISSUER)))
    alice.fund(purse, "1.00")
    funding = alice.get(f"/v1/wallets/{purse['id']}/transfers").json()["items"][0]
    http = world.gateway.http
    block = http.get(f"/v1/blocks/{purse['shard']}/{funding['height']}").json()
    assert funding["id"] in {transaction["id"] for transaction in block["transactions"]}
    receipt = {"transaction_id": funding["id"], "outcome": "committed", "code": None}
    assert receipt in block["receipts"]
    latest = http.get("/v1/blocks", params={"shard": purse["shard"], "limit": 5}).json()["items"]
    heights = [item["height"] for item in latest]
    assert heights == list(range(heights[0], heights[0] - 5, -1))
    assert problem(http.get("/v1/blocks/0/99999999")) == (404, "block_not_found")
    assert problem(http.get("/v1/blocks", params={"shard": 9})) == (404, "shard_not_found")


def test_any_account_can_be_looked_up(world: World) -> None:
    pair = generate()
    send_directly(world, signed(world, USD_ISSUER, address(pair), 555))
    until(lambda: world.network.balance(address(pair)) == (555, 0), "funded")
    found = world.gateway.http.get(f"/v1/accounts/{encode_address(address(pair))}").json()
    assert found["balances"]["USD"] == {"available": "5.55", "held": "0.00", "frozen": False}
    assert problem(world.gateway.http.get("/v1/accounts/spay1x")) == (422, "invalid_address")


def test_waiting_transactions_can_be_seen(world: World) -> None:
    alice = world.person()
    purse = alice.wallet()
    with world.network.switched(hold=True):
        body = {"wallet_id": purse["id"], "asset": "USD", "amount": "1.00"}
        transfer_id = alice.post("/v1/faucet", body).json()["id"]

        def seen() -> bool:
            pending = world.gateway.http.get("/v1/pending").json()
            return transfer_id in {item["id"] for item in pending["items"]}

        until(seen, "pending")


def test_operators_see_health_readiness_and_metrics_and_docs_need_no_other_site(world: World) -> None:
    http = world.gateway.http
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"ready": True, "missing": []}
    assert "shardpay_gateway_height{shard=" in http.get("/metrics").text
    docs = http.get("/", follow_redirects=True).text
    assert "swagger" in docs
    assert "https://" not in docs
    assert "/v1/transfers" in http.get("/openapi.json").json()["paths"]
