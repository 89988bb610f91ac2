"""The stories of paying before real nodes, and what takes keys of one's own or the processes' hands."""

from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from tests.network.harness import Network
from tests.payment_stories import PaymentStories
from tests.person import deal


class TestPayments(PaymentStories):
    """HTTP, broker, committees, and back."""


def test_an_exchange_between_payers_in_several_shards_happens_entirely_or_not_at_all(network: Network) -> None:
    person = network.person()
    ann, bob, cat = (network.key(shard) for shard in (0, 1, 1))
    funds = ((ann, "USD", "50.00"), (bob, "EUR", "40.00"), (cat, "USD", "5.00"))
    wallets = [person.wallet(None, key, **{asset: amount}) for key, asset, amount in funds]

    def trade(*legs: tuple[KeyPair, KeyPair, str, int]) -> tuple[str, str | None, list[int]]:
        signed = encode(network.sign([ann, bob, cat], *legs)).hex()
        view = person.post("/v1/transactions", {"transaction": signed}, wait=30).json()
        return view["status"], view["code"], view["shards"]

    def holdings() -> list[tuple[str, str]]:
        return [person.balance(wallet, asset) for wallet in wallets for asset in ("USD", "EUR")]

    after = [(amount, "0.00") for amount in ("25.00", "27.50", "30.00", "12.50", "0.00", "0.00")]
    assert trade((ann, bob, "USD", 3000), (bob, ann, "EUR", 2750), (cat, ann, "USD", 500)) == ("committed", None, [0, 1])
    assert holdings() == after
    poor = trade((ann, bob, "USD", 100), (bob, ann, "EUR", 100), (cat, ann, "USD", 1))  # cat has nothing left
    assert poor == ("rejected", "insufficient_funds", [0, 1])
    assert network.audit()["conserved"]  # waits until every shard has let go of it
    assert holdings() == after


def test_up_on_the_same_folder_starts_what_is_missing_and_leaves_the_rest(network: Network) -> None:
    made = deal(network.person, 0, 1)
    before, killed = network.pids(), {"gateway", "node-3", "dashboard"}
    network.kill(*killed)
    said = network.up()
    assert "Started 3 processes" in said
    assert "Already running" in said
    after = network.pids()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == killed
    assert "Nothing was missing" in network.up()
    assert made.pay("4.00", wait=30)["status"] == "committed"
    assert made.available() == ("6.00", "4.00")
