"""Each mutation of the core is caught within its number of mixed seeds."""

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import simulate


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    caught = any(simulate(mutant.plan(seed), name).violation for seed in range(mutant.first, 1 + mutant.within))
    assert caught, f"{name} ({mutant.what}) survives seeds {mutant.first} to {mutant.within}"
