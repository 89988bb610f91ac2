"""Leaders that fail: who is skipped, who is tried again, and how long everybody waits."""

import pytest
from msgspec import structs

from node.effects import Send
from node.protocol.messages import Certified, Proposal
from tests.unit.member import (
    A1,
    FINALIZE,
    GENESIS,
    KEYS,
    NOTARIZE,
    NULLIFY,
    TIMEOUTS,
    Bench,
    Heard,
    Invalid,
    Work,
    block,
    final,
    no,
    notarized,
    nullified,
    proposal,
    vote,
    votes,
)

# -- rule 7: leaders that fail ---------------------------------------------------------------------------------------------

SECOND = block(2, GENESIS)
"""Of member 2, whose turns are views 2, 6, 10 and so on."""


def test_who_is_dead_is_not_tried_before_it_is_heard_of() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2))
    assert skipped(bench, 6, 5) == [True] * 5
    bench.hear(vote(NOTARIZE, bench.view, 2, bytes(32)))
    assert skipped(bench, 26, 3) == [True, True, False]


def skipped(bench: Bench, first: int, turns: int) -> list[bool]:
    """Whether member 2 is skipped in its turns from view ``first`` on. Between them blocks become final."""
    found = []
    for view in range(bench.view, first + 4 * turns):
        assert bench.view == view
        if view % 4 == 2:
            found.append(no(view) in bench.said())
            bench.hear(nullified(view))
        else:
            bench.take()
            bench.hear(nullified(view) if view % 4 == 1 else final(block(view, bench.simplex.tree.root)))
    return found


@pytest.mark.parametrize(
    ("heard", "skips"),
    [
        ([1_100, nullified(2)], True),
        ([Invalid(2), nullified(2)], True),
        ([structs.replace(proposal(SECOND, None, nullified(1)))], True),
        ([nullified(2)], False),
        ([*votes(NULLIFY, 2, 1, 3), nullified(2)], False),
        ([nullified(3)], False),
        ([Work(), 1_049, proposal(SECOND, None, nullified(1)), notarized(SECOND)], True),
        ([Work(), 1_006, proposal(SECOND, None, nullified(1)), notarized(SECOND)], False),
        ([1_049, proposal(SECOND, None, nullified(1)), Work(), notarized(SECOND)], False),
        ([Work(), 1_010, notarized(SECOND)], False),
    ],
    ids=[
        "its time passed",
        "its proposal is invalid",
        "its block does not execute",
        "others nullified its view",
        "so many did that this member joined them",
        "its view was jumped over",
        "it let work wait",
        "it did not let work wait for long",
        "there was no work",
        "its proposal did not come here, but to a quorum",
    ],
)
def test_who_failed_is_skipped_at_its_next_turn(heard: list[Heard], skips: bool) -> None:
    bench = Bench(refused=[SECOND] if len(heard) == 1 and isinstance(heard[0], Proposal) else [])
    bench.now = 1_000
    bench.hear(nullified(1))
    bench.hear(*heard)
    bench.hear(nullified(2))
    assert skipped(bench, 6, 1) == [skips]


def test_who_goes_on_failing_is_tried_ever_more_rarely() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2))
    tried = []
    for view in range(3, 3_200):
        bench.hear(vote(NOTARIZE, view, 2, bytes(32)))
        if view % 4 == 2:
            if no(view) not in bench.said():
                tried.append(view // 4)
                bench.wait()
            bench.hear(nullified(view))
        else:
            bench.take()
            bench.hear(nullified(view) if view % 4 == 1 else final(block(view, bench.simplex.tree.root)))
    assert tried == [2, 5, 10, 19, 36, 69, 134, 263, 520, 777], "its turns, with 1, 2, 4 ... 256, 256 between them"
    assert bench.simplex.view_timeouts == 11


def test_a_tried_leader_with_work_has_a_quarter_of_the_time_and_is_trusted_again_when_it_succeeds() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2), vote(NOTARIZE, 3, 2, bytes(32)))
    assert skipped(bench, 6, 1) == [True]
    skipped(bench, 10, 0)
    bench.hear(Work())
    assert bench.simplex.deadline - bench.now == 2 * (TIMEOUTS.retransmit // 4), "one view was given up"
    bench.hear(notarized(block(10, bench.simplex.tree.root)))
    assert skipped(bench, 14, 2) == [False, False]


def test_at_most_f_leaders_are_skipped_those_that_failed_most() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2), 300, nullified(3), nullified(4))
    bench.take()
    bench.hear(1_000, nullified(5), nullified(6), final(block(7, GENESIS)), nullified(8))
    said = bench.said()
    assert [no(view) in said for view in (6, 7, 9)] == [False, False, True], "1, 2 and 3 failed alike: 1 is skipped"


def test_after_two_rounds_without_a_final_block_nobody_is_skipped_and_all_have_the_full_time() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2), *(nullified(view) for view in (3, 4, 5)))
    assert no(6) in bench.said()
    bench.hear(*(nullified(view) for view in (6, 7, 8)))
    assert bench.simplex.is_patient
    bench.hear(Work())
    assert bench.simplex.deadline - bench.now == 2 * TIMEOUTS.view, "one view was given up"
    bench.hear(nullified(9))
    assert no(10) not in bench.said()
    bench.hear(final(block(10, GENESIS)))
    assert not bench.simplex.is_patient


@pytest.mark.parametrize(("work", "given_up"), [(0, 80), (10, 90), (70, 100)])
def test_a_view_with_work_is_given_up_sooner(work: int, given_up: int) -> None:
    bench = Bench()
    bench.simplex.suspicion.came(1)
    bench.hear(work, Work(), given_up - 1)
    assert bench.said() == []
    bench.hear(given_up)
    assert bench.said() == [no(1)]


def test_a_leader_that_may_not_have_begun_keeps_work_waiting_for_a_quarter_of_the_time() -> None:
    """When an epoch begins some members come later than others."""
    bench = Bench()
    bench.hear(Work(), TIMEOUTS.retransmit // 4 - 1)
    assert bench.said() == []
    bench.hear(TIMEOUTS.retransmit // 4)
    assert bench.said() == [no(1)]


def test_f_and_one_nullify_votes_are_joined_but_not_against_a_finalize_vote() -> None:
    bench = Bench()
    bench.hear(*votes(NULLIFY, 1, 1))
    assert bench.said() == []
    bench.hear(*votes(NULLIFY, 1, 2))
    assert bench.said() == [no(1)]
    assert bench.view == 2


def test_the_leader_of_the_next_view_is_handed_the_certificate_unless_it_voted_on() -> None:
    for finalizes, handed in ((1, True), (2, False)):
        bench = Bench()
        bench.hear(proposal(A1), vote(FINALIZE, 1, finalizes, A1.header.hash), notarized(A1))
        sent = [effect for effect in bench.effects if isinstance(effect, Send)]
        assert sent == ([Send(KEYS[2].public, Certified((notarized(A1),)))] if handed else [])
