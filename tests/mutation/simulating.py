"""What each planted fault has to survive: runs of all the simulators, those that notice much in little time first."""

from collections.abc import Callable, Iterator
from functools import partial

from msgspec import structs

from tests.simulation.adversaries import BEHAVIOURS
from tests.simulation.committee import Committee
from tests.simulation.coordinator import LIES
from tests.simulation.faults import CAPTURED, draw
from tests.simulation.formation import SCENES
from tests.simulation.plan import Plan
from tests.simulation.run import simulate
from tests.simulation.test_liars import is_well

LIARS = ("all well", "mute", "slow", "withholding", "tardy")
Run = Callable[[], str | None]
"""Says what was noticed, or raises it."""


def runs(part: str) -> Iterator[tuple[str, Run]]:
    """Those of one simulator, each with a name."""
    match part:
        case "committee":
            yield from ((f"committee {seed}", Committee(seed).run_plan) for seed in range(1_000))
        case "formation":
            yield from ((f"scene {number}", scene) for number, scene in enumerate(SCENES))
        case "liars":
            yield from ((kind, partial(_endure, kind)) for kind in LIARS)
        case _:
            yield from ((f"seed {plan.seed}", partial(_simulate, plan)) for plan in plans())


def plans() -> Iterator[Plan]:
    """Of whole networks: mixed ones, each kind of liar once, captured shards, and coordinators with every lie."""
    names = sorted(BEHAVIOURS)
    pairs = list(zip(names[::2], [*names[1::2], names[0]], strict=False))
    for number, (one, other) in enumerate(pairs):
        yield draw(1 + number)
        yield draw(100 + number, one, other)
        if number % 5 == 0:
            yield structs.replace(draw(200 + number, CAPTURED), limits={"uncovered": 1 + number})
            yield structs.replace(draw(300 + number), lies=LIES[number % 2 :: 2], active=3_000)


def _simulate(plan: Plan) -> str | None:
    return simulate(plan).violation


def _endure(kind: str) -> str | None:
    return None if is_well(kind) else "one bad member costs much"
