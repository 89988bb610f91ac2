"""Whom a member that is behind asks for blocks, and when."""

from node.consensus.catching_up import CatchingUp

A, B = b"a", b"b"


def test_a_member_a_block_behind_waits_a_little_before_it_asks() -> None:
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 11)
    assert catch_up.next_request(100) is None
    assert catch_up.next_request(300) == A


def test_a_member_far_behind_asks_at_once() -> None:
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 100)
    assert catch_up.next_request(0) == A


def test_one_request_is_outstanding_until_answered_or_given_up() -> None:
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 100)
    catch_up.heard(B, 100)
    assert catch_up.next_request(0) == A
    assert catch_up.next_request(2_999) is None
    assert catch_up.next_request(3_000) == B, "another peer has its turn"


def test_a_peer_that_was_not_asked_has_nothing_to_answer() -> None:
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 100)
    catch_up.next_request(0)
    assert not catch_up.answered(B)
    assert catch_up.answered(A)
    assert not catch_up.answered(A)


def test_requests_to_one_peer_keep_a_distance_and_say_when_the_next_is_due() -> None:
    """A peer serves one at a time: what comes sooner would be dropped, and cost a whole timeout."""
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 100)
    assert catch_up.next_request(0) == A
    assert catch_up.answered(A)
    assert catch_up.next_request(10) is None
    due = catch_up.deadline
    assert 100 < due < 200
    assert catch_up.next_request(due) == A


def test_a_peer_that_is_gone_is_not_asked() -> None:
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 100)
    catch_up.lost(A)
    assert catch_up.next_request(0) is None


def test_who_is_level_asks_nobody() -> None:
    catch_up = CatchingUp(10, now=0)
    catch_up.heard(A, 10)
    assert catch_up.next_request(10_000) is None
