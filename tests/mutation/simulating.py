"""What each planted fault has to survive: runs of all the simulators, those that notice much in little time first."""

from collections.abc import Callable, Iterator
from functools import partial

from msgspec import structs

from tests.simulation.adversaries import BEHAVIOURS, DROPPED_FOR
from tests.simulation.calm import calm_costs
from tests.simulation.committee import Committee
from tests.simulation.coordinator import LIES
from tests.simulation.faults import CAPTURED, draw
from tests.simulation.formation import SCENES
from tests.simulation.plan import Plan
from tests.simulation.run import simulate
from tests.simulation.test_liars import is_well

LIARS = ("mute", "slow", "withholding", "tardy")
Run = Callable[[], str | None]
"""Says what was noticed, or raises it."""


def runs(part: str) -> Iterator[tuple[str, Run]]:
    """Those of one simulator, each with a name."""
    match part:
        case "committee":
            yield from ((f"committee {seed}", partial(_agree, seed)) for seed in range(1_000))
        case "formation":
            yield from ((f"scene {number}", scene) for number, scene in enumerate(SCENES))
        case "liars":
            yield from ((kind, partial(_endure, kind)) for kind in LIARS)
        case _:
            yield "calm", calm_costs
            yield from ((f"seed {plan.seed}", partial(_simulate, plan)) for plan in plans())
            yield from ((liar, partial(_drop, liar)) for liar in {reason: liar for liar, reason in DROPPED_FOR.items()}.values())


def plans() -> Iterator[Plan]:
    """Of whole networks: each kind of liar once, mixed ones, captured shards, and coordinators with every lie."""
    names = sorted(BEHAVIOURS)
    pairs = list(zip(names[::2], [*names[1::2], names[0]], strict=False))
    for number, (one, other) in enumerate(pairs):
        if number % 2 == 0:
            yield structs.replace(draw(1 + number), active=5_000, asked=True)
        yield structs.replace(draw(100 + number, one, other), active=5_000)
        if number % 5 == 0:
            yield structs.replace(draw(200 + number, CAPTURED), limits={"uncovered": 1 + number}, active=3_000)
            yield structs.replace(draw(300 + number), lies=LIES[number % 2 :: 2], active=3_000)


def _agree(seed: int) -> str | None:
    Committee(seed).run_plan()
    return None


def _simulate(plan: Plan) -> str | None:
    return simulate(plan).violation


def _drop(liar: str) -> str | None:
    """In a calm network."""
    verdict = simulate(Plan(seed=7, byzantine=((1, (liar,)), (6, (liar,))), transactions=tuple(range(15)), active=3_000))
    return verdict.violation or (None if DROPPED_FOR[liar] in verdict.dropped_for else "nobody is dropped for it")


def _endure(kind: str) -> str | None:
    return None if is_well(kind) else "one bad member costs much"
