"""Whom a process hears out: each address at its own rate, and of too many the oldest of the one with the most."""

import trio

from node.network.callers import (
    ADDRESS_CALLS_AT_ONCE,
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    KEPT,
    MAX_HANDSHAKES,
    Callers,
    source_of,
)


def heard(callers: Callers, hosts: list[str], now: float) -> int:
    """How many of these calls, each over at once."""
    count = 0
    for host in hosts:
        handshake = trio.CancelScope()
        count += callers.begin(host, handshake, now)
        callers.end(handshake)
    return count


def test_an_address_that_calls_all_the_time_keeps_no_other_out() -> None:
    callers = Callers()
    assert heard(callers, ["10.0.0.1"] * 1000, now=1) == CALLS_AT_ONCE - KEPT
    assert heard(callers, ["10.0.0.2"] * 10, now=1) == ADDRESS_CALLS_AT_ONCE


def test_a_few_that_call_all_the_time_keep_out_nobody_who_calls_now_and_then() -> None:
    callers, calls = Callers(), list[tuple[float, str]]()
    calls += [(1 + second / 500, f"10.0.0.{second % 10}") for second in range(60 * 500)]
    calls += [(1 + 1.5 * turn, "192.0.2.1") for turn in range(40)]
    answers = [(host, heard(callers, [host], now)) for now, host in sorted(calls)]
    assert sum(count for host, count in answers if host == "192.0.2.1") == 40
    assert sum(count for _, count in answers) < 60 * CALLS_PER_SECOND + CALLS_AT_ONCE + 1


def test_one_address_that_many_nodes_share_has_what_others_leave() -> None:
    callers = Callers()
    answers = [heard(callers, ["10.0.0.1"] * 50, now=1 + second) for second in range(60)]
    assert answers[-1] == CALLS_PER_SECOND


def test_many_addresses_together_have_a_rate_too() -> None:
    callers = Callers()
    everywhere = [f"10.0.{i // 250}.{i % 250}" for i in range(5000)]
    assert heard(callers, everywhere, now=1) == CALLS_AT_ONCE
    assert heard(callers, everywhere, now=2) == CALLS_PER_SECOND


async def test_of_too_many_handshakes_the_oldest_of_the_address_with_the_most_is_ended() -> None:
    callers, honest = Callers(), trio.CancelScope()
    assert callers.begin("10.0.0.9", honest, 1)
    others = [trio.CancelScope() for _ in range(MAX_HANDSHAKES + 1)]
    for handshake in others:
        assert callers.begin("10.0.0.1", handshake, 1)
    assert [h.cancel_called for h in others] == [True] * 2 + [False] * (MAX_HANDSHAKES - 1)
    assert not honest.cancel_called


def test_what_an_owner_of_addresses_may_choose_is_one_source() -> None:
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:2") != source_of("2001:db8:0:1::1")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") != source_of("10.0.0.2")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")
