"""Waiting for a condition, with a deadline that a busy machine meets, too. No test sleeps and hopes."""

import time
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "what the test waits for", within: float = 30.0, pause: float = 0.02) -> T:
    """The first true value of ``condition``; fails after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(pause)
    return value


async def trio_until(condition: Callable[[], T], what: str = "what the test waits for", within: float = 30.0) -> T:
    """The same on trio's loop."""
    deadline = trio.current_time() + within
    while not (value := condition()):
        assert trio.current_time() < deadline, f"not within {within} s: {what}"
        await trio.sleep(0.01)
    return value
