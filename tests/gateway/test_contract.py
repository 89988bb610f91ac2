"""The gateway does what its description says, where something is changed: the part of tests/contract.py in which nothing is drawn
by chance. What only reads, and administration, is left to the long form."""

from tests import contract
from tests.gateway.world import World


def test_every_operation_does_what_the_description_says(world: World) -> None:
    result = contract.run(
        world, 1, 1, "--phases", "examples,coverage", "--exclude-method", "GET", "--exclude-path-regex", "^/v1/admin"
    )
    assert result.failures == 0, result.story
    assert result.operations >= 50
    assert result.cases > 1500
