"""Nodes come and go, shards split and merge, and the network goes on."""

from collections.abc import Callable

import pytest

from node.protocol.chain import Chain
from tests.chains import TIME, Network, key
from tests.simulation.epochs import SOON, Host, World

LONG = 120_000
PEOPLE = [key(f"person {number}") for number in range(20)]


def world(seed: int = 0, loss: float = 0.0, broker_loss: float = 0.0, **parameters: int) -> World:
    """Two committees of four, and four nodes more, which are not started."""
    found = World(Network(**{**SOON, **parameters}), 4, seed, loss, broker_loss)  # type: ignore[arg-type]  # no strings among them
    found.run(lambda: found.is_open, LONG)
    return found


def every(world: World, pause: int, do: Callable[[], None]) -> None:
    do()
    world.after(pause, lambda: every(world, pause, do))


def pay(world: World) -> None:
    """People get money from the issuer, and pass some on."""
    until, issuer = TIME + world.now + 30_000, world.network.issuers["USD"]
    pairs = [world.chance.sample(PEOPLE, 2) for _ in range(4)]
    minted = world.network.pay(issuer, world.chance.choice(PEOPLE), 1_000, valid_until=until)
    world.submit([minted, *(world.network.pay(a, b, world.chance.randint(1, 50), valid_until=until) for a, b in pairs)])


def reach(world: World, epoch: int) -> None:
    """Every member that is up has a block of this epoch, or of a later one."""
    world.run(lambda: world.document.number >= epoch and world.is_open, LONG)


def committees(world: World) -> int:
    return len(world.document.committees)


def members(world: World) -> list[Host]:
    return [world.by_key[key_] for electorate in world.document.electorates.values() for key_ in electorate.keys]


def test_four_nodes_join_and_a_shard_splits_they_leave_and_two_merge_and_no_money_is_lost() -> None:
    there = world()
    every(there, 200, lambda: pay(there))
    newcomers = there.hosts[8:]
    for host in newcomers:
        host.start()
    there.run(lambda: committees(there) == 3 and there.is_open, LONG)
    for host in newcomers:
        assert host.node is not None
        host.node.leave()
    there.run(lambda: committees(there) == 2 and there.is_open, LONG)
    assert not set(newcomers) & set(members(there))
    reach(there, there.document.number + 1)
    assert all(not host.chains and not host.disks.keys() - {Chain(2, s) for s in range(3)} for host in newcomers)
    assert there.oracle.transactions


@pytest.mark.parametrize("seed", range(3))
def test_messages_are_lost_and_nodes_end_at_any_time_and_begin_again(seed: int) -> None:
    there = world(seed, loss=0.05, broker_loss=0.3)
    every(there, 200, lambda: pay(there))
    for host in there.hosts[8:]:
        host.start()

    def disturb() -> None:
        """At most one of each committee is down."""
        host = there.chance.choice(there.hosts)
        if host.node is None:
            host.start()
        elif there.may_end(host):
            host.stop()

    every(there, 700, disturb)
    there.run(lambda: there.document.number >= 5, 2 * LONG)
    assert there.oracle.transactions


def test_who_was_away_for_some_epochs_finds_its_way_back_to_a_seat() -> None:
    there = world()
    for host in there.hosts[8:]:
        host.start()
    away = there.hosts[0]
    away.stop()
    reach(there, 4)
    assert away not in members(there)
    away.start()
    there.run(lambda: away in members(there) and there.is_open, LONG)
    there.run(lambda: away.epoch == there.document.number, LONG)


def test_who_comes_in_a_later_epoch_with_nothing_gets_a_seat() -> None:
    there = world()
    reach(there, 3)
    for host in there.hosts[8:]:
        host.start()
    there.run(lambda: set(there.hosts) == set(members(there)) and there.is_open, LONG)


def test_who_lost_its_disk_follows_without_a_vote_and_votes_again_in_the_next_epoch() -> None:
    there = world()
    reach(there, 2)
    victim = there.hosts[0]
    victim.stop()
    victim.disks.clear()
    victim.pledges.clear()
    victim.begun.clear()
    victim.start()

    def follows() -> bool:
        replica = victim.node.replica if victim.node is not None else None
        return replica is not None and replica.electorate.epoch == 2 and not replica.consensus.has_votes

    there.run(follows, LONG)
    reach(there, there.document.number + 1)
    assert victim.node is not None
    assert victim.node.replica is not None
    assert victim.node.replica.consensus.has_votes


def test_an_attempt_whose_newcomers_do_not_get_ready_is_called_off_and_the_next_goes_on() -> None:
    there = world(handoff_time=4_000)
    for host in there.hosts[8:]:
        host.start()
    chronicle = there.hosts[0].node.chronicle if there.hosts[0].node is not None else None
    assert chronicle is not None
    there.run(lambda: chronicle.prospect is not None, LONG)
    for host in there.hosts[8:]:
        host.stop()
    reach(there, 2)
    assert (there.document.attempt, committees(there)) == (2, 2)
    for host in there.hosts[8:]:
        host.start()
    there.run(lambda: committees(there) == 3 and there.is_open, LONG)
