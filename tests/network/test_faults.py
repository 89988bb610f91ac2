"""Processes die under load: payments go on, or go on afterwards, and none is lost, doubled or taken back.

``test_chaos`` draws faults from a seed; here are those that must meet.
"""

from tests.network.harness import Network, Paying
from tests.waiting import until


def test_payments_go_on_without_the_coordinator_and_a_node_of_each_committee_which_come_back_without_it(network: Network) -> None:
    victims = [network.nodes(shard)[1] for shard in (0, 1)]
    with Paying(network) as paying:
        paying.goes_on("at first")
        network.kill("coordinator", *victims)
        for _ in range(5):
            paying.goes_on("without them: nobody waits for them", within=10)
        network.start(*victims)
        until(lambda: network.caught_up(victims), "the nodes stand where a peer stands although nobody tells them the epoch")
        network.up()
        paying.goes_on("with everybody again")
        assert paying.settle()["expired"] == 0
    network.check_health()


def test_the_gateway_takes_up_what_it_had_promised_while_the_broker_was_away(network: Network) -> None:
    with Paying(network) as paying:
        load = paying.load
        paying.goes_on("at first")
        network.kill("broker")
        promised = len(load.taken)
        until(lambda: len(load.taken) >= promised + 40, "transfers taken in that no node has heard of")
        assert len(load.taken) - len(load.committed) >= 30
        network.kill("gateway")
        unanswered = load.unanswered
        until(lambda: load.unanswered > unanswered, "requests without an answer")
        network.up()
        paying.goes_on("through the new gateway and broker")
        assert paying.settle()["expired"] == 0
    network.check_health()


def test_nothing_the_api_called_committed_is_lost_when_everything_dies_at_once(network: Network) -> None:
    with Paying(network) as paying:
        until(lambda: len(paying.load.committed) > 30, "payments committed")
        network.kill(*network.pids())
        before = len(paying.load.committed)
        network.up()
        paying.goes_on("after the power is back")
        assert paying.settle()["committed"] > before
    network.check_health()
