"""A network forms whoever crashes, stays away or breaks rules meanwhile; in as much time as that takes, and no more."""

from collections.abc import Callable

import pytest

from tests.simulation.formation import SCENES, Formation, honest


def test_a_calm_network_forms_within_the_first_announcements() -> None:
    world = Formation(1)
    honest(world)
    world.run_until_mining(1_000)
    world.check()
    assert world.coordinator.attempt == 1


@pytest.mark.parametrize("scene", SCENES)
def test_a_network_forms(scene: Callable[[], None]) -> None:
    scene()
