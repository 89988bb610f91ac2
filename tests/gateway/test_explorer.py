"""What anybody may see, transactions signed elsewhere, and what operators look at."""

import base64
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from msgspec import structs

from node.protocol.address import address_of, decode_address, encode_address
from node.protocol.codec import encode
from node.protocol.keys import generate
from node.protocol.limits import MAX_AMOUNT
from node.protocol.queries import GetAccount, GetBlocks, GetPending, GetStatus, Request
from node.protocol.transaction import Order, Transaction
from tests.chains import key, leg
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.waiting import until


def test_payments_signed_elsewhere_show_up_from_inside_and_across_shards(world: World) -> None:
    bob = world.person()
    for shard in (0, 1):
        till = bob.wallet(shard)
        transaction = world.network.sign(USD_ISSUER, decode_address(till["address"]), 1234, f"from afar to {shard}")
        world.network.hand_in(transaction)
        (item,) = until(lambda till=till: bob.history(till), "in the history")  # type: ignore[misc]
        assert (item["id"], item["kind"], item["direction"]) == (transaction.id.hex(), "incoming", "received")
        assert (item["memo"], item["amount"]) == (f"from afar to {shard}", "12.34")
        assert (item["status"], item["counterparty"]) == ("committed", encode_address(address_of(USD_ISSUER.public)))
        assert bob.balance(till) == ("12.34", "0.00")


def test_a_key_with_a_past_is_taken_over_with_its_balance_and_pays_with_its_own_signature(world: World) -> None:
    bob, pair, http = world.person(), world.network.chains.person(0), world.gateway.http
    till, owner = bob.wallet(1), address_of(pair.public)
    world.network.hand_in(world.network.sign(USD_ISSUER, owner, 1000))

    def balances() -> Any:  # of any account, though no wallet here
        return http.get(f"/v1/accounts/{encode_address(owner)}").json()["balances"].get("USD")

    assert until(balances, "funded") == {"available": "10.00", "held": "0.00", "frozen": False}
    wallet = bob.wallet(key=pair)
    assert (wallet["custodial"], bob.balance(wallet)) == (False, ("10.00", "0.00"))
    assert problem(bob.pay(wallet, till["address"], "1.00")) == (409, "key_not_held")
    assert problem(bob.post("/v1/wallets", bob.proof_of(pair))) == (409, "key_taken")

    encoded = encode(world.network.sign(pair, decode_address(till["address"]), 400, "by hand"))
    done = bob.post("/v1/transactions", {"transaction": base64.b64encode(encoded).decode()}, wait=10)
    again = bob.post("/v1/transactions", {"transaction": encoded.hex()})
    assert [(a.status_code, a.json()["status"], a.json()["id"]) for a in (done, again)] == [
        (200, "committed", done.json()["id"])
    ] * 2
    assert (bob.balance(wallet), bob.balance(till)) == (("6.00", "0.00"), ("4.00", "0.00"))
    assert bob.history(wallet)[0]["direction"] == "sent"
    assert http.get(f"/v1/transactions/{done.json()['transaction_id']}").json()["status"] == "committed"


def test_transactions_that_cannot_be_right_are_refused_at_the_door(world: World) -> None:
    bob, pair, payee, network = world.person(), generate(), address_of(generate().public), world.network
    good = network.sign(pair, payee, 1)

    def other(of: bytes = network.chains.document.network_id, valid_until: int = good.order.valid_until) -> bytes:
        return encode(Order(of, good.order.legs, "", valid_until, bytes(8)).sign([pair]))

    most = structs.replace(good.order.legs[0], amount=MAX_AMOUNT)
    for encoded, code in (
        (encode(Transaction(good.order, network.sign(pair, payee, 2).witnesses)), "bad_signature"),
        (other(valid_until=1), "expired"),
        (other(of=bytes(16)), "wrong_network"),
        (other(valid_until=2**52), "limit_exceeded"),
        (encode(network.chains.sign([pair], most, most, valid_until=good.order.valid_until)), "limit_exceeded"),
        (encode(good)[:-1], "malformed"),
        (b"\xc1", "malformed"),
    ):
        assert problem(bob.post("/v1/transactions", {"transaction": encoded.hex()})) == (422, code)
    assert problem(bob.post("/v1/transactions", {"transaction": "?"})) == (422, "malformed")


def test_what_is_handed_in_again_when_its_time_is_over_is_answered_with_what_became_of_it(world: World) -> None:
    bob, pair, network = world.person(), key("pays once"), world.network
    home, wallet = network.chains.shard_of(pair), bob.wallet(key=pair)
    empty = next(one for number in count() if network.chains.shard_of(one := key(f"has nothing {number}")) is home)
    network.hand_in(network.sign(USD_ISSUER, address_of(pair.public), 1000))
    until(lambda: bob.balance(wallet) == ("10.00", "0.00"), "funded")
    soon = int(time.time() * 1000) + 4000
    paid = network.chains.sign([pair], leg(pair, key("payee"), "USD", 400), valid_until=soon)
    body = {"transaction": encode(paid).hex()}
    assert bob.post("/v1/transactions", body, key="once", wait=10).json()["status"] == "committed"

    def is_over() -> bool:
        """By the time of the same shard's blocks."""
        other = network.chains.sign([empty], leg(empty, pair, "USD", 1), valid_until=soon)
        code: str | None = bob.post("/v1/transactions", {"transaction": encode(other).hex()}).json().get("code")
        return code == "expired"

    until(is_over, "the time is over")
    for once in ("once", "another", None):
        again = bob.post("/v1/transactions", body, key=once)
        assert (again.status_code, again.json()["status"]) == (200, "committed")
    assert bob.balance(wallet) == ("6.00", "0.00")


def test_the_network_as_it_is(world: World) -> None:
    def up() -> Any:
        seen = world.gateway.http.get("/v1/network").json()
        return seen if all(m["up"] for c in seen["committees"] for m in c["members"]) else None

    seen = until(up, "all up")
    assert (seen["network"], seen["epoch"], seen["phase"]) == (world.network.chains.document.network_id.hex(), 1, "mining")
    assert {asset["code"]: asset["decimals"] for asset in seen["assets"]} == {"USD": 2, "VND": 0}
    assert [(committee["shard"], committee["faults_tolerated"]) for committee in seen["committees"]] == [(0, 1), (1, 1)]
    for committee in seen["committees"]:
        assert committee["height"] > 0
        assert len({member["name"] for member in committee["members"]}) == 4


def test_a_transaction_is_seen_waiting_and_then_in_a_block_and_in_the_list_of_blocks(world: World) -> None:
    alice, http = world.person(), world.gateway.http
    purse = alice.wallet(world.network.chains.shard_of(USD_ISSUER).number)
    with world.network.switched(hold=True):
        funding = alice.faucet(purse, "1.00").json()["id"]
        until(lambda: funding in {item["id"] for item in http.get("/v1/pending").json()["items"]}, "pending")
    view = alice.transfer(funding, wait=10)
    block = http.get(f"/v1/blocks/{purse['shard']}/{view['height']}").json()
    assert funding in {transaction["id"] for transaction in block["transactions"]}
    assert {"transaction_id": funding, "outcome": "committed", "code": None} in block["receipts"]
    latest = http.get("/v1/blocks", params={"shard": purse["shard"], "limit": 5}).json()["items"]
    heights = [item["height"] for item in latest]
    assert heights == list(range(heights[0], heights[0] - 5, -1))


def test_what_people_look_at_is_asked_under_another_name_than_what_the_gateway_follows(world: World) -> None:
    alice, http, network = world.person(), world.gateway.http, world.network
    purse = alice.wallet(0)
    paid = alice.faucet(purse, "1.00", wait=10).json()

    def names(of: Callable[[Request], bool]) -> set[str]:
        return {name for request, name in list(network.asked) if of(request)}

    network.asked.clear()
    with network.switched(lose_blocks=1):
        own = until(lambda: names(lambda request: isinstance(request, GetBlocks)), "what was lost is asked for")
    assert until(lambda: names(lambda request: isinstance(request, GetStatus)), "members' status") == own
    looks = {
        f"/v1/blocks/{paid['home_shard']}/{paid['height']}": GetBlocks,
        f"/v1/transactions/{paid['id']}/proof": GetBlocks,
        f"/v1/accounts/{purse['address']}": GetAccount,
        "/v1/pending": GetPending,
    }
    for path, kind in looks.items():
        network.asked.clear()
        assert http.get(path).status_code == 200
        found = names(lambda request, kind=kind: isinstance(request, kind))  # type: ignore[misc]
        assert len(found - own) == 1, "the gateway itself may have asked meanwhile"


@pytest.mark.parametrize("path", ["/v1/blocks/0/1", "/v1/pending"])
def test_few_blocks_and_lists_of_what_waits_are_asked_of_members_at_a_time(world: World, path: str) -> None:
    def status(_: int) -> tuple[int, str | None]:
        answer = world.gateway.http.get(path)
        return answer.status_code, answer.json().get("code")

    with ThreadPoolExecutor(20) as pool:
        with world.network.switched(absent=set(range(4))):
            asked = [pool.submit(status, number) for number in range(20)]
            until(lambda: sum(one.done() for one in asked) >= 16, "most are refused")
            assert {one.result() for one in asked if one.done()} == {(503, "overloaded")}
        assert Counter(one.result() for one in asked) == {(200, None): 4, (503, "overloaded"): 16}


def test_operators_see_health_readiness_and_metrics_and_docs_need_no_other_site(world: World) -> None:
    http = world.gateway.http
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"ready": True, "missing": []}
    assert "shardpay_gateway_height{shard=" in http.get("/metrics").text
    docs = http.get("/docs").text
    assert "swagger" in docs
    assert "https://" not in docs
    assert "/v1/transfers" in http.get("/openapi.json").json()["paths"]
