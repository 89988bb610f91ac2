"""What a network costs in which nothing is wrong. A run depends on its seed alone, so these are counts, not measures."""

from tests.simulation.plan import Plan
from tests.simulation.run import simulate

_PLAN = Plan(seed=1, transactions=tuple(range(20)), active=4_000)
_MOST = {"blocks": 75, "messages": 2_800, "checks": 2_470, "events": 4_760, "time": 11_450}
"""A twentieth more than it was."""


def calm_costs() -> str | None:
    """What is dearer than it was, if anything."""
    verdict = simulate(_PLAN)
    if verdict.violation:
        return verdict.violation
    return next((f"{name}: {found}" for name, most in _MOST.items() if (found := getattr(verdict, name)) > most), None)
