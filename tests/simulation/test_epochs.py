"""Nodes come and go, shards split and merge, and the network goes on."""

from tests.chains import Network
from tests.simulation.epochs import SOON, World


def test_four_nodes_join_and_a_shard_splits_they_leave_and_two_merge() -> None:
    world = World(Network(**SOON), more=4)
    world.run(lambda: world.is_open, 5_000)
    for host in world.hosts[8:]:
        host.start()
    world.run(lambda: len(world.document.committees) == 3 and world.is_open, 60_000)
    for host in world.hosts[8:]:
        assert host.node is not None
        host.node.leave()
    world.run(lambda: len(world.document.committees) == 2 and world.is_open, 60_000)
