"""Where the CPU of nodes and gateway goes during a load, by part: what ``profiled`` samples in each, added up."""

import contextlib
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scripts.benchmark.load import BenchError
from scripts.benchmark.network import Network
from scripts.benchmark.profiled import THREAD

ANSWER_SECONDS = 20.0
SMALLEST_SHARE = 0.01
"""Parts below are shown together."""
DEAREST = 3
"""Files named of each part."""
REST = "rest"


class Profile:
    """Filled when the ``with`` of ``sampled`` ends: seconds of CPU by place, of all its processes; empty when not asked for."""

    seconds: Mapping[str, float] = {}


@contextlib.contextmanager
def sampled(network: Network, *names: str) -> Iterator[Profile]:
    """Sample programs during the ``with``, if the network was started for that. Raises BenchError when one does not tell."""
    profile = Profile()
    if not network.is_profiled:
        yield profile
        return
    before = ask(network, names)
    yield profile
    after = ask(network, names)
    profile.seconds = {place: spent for place, value in after.items() if (spent := value - before.get(place, 0.0)) > 0}


def ask(network: Network, names: Iterable[str]) -> dict[str, float]:
    """Seconds of CPU by place that the programs have used since they started, added up. Raises BenchError."""
    outputs = {name: network.profile_of(name) for name in names}
    for output in outputs.values():
        output.unlink(missing_ok=True)
    for pid in network.pids(*outputs):
        os.kill(pid, signal.SIGUSR2)
    total, deadline = defaultdict[str, float](float), time.monotonic() + ANSWER_SECONDS
    for name, output in outputs.items():
        while not output.exists():
            if time.monotonic() > deadline:
                raise BenchError(f"{name} does not tell where its CPU time goes")
            time.sleep(0.01)
        for place, seconds in json.loads(output.read_text()).items():
            total[place] += seconds
    return total


def profile_figures(seconds: Mapping[str, float], cpu_us: float) -> list[dict[str, Any]]:
    """By part, the dearest first. ``cpu_us``: of a payment, or of what else it is divided by, in microseconds."""
    parts = defaultdict[str, dict[str, float]](dict)
    for place, spent in seconds.items():
        parts[part_of(place)][place] = spent
    whole = sum(seconds.values()) or 1.0
    for part in [part for part, places in parts.items() if sum(places.values()) < SMALLEST_SHARE * whole]:
        parts[REST] |= parts.pop(part)
    rows = [(part, sum(places.values()) / whole, places) for part, places in parts.items()]
    rows.sort(key=lambda row: (row[0] != REST, row[1]), reverse=True)
    return [
        {
            "part": part,
            "share": round(share, 3),
            "us": round(share * cpu_us, 1),
            "dearest": sorted(places, key=lambda place: -places[place])[:DEAREST],
        }
        for part, share, places in rows
    ]


def part_of(place: str) -> str:
    """A file's folder, a library as it is; so are files that lie in no folder but the package's. All threads but the main one are
    one part: what a thread has done is put down to its name of a little later, when it may do something else, or nothing."""
    if place.startswith(THREAD):
        return "threads"
    folder = place.rpartition("/")[0]
    return folder if "/" in folder else place
