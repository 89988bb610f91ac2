"""Whom a member that is behind asks for blocks, and when."""

import heapq
from itertools import pairwise

import pytest

from node.consensus.catching_up import CatchingUp

A, B, C, D = b"a", b"b", b"c", b"d"


def at_height_10(**claims: int) -> CatchingUp:
    catching_up = CatchingUp(10, now=0)
    for peer, height in claims.items():
        catching_up.heard(peer.encode(), height)
    return catching_up


@pytest.mark.parametrize(
    ("height", "now", "asked"),
    [(11, 100, None), (11, 300, (A, 11)), (100, 0, (A, 11)), (10, 10_000, None)],
    ids=["a little behind: waits", "a little behind for a while: asks", "far behind: asks at once", "level: asks nobody"],
)
def test_a_member_asks_when_it_is_behind(height: int, now: int, asked: tuple[bytes, int] | None) -> None:
    assert at_height_10(a=height).next_request(now) == asked


def test_a_member_that_moves_goes_on_waiting() -> None:
    catching_up = at_height_10(a=12)
    catching_up.moved(11, 250)
    assert catching_up.next_request(300) is None
    assert catching_up.next_request(550) == (A, 12)


def test_at_the_end_of_a_chain_it_asks_at_once_whoever_is_connected() -> None:
    catching_up = at_height_10(a=9, b=10)
    catching_up.lost(A)
    catching_up.hurry(11)
    assert catching_up.next_request(1) == (B, 11)
    assert catching_up.next_request(251) is None


def test_when_one_is_slow_the_next_is_asked_for_the_same_and_at_most_three_at_a_time() -> None:
    catching_up = at_height_10(a=100, b=100, c=100, d=100)
    asked = [(now, request) for now in range(0, 3_000, 10) if (request := catching_up.next_request(now)) is not None]
    assert asked == [(0, (A, 11)), (250, (B, 11)), (500, (C, 11))]
    catching_up.lost(C)
    assert catching_up.next_request(2_999) == (D, 11), "who is gone will not answer"


def test_when_three_are_slow_it_waits_until_the_first_is_given_up() -> None:
    catching_up = at_height_10(a=100, b=100, c=100, d=100)
    for now in (0, 250, 500, 750, 1_000):
        catching_up.next_request(now)
    assert catching_up.deadline == 3_000, "till then there is nothing to do"
    assert catching_up.next_request(3_000) == (D, 11)


def test_only_what_was_asked_for_is_an_answer() -> None:
    catching_up = at_height_10(a=100)
    catching_up.next_request(0)
    assert [catching_up.answered(peer, first, 5) for peer, first in ((B, 11), (A, 12), (A, 11), (A, 11))] == [
        False, False, True, False,
    ]  # fmt: skip


def test_requests_to_one_peer_keep_a_distance_and_say_when_the_next_is_due() -> None:
    """A peer serves one at a time: what comes sooner would be dropped, and cost a whole timeout."""
    catching_up = at_height_10(a=100)
    assert catching_up.next_request(0) == (A, 11)
    catching_up.answered(A, 11, 5)
    assert catching_up.next_request(10) is None
    due = catching_up.deadline
    assert 100 < due < 200
    assert catching_up.next_request(due) == (A, 11)


def test_a_peer_that_is_gone_is_not_asked() -> None:
    catching_up = at_height_10(a=100)
    catching_up.lost(A)
    assert catching_up.next_request(0) is None


def test_who_never_answers_is_asked_ever_more_rarely_and_not_believed() -> None:
    catching_up = at_height_10(a=100, b=10)
    asked = []
    for now in range(0, 400_000, 50):
        if catching_up.next_request(now) is not None:
            asked.append(now)
    gaps = [after - before for before, after in pairwise(asked)]
    assert gaps[:6] == [4_000, 5_000, 7_000, 11_000, 19_000, 35_000], "after 3 s, and 1, 2, 4 ... s more"
    assert max(gaps) == 67_000
    assert catching_up.target == 10


def answers(height: int, seconds: int, **delays: int | None) -> tuple[int, int]:
    """How many answers a member that is far behind gets, and how often it asks, when each peer answers with one block after so
    many ms, or never."""
    catching_up = CatchingUp(0, now=0)
    for name in delays:
        catching_up.heard(name.encode(), height)
    under_way: list[tuple[int, bytes, int]] = []
    final = asked = 0
    for now in range(0, seconds * 1_000, 5):
        while under_way and under_way[0][0] <= now:
            _, sender, first = heapq.heappop(under_way)
            if catching_up.answered(sender, first, now) and first == final + 1:
                final += 1
                catching_up.moved(final, now)
        if (request := catching_up.next_request(now)) is not None:
            asked += 1
            delay = delays[request[0].decode()]
            if delay is not None:
                heapq.heappush(under_way, (now + delay, *request))
    return final, asked


def test_a_silent_boaster_costs_its_share_and_little_more() -> None:
    """Three peers serve one request in 120 ms each; so two serve 1000 a minute."""
    alone, _ = answers(10**6, 60, a=20, b=20)
    with_boaster, asked = answers(10**6, 60, a=20, b=20, c=None)
    assert alone > 900
    assert with_boaster > 0.9 * alone
    assert asked < 1.05 * with_boaster, "hardly anything is asked twice"


def test_when_all_are_slow_little_is_asked_twice() -> None:
    final, asked = answers(10**6, 60, a=900, b=900, c=900)
    assert final > 55
    assert asked < 1.3 * final
