"""The beat of a process: its own, and all of it at once."""

import subprocess
import sys

import trio
from trio.testing import MockClock

from node.network.beat import next_beat

FORKED = """
import os, time, trio
import node.network.beat
for _ in range(8):
    if os.fork() == 0:
        trio.run(node.network.beat.next_beat, 0.4)
        os.write(1, b"%f\\n" % (time.perf_counter() % 0.4))
        os._exit(0)
for _ in range(8):
    os.wait()
"""


async def test_what_a_process_does_again_and_again_it_does_at_the_same_time(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def beat(after: float) -> None:
        await trio.sleep(after)
        for _ in range(100):
            await next_beat(1.0)
            times.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for after in (0.0, 0.001, 0.002):
            nursery.start_soon(beat, after)
    assert times == [time for time in sorted(set(times)) for _ in range(3)]
    assert [round(later - earlier, 6) for earlier, later in zip(times[::3], times[3::3], strict=False)] == [1.0] * 99


def test_processes_forked_from_one_do_not_beat_together() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    times = sorted(map(float, done.stdout.split()))
    assert len(times) == 8
    assert times[-1] - times[0] > 0.02
