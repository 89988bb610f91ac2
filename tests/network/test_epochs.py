"""A network whose committees change while payments go on: nodes join it, a shard splits; nodes leave it, two merge."""

from pathlib import Path
from typing import Any

from scripts.devnet.folder import open_devnet
from scripts.devnet.status import status
from tests.network.harness import Network, running_network
from tests.person import deal
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
