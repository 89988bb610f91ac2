"""Processes die under load, one or all: payments go on or go on afterwards, and none is lost, doubled or taken back."""

import time

from tests.network.harness import Load, Network, eventually

BROKER_AWAY, COORDINATOR_AWAY, GATEWAY_AWAY = 10.0, 8.0, 3.0


def healthy(network: Network) -> None:
    """Everything runs, each committee agrees, and all money is there."""
    eventually(network.agrees, "all members of each committee at the same height with the same state")
    audit = network.audit()
    assert audit["conserved"]
    assert {asset["held"] for asset in audit["assets"].values()} <= {"0.00", "0"}


def test_payments_go_on_without_one_node_of_each_committee_which_catch_up_later(network: Network) -> None:
    victims = [network.nodes(shard)[1] for shard in (0, 1)]
    with Load(network) as load:
        load.wait_for_commits("at first")
        network.kill(*victims)
        killed = time.monotonic()
        load.wait_for_commits("without the killed nodes")
        load.wait_for_commits("and again: not only what was under way", each=10)
        print(f"longest pause without one node of each committee: {load.longest_pause(killed):.2f} s")
        network.up()
        back = time.monotonic()
        eventually(lambda: network.caught_up(victims), "the restarted nodes stand where a peer stands, under load")
        print(f"caught up {time.monotonic() - back:.2f} s after up was done")
        load.wait_for_commits("with all nodes again")
        outcomes = load.settle()
    assert outcomes["rejected"] == outcomes["expired"] == 0
    healthy(network)


def test_nothing_the_api_called_committed_is_lost_when_all_nodes_die_at_once(network: Network) -> None:
    nodes = [*network.nodes(0), *network.nodes(1)]
    with Load(network) as load:
        load.wait_for_commits("at first", each=10)
        network.kill(*nodes)
        killed, before = time.monotonic(), len(load.committed)
        network.up()
        print(f"up again {time.monotonic() - killed:.2f} s after the kill")
        load.wait_for_commits("after the restart of all nodes")
        print(f"longest pause: {load.longest_pause(killed):.2f} s")
        outcomes = load.settle()
    assert outcomes["committed"] > before
    assert outcomes["rejected"] == 0
    healthy(network)


def test_the_broker_dies_and_comes_back(network: Network) -> None:
    with Load(network) as load:
        load.wait_for_commits("at first")
        network.kill("broker")
        time.sleep(BROKER_AWAY)
        assert len(load.taken) > len(load.committed), "the gateway takes transfers in all the same"
        network.up()
        back = time.monotonic()
        load.wait_for_commits("with the broker back")
        print(f"longest pause after the broker is back: {load.longest_pause(back):.2f} s")
        outcomes = load.settle()
    assert outcomes["rejected"] == outcomes["expired"] == 0
    healthy(network)


def test_payments_go_on_and_a_node_comes_back_without_the_coordinator(network: Network) -> None:
    victim = network.nodes(1)[2]
    with Load(network) as load:
        load.wait_for_commits("at first")
        network.kill("coordinator")
        gone = time.monotonic()
        while time.monotonic() < gone + COORDINATOR_AWAY:
            load.wait_for_commits("without the coordinator", within=10)
        assert load.longest_pause(gone) < 5, "nobody waits for the coordinator"
        network.kill(victim)
        network.start(victim)
        eventually(lambda: network.caught_up([victim]), "the node is back although nobody tells it the epoch")
        network.up()
        load.wait_for_commits("with the coordinator back")
        outcomes = load.settle()
    assert outcomes["rejected"] == outcomes["expired"] == 0
    healthy(network)


def test_the_gateway_dies_and_takes_up_what_it_had_promised(network: Network) -> None:
    with Load(network) as load:
        load.wait_for_commits("at first")
        network.kill("broker")
        promised = len(load.taken)
        eventually(lambda: len(load.taken) >= promised + 10, "transfers taken in that no node has heard of")
        network.kill("gateway")
        time.sleep(GATEWAY_AWAY)
        network.up()
        back = time.monotonic()
        load.wait_for_commits("through the new gateway")
        print(f"longest pause after the gateway is back: {load.longest_pause(back):.2f} s; {load.repeated} requests repeated")
        outcomes = load.settle()
    assert load.repeated > 0
    assert outcomes["rejected"] == outcomes["expired"] == 0
    healthy(network)


def test_everything_dies_at_once(network: Network) -> None:
    with Load(network) as load:
        load.wait_for_commits("at first")
        network.kill(*network.pids())
        network.up()
        load.wait_for_commits("after the power is back")
        outcomes = load.settle()
    assert outcomes["rejected"] == 0
    healthy(network)
