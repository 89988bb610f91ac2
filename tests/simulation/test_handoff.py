"""Whole networks in which members lose their disks, or are away for long, and are handed the state, whoever crashes or lies."""

import pytest

from tests.simulation.adversaries import HANDOFF_LIES
from tests.simulation.faults import handoff
from tests.simulation.run import simulate
from tests.simulation.story import Story

BEHAVIOURS = ("", "false parts", "withheld parts", "old checkpoint", "another checkpoint")


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_state_is_handed_over_whoever_lies_and_crashes(behaviour: str) -> None:
    begun = finished = 0
    dropped_for: set[str] = set()
    for seed in range(1, 6):
        story = Story()
        verdict = simulate(handoff(seed, behaviour), story=story)
        assert verdict.violation is None, f"seed {seed}"
        begun += story.count("a state is to be fetched")
        finished += story.count("its ledger begins")
        dropped_for |= verdict.dropped_for
    assert begun > finished > 5, "some crash in the middle"
    assert behaviour not in HANDOFF_LIES or HANDOFF_LIES[behaviour] in dropped_for
