"""What the code as it is does on the days that catch its mutants, and on some bad ones: nothing is violated."""

import pytest
from msgspec import structs

from tests.simulation.boundaries import run
from tests.simulation.boundary_liars import LIARS
from tests.simulation.boundary_plan import Plan, draw
from tests.simulation.epoch_mutants import BUSY, MERGE, OUTAGE, PARTS, SPLIT, WIPED

DAYS = {"busy": BUSY, "merge": MERGE, "outage": OUTAGE, "parts": PARTS, "split": SPLIT, "wiped": WIPED}
DAYS |= {liar: Plan(seed=1, liar=liar, coordinator="raging") for liar in LIARS}


@pytest.mark.parametrize("name", DAYS)
def test_nothing_is_violated(name: str) -> None:
    assert run(structs.replace(DAYS[name], patience=240_000)).violation is None


@pytest.mark.parametrize("seed", range(1, 7))
def test_nothing_is_violated_on_a_bad_day(seed: int) -> None:
    assert run(draw(seed)).violation is None
