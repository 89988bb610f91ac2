"""Nodes come and go, shards split and merge, and the network goes on."""

from collections.abc import Callable

import pytest

from node.client.blocks import prove_block
from node.client.follower import Follower
from node.client.questions import Questions, read_reply
from node.protocol.chain import Chain
from node.protocol.crypto import digest
from node.protocol.queries import BlockList
from tests.chains import TIME, Network, key
from tests.simulation.epochs import CLIENT, SOON, Host, World

LONG = 120_000
PEOPLE = [key(f"person {number}") for number in range(20)]


def world(seed: int = 0, loss: float = 0.0, broker_loss: float = 0.0, keep_blocks: int = 0, **parameters: int) -> World:
    """Two committees of four, and four nodes more, which are not started."""
    found = World(Network(**{**SOON, **parameters}), 4, seed, loss, broker_loss, keep_blocks)  # type: ignore[arg-type]  # no strings among them
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


def read(world: World, chain: Chain) -> Follower:
    """A client that has nothing of a chain of an epoch that is over, and asks its members until it does not help any more."""
    known = max((host.node.chronicle for host in world.hosts if host.node is not None), key=lambda c: len(c.documents))
    electorate = known.documents[chain.epoch - 1].electorates[chain.shard]
    follower, questions = Follower(electorate), Questions(electorate.network, CLIENT)
    follower.finish(next(c.header for c in known.successions[chain.epoch - 1].closings if c.header.shard == chain.shard))
    for turn in range(100):
        if follower.is_complete:
            break
        asked = follower.ask(turn * 10.0)
        assert asked is not None
        question = questions.ask(electorate, asked.request, digest("question", bytes([turn]))[:16], asked.member)
        world.replies.clear()
        world.ask(chain, question.query)
        end = world.now + 20
        world.run(lambda end=end: world.now > end, 5_000)  # type: ignore[misc]
        replies = [reply for body in world.replies if (reply := read_reply(body, {chain: electorate})) is not None]
        lists = [reply.answer for reply in replies if isinstance(reply.answer, BlockList)]
        assert len(lists) == len(world.replies) <= 1, "one member is asked"
        blocks = [prove_block(block, electorate) for block in lists[0].blocks] if lists else None
        follower.answered(blocks, turn * 10.0 + 1)
    return follower


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


def test_a_client_that_was_away_gets_all_chains_of_the_first_epoch_three_epochs_later() -> None:
    there = world()
    every(there, 200, lambda: pay(there))
    reach(there, 4)
    for host in there.hosts[:2]:
        host.stop()
        host.start()
    for shard in there.network.document.electorates:
        follower = read(there, Chain(1, shard))
        assert follower.is_complete
        assert follower.forks == follower.refused == 0
    assert not any(chain.epoch < 3 for host in there.hosts if host.node is not None for chain in host.node.duties)


def test_who_need_not_keep_blocks_lets_go_of_chains_once_two_epochs_and_the_validity_window_are_over() -> None:
    there = world(keep_blocks=1, validity_window=3_000, clock_skew=3_000)
    reach(there, 2)
    assert read(there, Chain(1, 0)).is_complete
    reach(there, 5)
    kept = [host for host in there.hosts if host.node is not None]
    assert all(chain.epoch > 2 for host in kept for chain in (*host.disks, *host.chains, *host.retired))
    assert read(there, Chain(1, 0)).height == 0
