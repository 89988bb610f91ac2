"""The gateway does what its description says: the part of tests/contract.py that nothing is drawn by chance in."""

from tests import contract
from tests.gateway.world import World


def test_every_operation_does_what_the_description_says(world: World) -> None:
    result = contract.run(world, 1, 1, "--phases", "examples,coverage")
    assert result.failures == 0, result.story
    assert result.operations > 75
    assert result.cases > 2000
