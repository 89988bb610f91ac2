"""The unit of all ratios: what a signature check costs on this machine while it is busy.

A check costs up to twice as much beside a load as alone: clock speed, caches and the other thread of a core are shared. So it is
timed during the load that it is compared with, by a process of the same priority, in short bursts, by the CPU time of its thread.
"""

import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from node.protocol.crypto import KeyPair, verify
from scripts.devnet.layout import ROOT

BURST = 32
"""Checks in a burst: a millisecond or two."""
PAUSE_SECONDS = 0.1


class Cost(Struct, frozen=True):
    """CPU seconds of one signature check: the median of all bursts, and the tenth and ninetieth percentile."""

    median: float
    low: float
    high: float


def cost_of(bursts: Sequence[float]) -> Cost:
    """Raises ValueError of none."""
    if not bursts:
        raise ValueError("no signature check was timed")
    ordered = sorted(bursts)
    return Cost(*(ordered[int(share * (len(ordered) - 1) + 0.5)] for share in (0.5, 0.1, 0.9)))


def burst() -> float:
    """CPU seconds of this thread for one check, the mean of a burst."""
    key, message = KeyPair(bytes(31) + b"\x01"), bytes(32)
    signature = key.sign(message)
    began = time.thread_time()
    for _ in range(BURST):
        verify(key.public, message, signature)
    return (time.thread_time() - began) / BURST


class Timed:
    """Filled when the ``with`` of ``checks_timed`` ends."""

    cost: Cost


@contextlib.contextmanager
def checks_timed() -> Iterator[Timed]:
    """Time checks in a process beside what happens in the ``with``. Raises ValueError when that is over at once."""
    timed = Timed()
    command = [sys.executable, "-m", "scripts.benchmark.checks"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()  # it is ready
            yield timed
        except BaseException:
            process.kill()
            raise
        output, _ = process.communicate()
    timed.cost = cost_of(json.loads(output))


def idle_cost(bursts: int = 20) -> Cost:
    """Of a check now, in this process, one burst after the other."""
    return cost_of([burst() for _ in range(bursts)])


def main() -> None:
    """Bursts until standard input is closed; then their costs as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    burst()
    print("ready", flush=True)
    bursts = []
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        bursts.append(burst())
    print(json.dumps(bursts))


if __name__ == "__main__":
    main()
