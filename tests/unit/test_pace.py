"""How long a leader with work pauses between blocks."""

import pytest

from node.protocol.genesis import Parameters
from node.replica.pace import Pace

PARAMETERS = Parameters(block_interval=50, block_transactions=1_000, heartbeat=1_000, view_timeout=2_000)


def paced(*took: int, parameters: Parameters = PARAMETERS) -> Pace:
    """After blocks that were final so many ms after they were executed."""
    pace = Pace(parameters)
    for each in took:
        pace.on_block(1)
        pace.on_final(each)
    return pace


def test_before_anything_is_measured_the_pause_is_the_block_interval() -> None:
    assert paced().pause(1) == PARAMETERS.block_interval


@pytest.mark.parametrize("took", [1, 2, 8, 20])
def test_a_lone_transaction_waits_for_three_times_what_blocks_take_and_many_for_up_to_twice_that(took: int) -> None:
    pace = paced(*[took] * 100)
    assert abs(pace.pause(1) - max(3 * took, 1)) <= 1
    assert abs(pace.pause(999) - max(6 * took, 1)) <= 1
    pauses = [pace.pause(waiting) for waiting in range(1, 1_000)]
    assert pauses == sorted(pauses)


def test_one_block_that_took_long_makes_the_next_pause_little_longer() -> None:
    usual = paced(*[8] * 100).pause(1)
    assert usual < paced(*[8] * 100, 60_000).pause(1) < 1.25 * usual
    assert paced(*[8] * 100, *[30] * 40).pause(1) == pytest.approx(90, abs=2), "but they follow what goes on"


@pytest.mark.parametrize(("heartbeat", "view_timeout"), [(1_000, 2_000), (100, 2_000), (1_000, 800)])
def test_who_pauses_longest_has_as_much_time_again_before_it_counts_as_late(heartbeat: int, view_timeout: int) -> None:
    parameters = Parameters(heartbeat=heartbeat, view_timeout=view_timeout, block_difficulty_bits=0)
    longest = paced(*[60_000] * 100, parameters=parameters).pause(100)
    assert longest * 2 <= view_timeout // 8
    assert longest <= heartbeat


def test_blocks_that_were_final_before_they_came_say_nothing_of_what_blocks_cost() -> None:
    """To a member that lags behind most come so."""
    assert paced(*[20] * 100, *[60, 0, 0, 0] * 40).pause(1) > 60


@pytest.mark.parametrize(("transactions", "pause"), [(0, 0), (1, 1), (100, 5), (999, 50), (1_000, 50)])
def test_a_full_block_follows_at_once_but_for_what_the_one_before_took_of_the_ids_to_remember(
    transactions: int, pause: int
) -> None:
    pace = paced(*[30] * 100)
    pace.on_block(transactions)
    assert pace.pause(PARAMETERS.block_transactions) == pause
    assert paced(*[1] * 100).pause(1) == 3


def test_no_more_transactions_are_taken_than_ids_are_provided_for() -> None:
    """However fast blocks become final, whatever they hold."""
    pace, now, taken = paced(*[1] * 100), 0, 0
    for number in range(1_000):
        pace.on_block(count := (number * 337) % 1_001)
        taken += count
        now += pace.pause(1_000)
    assert taken <= now * PARAMETERS.block_transactions / PARAMETERS.block_interval
