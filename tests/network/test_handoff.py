"""A node whose disk is lost is handed its shard's state by the others, in parts, and goes on from there."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.network.harness import Network, running_network
from tests.waiting import until

INTERVAL = 4


@pytest.fixture
def small_network(tmp_path: Path) -> Iterator[Network]:
    """One committee, with a checkpoint every few blocks."""
    with running_network(tmp_path, committees=1, checkpoint_interval=INTERVAL) as network:
        yield network


def test_a_node_with_an_empty_disk_takes_the_state_over_and_follows_without_a_vote(small_network: Network) -> None:
    network, victim = small_network, small_network.nodes(0)[2]
    home = network.folder.home(victim)

    def stored(query: str) -> tuple[int, ...]:
        with closing(sqlite3.connect(home / "chain-1-0.db", timeout=10)) as inside:
            return tuple(inside.execute(query).fetchone())

    def first_block() -> int:
        """What is final waits a moment for the disk."""
        return until(lambda: stored("SELECT min(height) FROM blocks")[0], "blocks are stored")

    person = network.person()
    payer, payee = person.wallet(USD="100.00"), person.wallet()

    def pay(count: int) -> None:
        for _ in range(count):
            assert person.pay(payer, payee["address"], "1.00", wait=30).json()["status"] == "committed"

    pay(3 * INTERVAL)
    assert first_block() == 1
    network.kill(victim)
    pay(1)
    for path in home.iterdir():
        if path.name != "key.pem":
            path.unlink()
    network.start(victim)
    until(lambda: network.caught_up(victim), "the node stands where the others stand")
    assert stored("SELECT count(*) FROM meta WHERE key = ':handed over'") == (1,)
    assert stored("SELECT count(*) FROM state")[0] > 2
    pay(INTERVAL)
    until(network.agrees, "all members have the same state")
    first = first_block()
    assert first > 2 * INTERVAL, "it was not sent the blocks before"
    assert stored("SELECT count(*) FROM journal") == (0,), "it does not vote"
    network.kill(victim)
    network.start(victim)
    pay(1)
    until(network.agrees, "it comes back with what it was handed")
    assert first_block() == first
    network.check_health()
