"""A beat for what a process does again and again: all of it at once, so that it wakes up once and not once for each."""

import random

import trio

_phase: trio.lowlevel.RunVar[float] = trio.lowlevel.RunVar("phase")


async def next_beat(seconds: float) -> None:
    """Wait for the next multiple of so many seconds, counted from anywhere: processes do not beat together."""
    try:
        phase = _phase.get()
    except LookupError:  # trio's clock begins anywhere, too, but at the same place in processes forked from one
        phase = random.uniform(0, 60)
        _phase.set(phase)
    now = trio.current_time()
    beat = ((now - phase) // seconds + 1) * seconds + phase
    await trio.sleep_until(beat if beat > now else beat + seconds)  # rounding may have found the one that is now
