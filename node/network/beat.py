"""A beat for what a process does again and again: all of it at once, so that it wakes up once and not once for each."""

import trio


async def next_beat(seconds: float) -> None:
    """Wait for the next multiple of so many seconds on trio's clock, which begins anywhere: processes do not beat together."""
    await trio.sleep_until((trio.current_time() // seconds + 1) * seconds)
