"""A network of many committees on virtual machines: it works, and what its nodes do costs them time."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from msgspec import structs

from node.protocol.certificate import VoteKind, sign_vote
from node.protocol.crypto import KeyPair, verify
from tests.chains import Network
from tests.simulation.large import World
from tests.simulation.machine import Costs, Line, Pipe
from tests.simulation.modelled import Meter, modelled
from tests.simulation.paying import Payers, fund

COMMITTEES, SIZE = 5, 7


@dataclass
class Run:
    """Some virtual seconds of payments, and how many signatures were checked in them."""

    world: World
    payers: Payers
    checks: int

    @property
    def busy(self) -> float:
        """Ms, of all cores."""
        return sum(host.busy for host in self.world.hosts)


def run(meter: Meter, line: Line = Line(), costs: Costs = Costs(), across: float = 0.3, until: float = 6_000) -> Run:
    network = Network(committees=COMMITTEES, size=SIZE, heartbeat=5_000, view_timeout=20_000, checkpoint_interval=1_000)
    people = fund(network)
    world = World(network, meter, line, costs)
    payers = Payers(world, people, across)
    payers.start(20)
    before = meter.checks
    world.run(until)
    return Run(world, payers, meter.checks - before)


@pytest.fixture
def meter() -> Iterator[Meter]:
    with modelled() as one:
        yield one


def test_payments_inside_and_across_shards_are_committed_and_all_members_agree(meter: Meter) -> None:
    found = run(meter)
    across = [took for _, took, is_across in found.payers.done if is_across]
    inside = [took for _, took, is_across in found.payers.done if not is_across]
    assert len(inside) > 100
    assert len(across) > 30
    assert not found.payers.failed
    roots: dict[tuple[int, int], bytes] = {}
    for host in found.world.hosts:
        replica = host.node.replica
        assert replica is not None
        state = replica.state
        assert roots.setdefault((replica.shard, state.height), state.state_root) == state.state_root
        assert state.height > 5
    assert sorted(across)[0] > 2 * sorted(inside)[0], "a vote has to come back"


def test_a_core_is_busy_for_as_long_as_its_checks_take(meter: Meter) -> None:
    cheap, dear = run(meter, across=0), run(meter, costs=Costs(check=10_000), across=0)
    assert dear.busy >= dear.checks * 10
    assert cheap.busy < cheap.checks * 10


def test_what_a_core_does_delays_what_its_node_says(meter: Meter) -> None:
    fast, slow = run(meter, across=0), run(meter, costs=Costs(event=10_000), across=0)
    assert len(slow.payers.done) < 0.8 * len(fast.payers.done)


def test_a_narrow_line_delays_what_goes_over_it(meter: Meter) -> None:
    wide, narrow = run(meter, Line(megabits=1_000), across=0), run(meter, Line(megabits=0.2), across=0)
    fastest = [min(took for _, took, _ in one.payers.done) for one in (wide, narrow)]
    assert fastest[1] > fastest[0] + 100
    sent = sum(host.up.bytes for host in wide.world.hosts)
    assert sent > len(wide.world.hosts) * (SIZE - 1) * 150 * sum(wide.world.heights.values()) / COMMITTEES, "each vote to each"


def test_a_pipe_carries_one_frame_after_the_other_and_small_ones_first() -> None:
    pipe = Pipe(megabits=8)  # a kB in a ms
    assert pipe.carry(1_000_000, now=0) == 1_000
    assert pipe.carry(1_000, now=0) == 1
    assert pipe.carry(1_000, now=0, copies=3) == 4
    assert pipe.carry(100_000, now=0) == 1_000 + 4 + 100
    assert pipe.carry(1_000, now=5_000) == 5_001
    assert (pipe.bytes, pipe.frames) == (1_105_000, 7)


def test_signatures_are_tags_only_while_they_are_modelled() -> None:
    electorate, pair = Network().document.electorates[0], KeyPair(bytes(31) + b"\1")
    electorate = structs.replace(electorate, keys=(pair.public,))
    with modelled() as meter:
        vote = sign_vote(pair, 0, electorate, VoteKind.NOTARIZE, 1, bytes(32))
        assert vote.is_valid(electorate)
        assert not structs.replace(vote, view=2).is_valid(electorate)
        assert (meter.checks, meter.signs) == (2, 1)
    assert not vote.is_valid(electorate)
    assert verify(pair.public, bytes(32), pair.sign(bytes(32)))
