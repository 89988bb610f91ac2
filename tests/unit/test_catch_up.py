"""Whom a member that is behind asks for blocks, and when."""

import pytest

from node.consensus.catching_up import CatchingUp

A, B = b"a", b"b"


def at_height_10(**claims: int) -> CatchingUp:
    catching_up = CatchingUp(10, now=0)
    for peer, height in claims.items():
        catching_up.heard(peer.encode(), height)
    return catching_up


@pytest.mark.parametrize(
    ("height", "now", "asked"),
    [(11, 100, None), (11, 300, A), (100, 0, A), (10, 10_000, None)],
    ids=["a little behind: waits", "a little behind for a while: asks", "far behind: asks at once", "level: asks nobody"],
)
def test_a_member_asks_when_it_is_behind(height: int, now: int, asked: bytes | None) -> None:
    assert at_height_10(a=height).next_request(now) == asked


def test_a_member_that_moves_goes_on_waiting() -> None:
    catching_up = at_height_10(a=12)
    catching_up.moved(11, 250)
    assert catching_up.next_request(300) is None
    assert catching_up.next_request(550) == A


def test_one_request_is_outstanding_until_answered_or_given_up() -> None:
    catching_up = at_height_10(a=100, b=100)
    assert [catching_up.next_request(now) for now in (0, 2_999, 3_000)] == [A, None, B]
    catching_up.lost(B)
    assert catching_up.next_request(3_001) == A, "who is gone will not answer"


def test_a_peer_that_was_not_asked_has_nothing_to_answer() -> None:
    catching_up = at_height_10(a=100)
    catching_up.next_request(0)
    assert [catching_up.answered(peer) for peer in (B, A, A)] == [False, True, False]


def test_requests_to_one_peer_keep_a_distance_and_say_when_the_next_is_due() -> None:
    """A peer serves one at a time: what comes sooner would be dropped, and cost a whole timeout."""
    catching_up = at_height_10(a=100)
    assert catching_up.next_request(0) == A
    catching_up.answered(A)
    assert catching_up.next_request(10) is None
    due = catching_up.deadline
    assert 100 < due < 200
    assert catching_up.next_request(due) == A


def test_a_peer_that_is_gone_is_not_asked() -> None:
    catching_up = at_height_10(a=100)
    catching_up.lost(A)
    assert catching_up.next_request(0) is None
