"""A failing run made smaller: fewer faults, liars and clients, a shorter run - as long as the same thing still breaks."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import structs

from tests.simulation.plan import Links, Plan
from tests.simulation.run import Verdict

T = TypeVar("T")


def shrink(failing: Verdict, run: Callable[[Plan], Verdict], runs: int = 100) -> Verdict:
    """The smallest run found that violates the same invariant, within a number of runs. Each run is deterministic."""
    best, improved = failing, True
    while improved:
        improved = False
        for smaller in _smaller(best):
            if runs <= 0:
                return best
            runs -= 1
            verdict = run(smaller)
            if verdict.kind == failing.kind:
                best, improved = verdict, True
                break
    return best


def _smaller(verdict: Verdict) -> Iterator[Plan]:
    """Plans with something taken away, the most first."""
    plan = verdict.plan
    if (before := tuple(fault for fault in plan.faults if fault.at <= verdict.time)) != plan.faults:
        yield structs.replace(plan, faults=before)
    for chosen in _fewer(plan.transactions):
        yield structs.replace(plan, transactions=chosen)
    for fewer in _fewer(plan.faults):
        yield structs.replace(plan, faults=fewer)
    for liars in _fewer(plan.byzantine):
        yield structs.replace(plan, byzantine=liars)
    for i, (node, behaviours) in enumerate(plan.byzantine):
        if len(behaviours) > 1:
            for name in behaviours:
                simpler = (*plan.byzantine[:i], (node, (name,)), *plan.byzantine[i + 1 :])
                yield structs.replace(plan, byzantine=simpler)
    for name in ("links", "broker"):
        if getattr(plan, name) != Links():
            yield structs.replace(plan, **{name: Links()})
    for name in plan.limits:
        yield structs.replace(plan, limits={other: value for other, value in plan.limits.items() if other != name})
    if plan.timing:
        yield structs.replace(plan, timing="")
    if plan.swindled:
        yield structs.replace(plan, swindled=False)
    if plan.lies:
        yield structs.replace(plan, lies=())
    if plan.gateways > 1:
        yield structs.replace(plan, gateways=1)
    if plan.resubmission:
        yield structs.replace(plan, resubmission=0.0)
    if plan.active > 2_000:
        yield structs.replace(plan, active=plan.active // 2)


def _fewer(parts: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """None of them, then without a half, a quarter, ..., one of them."""
    if parts:
        yield ()
    size = len(parts) // 2
    while size:
        for start in range(0, len(parts), size):
            yield parts[:start] + parts[start + size :]
        size //= 2
