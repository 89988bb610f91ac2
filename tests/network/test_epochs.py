"""A network whose committees change while payments go on: nodes join it, a shard splits; nodes leave it, two merge."""

from pathlib import Path
from typing import Any

import httpx

from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.keys import generate
from node.protocol.topics import TransactionBatch, transactions_topic
from node.protocol.transaction import Transaction
from scripts.devnet.folder import open_devnet, short_epochs
from scripts.devnet.status import status
from tests.network.harness import Network, running_network
from tests.person import Deal, deal
from tests.waiting import until

EPOCH_SECONDS = 150
"""An epoch has ended so long after there was a reason for it, even on a slow machine."""
QUICK = {"epoch_pause": 3_000, "reveal_time": 5_000, "handoff_time": 60_000, "commit_timeout": 5_000, "settle_time": 20_000}
NEW = [f"node-{number}" for number in range(8, 12)]


def stands(network: Network) -> tuple[int, int]:
    """The epoch, and how many committees of it are ready."""
    state: dict[str, Any] = status(open_devnet(network.folder))
    return state["epoch"] or 0, sum(committee["ready"] for committee in state["committees"])


def test_nodes_join_and_leave_a_network_in_which_payments_go_on(tmp_path: Path) -> None:
    with running_network(tmp_path / "net", **QUICK) as network:
        made = deal(network.person, 0, 1)
        assert made.pay("1.00", wait=30)["status"] == "committed"

        network.run("devnet.launch", "--nodes", "4", "--detach")
        assert set(NEW) <= network.pids().keys()
        assert made.pay("1.00", wait=60)["status"] == "committed"
        until(lambda: stands(network) == (2, 3), "epoch 2 with three committees", EPOCH_SECONDS)
        assert made.pay("1.00", wait=60)["status"] == "committed"

        network.run("devnet.leave", "--timeout", str(EPOCH_SECONDS), *NEW)
        assert not set(NEW) & network.pids().keys()
        until(lambda: stands(network) == (3, 2), "epoch 3 with two committees", EPOCH_SECONDS)
        assert made.pay("1.00", wait=60)["status"] == "committed"
        assert made.available() == ("6.00", "4.00")

        network.down()
        network.up()
        assert network.pids().keys() == network.all_names, "who left is not started again"
        until(lambda: stands(network) == (3, 2), "epoch 3 after a restart of everything", 30)
        assert made.pay("1.00", wait=60)["status"] == "committed"
        assert made.available() == ("5.00", "5.00")
        assert network.audit()["conserved"]


def see_through(network: Network, transaction: Transaction, epochs: int) -> None:
    """Send it to its home, which takes it in once, until so many epochs are over."""
    with network.client() as client:
        document = client.document()
        last = document.number + epochs
        while document.number < last:
            home = document.shards.shard_of(transaction.order.payers[0])
            topic = transactions_topic(network.genesis.network, Chain(document.number, home))
            client.publish(topic, encode(TransactionBatch((encode(transaction),))))
            client.wait(lambda: False, 0.5)
            document = client.document()


def balances(deal: Deal) -> tuple[str, str] | None:
    """None while the gateway is not up."""
    try:
        return deal.available()
    except httpx.TransportError:
        return None


def test_a_gateway_that_was_away_for_three_epochs_catches_up_by_itself(tmp_path: Path) -> None:
    """With what happened in all of them: also in those whose chains nobody follows any more."""
    payer, payee = generate(), generate()
    with running_network(tmp_path / "net", **short_epochs(6)) as network:
        ann, bob = network.person(), network.person()
        made = Deal(ann, ann.wallet(key=payer, USD="10.00"), bob, bob.wallet(key=payee))
        network.kill("gateway")
        see_through(network, network.sign([payer], (payer, payee, "USD", 300)), epochs=3)
        network.start("gateway")
        until(lambda: balances(made) == ("7.00", "3.00"), "the payment made meanwhile", 60)
        assert ann.faucet(made.purse, "1.00", wait=60).json()["status"] == "committed"
        assert made.available() == ("8.00", "3.00")
