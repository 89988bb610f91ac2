"""Which final blocks a member need not keep."""

from node.replica.retention import NOTED_EVERY, Retention
from node.replica.taking_over import FAR_BEHIND

WINDOW = 1_000_000


def past(retention: Retention, heights: range, step: int = 1_000, checkpoint: int = 10**9) -> int:
    """After blocks at these heights, ``step`` ms from one to the next."""
    found = [retention.past(height, height * step, checkpoint) for height in heights]
    assert found == sorted(found)
    return found[-1]


def test_an_archive_keeps_all() -> None:
    assert past(Retention(0, WINDOW), range(1, 50_000)) == 0


def test_as_many_are_kept_as_it_was_told() -> None:
    assert past(Retention(7_000, WINDOW), range(1, 20_001)) == 13_000


def test_none_goes_within_the_window_however_few_are_to_be_kept() -> None:
    """A block of the window's begin may be up to so many above."""
    gone = past(Retention(1, WINDOW), range(1, 20_001))
    assert 20_000 - 1_000 - NOTED_EVERY <= gone < 20_000 - 1_000


def test_a_member_that_started_again_first_waits_for_the_window() -> None:
    assert past(Retention(1, WINDOW), range(30_001, 30_001 + 1_000)) == 0
    assert past(Retention(1, WINDOW), range(30_001, 30_001 + 1_200)) > 30_000


def test_who_is_not_so_far_behind_that_it_takes_a_checkpoint_over_finds_its_next_block() -> None:
    assert past(Retention(1, 1), range(1, 20_001), checkpoint=12_000) == 12_000 - FAR_BEHIND
    assert past(Retention(1, 1), range(1, 20_001), checkpoint=0) == 0
