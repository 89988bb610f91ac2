"""Payments end to end: HTTP, broker, committees, and back - inside a shard, across shards, many at once."""

from collections import Counter

import httpx
import pytest
import trio

from node.protocol.codec import encode
from tests.network.harness import Network, Treasury

INTRA, CROSS = pytest.param(0, id="inside a shard"), pytest.param(1, id="across shards")


@pytest.mark.parametrize("other", [INTRA, CROSS])
def test_a_payment_arrives_to_the_cent_with_its_memo_in_both_histories(network: Network, other: int) -> None:
    ann, bob = network.user("ann"), network.user("bob")
    payer, payee = ann.wallet(0, USD="100.00"), bob.wallet(other)
    paid = ann.pay(payer, payee.address, "12.34", "for the räksmörgås")
    assert (paid["status"], paid["code"]) == ("committed", None)
    assert (paid["home_shard"], paid["shards"]) == (0, sorted({0, other}))
    assert paid["height"] > 0
    assert ann.balance(payer) == ("87.66", "0.00")
    assert bob.balance(payee) == ("12.34", "0.00")
    sent, funded = ann.history(payer)
    (received,) = bob.history(payee)
    assert (sent["direction"], sent["counterparty"], funded["kind"]) == ("sent", payee.address, "faucet")
    assert (received["direction"], received["counterparty"]) == ("received", payer.address)
    for line in (sent, received):
        assert (line["id"], line["memo"], line["amount"], line["asset"]) == (paid["id"], "for the räksmörgås", "12.34", "USD")
        assert line["status"] == "committed"


def test_a_payee_is_found_by_mail_address_and_by_wallet(network: Network) -> None:
    ann, bob = network.user("ann"), network.user("bob")
    payer, payee = ann.wallet(1, USD="5.00"), bob.wallet(0)
    first = bob.get("/v1/wallets")["items"][0]
    assert ann.pay(payer, bob.email, "1.00")["legs"][0]["to"] == first["address"]
    assert ann.pay(payer, payee.id, "2.00")["legs"][0]["to"] == payee.address
    assert ann.balance(payer) == ("2.00", "0.00")


@pytest.mark.parametrize("other", [INTRA, CROSS])
def test_an_overdraft_is_rejected_and_holds_nothing(network: Network, other: int) -> None:
    ann = network.user("ann")
    payer, payee = ann.wallet(0, USD="10.00"), ann.wallet(other)
    paid = ann.pay(payer, payee.id, "10.01")
    assert (paid["status"], paid["code"]) == ("rejected", "insufficient_funds")
    assert ann.balance(payer) == ("10.00", "0.00")
    assert ann.balance(payee) == ("0.00", "0.00")
    assert ann.pay(payer, payee.id, "10.00")["status"] == "committed"  # all of it is still there to be spent


@pytest.mark.parametrize("other", [INTRA, CROSS])
async def test_of_200_payments_at_once_exactly_the_affordable_ones_commit(network: Network, other: int) -> None:
    ann, bob = network.user("ann"), network.user("bob")
    payer, payee = ann.wallet(0, USD="100.00"), bob.wallet(other)
    outcomes: Counter[tuple[str, str | None]] = Counter()
    body = {"from_wallet": payer.id, "to": payee.address, "asset": "USD", "amount": "1.00", "memo": "one of many"}

    async def pay(http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/transfers?wait=30", json=body)
        view = answer.json()
        while view["status"] not in ("committed", "rejected", "expired"):
            view = (await http.get(f"/v1/transfers/{view['id']}?wait=30")).json()
        outcomes[view["status"], view["code"]] += 1

    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=ann.http.base_url, headers=ann.http.headers, timeout=60, limits=limits) as http:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(pay, http)
    assert outcomes == {("committed", None): 100, ("rejected", "insufficient_funds"): 100}
    assert ann.balance(payer) == ("0.00", "0.00")
    assert bob.balance(payee) == ("100.00", "0.00")
    audit = network.audit()
    assert audit["conserved"]
    assert audit["assets"]["USD"]["held"] == "0.00"


def test_an_exchange_between_payers_in_several_shards_happens_entirely_or_not_at_all(network: Network) -> None:
    user = network.user("trader")
    treasury = Treasury(network, user)
    (ann, ann_wallet), (bob, bob_wallet) = treasury.key(0, USD="50.00"), treasury.key(1, EUR="40.00")
    cat, cat_wallet = treasury.key(1, USD="5.00")
    good = treasury.sign([ann, bob, cat], (ann, bob, "USD", 3000), (bob, ann, "EUR", 2750), (cat, ann, "USD", 500))
    answer = user.post("/v1/transactions?wait=30", {"transaction": encode(good).hex()})
    assert (answer.status_code, answer.json()["status"]) == (200, "committed"), answer.text
    assert answer.json()["shards"] == [0, 1]

    def holdings() -> list[tuple[str, str]]:
        wallets = (ann_wallet, bob_wallet, cat_wallet)
        return [user.balance(wallet, asset) for wallet in wallets for asset in ("USD", "EUR")]

    after = [("25.00", "0.00"), ("27.50", "0.00"), ("30.00", "0.00"), ("12.50", "0.00"), ("0.00", "0.00"), ("0.00", "0.00")]
    assert holdings() == after
    bad = treasury.sign([ann, bob, cat], (ann, bob, "USD", 100), (bob, ann, "EUR", 100), (cat, ann, "USD", 1))  # cat has nothing
    answer = user.post("/v1/transactions?wait=30", {"transaction": encode(bad).hex()})
    assert (answer.json()["status"], answer.json()["code"]) == ("rejected", "insufficient_funds"), answer.text
    network.audit()  # waits until every shard has let go of it
    assert holdings() == after


async def test_a_request_repeated_under_one_idempotency_key_pays_once(network: Network) -> None:
    ann = network.user("ann")
    payer, payee = ann.wallet(0, USD="10.00"), ann.wallet(1)
    body = {"from_wallet": payer.id, "to": payee.id, "asset": "USD", "amount": "3.00", "memo": "rent"}
    ids = set()

    async def pay(http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/transfers?wait=10", json=body, headers={"Idempotency-Key": "rent of may"})
        assert answer.status_code in (200, 202), answer.text
        ids.add(answer.json()["id"])

    async with httpx.AsyncClient(base_url=ann.http.base_url, headers=ann.http.headers, timeout=30) as http:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(pay, http)
        await pay(http)
    assert len(ids) == 1
    other = ann.post("/v1/transfers", {**body, "amount": "4.00"}, key="rent of may")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert other.headers["content-type"] == "application/problem+json"
    assert ann.balance(payer) == ("7.00", "0.00")
    assert ann.balance(payee) == ("3.00", "0.00")
    raw = ann.post("/v1/faucet?wait=10", {"wallet_id": payer.id, "asset": "USD", "amount": "1.00"}, key="rent of may")
    assert raw.status_code == 409


def test_up_on_the_same_folder_starts_what_is_missing_and_leaves_the_rest(network: Network) -> None:
    ann = network.user("ann")
    payer, payee = ann.wallet(0, USD="10.00"), ann.wallet(1)
    before = network.pids()
    network.kill("gateway", "node-3", "dashboard")
    said = network.up()
    assert "Started 3 processes" in said
    assert "Already running" in said
    after = network.pids()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"gateway", "node-3", "dashboard"}
    assert "Nothing was missing" in network.up()
    assert ann.balance(payer) == ("10.00", "0.00")
    assert ann.pay(payer, payee.id, "4.00")["status"] == "committed"
