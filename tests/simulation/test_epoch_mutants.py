"""Each mutation of the rules by which one epoch becomes the next is caught by its plan."""

import pytest

from tests.simulation.boundaries import run
from tests.simulation.epoch_mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    assert run(mutant.plan, mutant.mutations).violation is not None, f"{name} ({mutant.what}) survives"
