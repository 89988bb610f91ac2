"""The stories of paying before real nodes, and what takes keys of one's own or the processes' hands."""

from node.protocol.codec import encode
from tests.network.harness import Network
from tests.payment_stories import PaymentStories


class TestPayments(PaymentStories):
    """HTTP, broker, committees, and back."""


def test_an_exchange_between_payers_in_several_shards_happens_entirely_or_not_at_all(network: Network) -> None:
    person = network.person()
    ann, bob, cat = (network.key(shard) for shard in (0, 1, 1))
    funds = ((ann, {"USD": "50.00"}), (bob, {"EUR": "40.00"}), (cat, {"USD": "5.00"}))
    wallets = [person.own_wallet(key.public, **amounts) for key, amounts in funds]
    good = network.sign([ann, bob, cat], (ann, bob, "USD", 3000), (bob, ann, "EUR", 2750), (cat, ann, "USD", 500))
    answer = person.post("/v1/transactions", {"transaction": encode(good).hex()}, wait=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "committed"), answer.text
    assert answer.json()["shards"] == [0, 1]

    def holdings() -> list[tuple[str, str]]:
        return [person.balance(wallet, asset) for wallet in wallets for asset in ("USD", "EUR")]

    after = [("25.00", "0.00"), ("27.50", "0.00"), ("30.00", "0.00"), ("12.50", "0.00"), ("0.00", "0.00"), ("0.00", "0.00")]
    assert holdings() == after
    bad = network.sign([ann, bob, cat], (ann, bob, "USD", 100), (bob, ann, "EUR", 100), (cat, ann, "USD", 1))  # cat has nothing
    answer = person.post("/v1/transactions", {"transaction": encode(bad).hex()}, wait=30)
    assert (answer.json()["status"], answer.json()["code"]) == ("rejected", "insufficient_funds"), answer.text
    audit = network.audit()  # waits until every shard has let go of it
    assert audit["conserved"]
    assert holdings() == after


def test_up_on_the_same_folder_starts_what_is_missing_and_leaves_the_rest(network: Network) -> None:
    ann = network.person()
    payer, payee = ann.wallet(0, USD="10.00"), ann.wallet(1)
    before, killed = network.pids(), {"gateway", "node-3", "dashboard"}
    network.kill(*killed)
    said = network.up()
    assert "Started 3 processes" in said
    assert "Already running" in said
    after = network.pids()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == killed
    assert "Nothing was missing" in network.up()
    assert ann.balance(payer) == ("10.00", "0.00")
    assert ann.pay(payer, payee["id"], "4.00", wait=30).json()["status"] == "committed"
