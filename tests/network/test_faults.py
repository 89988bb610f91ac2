"""Processes die under load: payments go on, or go on afterwards, and none is lost, doubled or taken back.

``test_chaos`` has the broker, the gateway and everything at once die; here is what must meet. What the gateway makes of losses
one by one is in ``tests/gateway``.
"""

from tests.network.harness import Network, Paying
from tests.waiting import until


def test_payments_go_on_without_the_coordinator_and_a_node_of_each_committee_which_come_back_without_it(network: Network) -> None:
    victims = [network.nodes(shard)[1] for shard in (0, 1)]
    with Paying(network) as paying:
        paying.goes_on("at first")
        network.kill("coordinator", *victims)
        for _ in range(5):
            paying.goes_on("without them: nobody waits for them")
        network.start(*victims)
        until(lambda: network.caught_up(*victims), "the nodes stand where a peer stands although nobody tells them the epoch")
        network.up()
        paying.goes_on("with everybody again")
        assert paying.settle()["expired"] == 0
    network.check_health()
