"""Plants faults in the core, one at a time and at random, and says who notices: the simulator, the unit tests, or nobody."""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from random import Random

from tests.mutation.planting import Fault, faults
from tests.mutation.running import ROOT, Ground, Result, Verdict, copy_of
from tests.mutation.telling import EQUIVALENT, as_json, described, equivalents, progress, survivors, table


def main(arguments: list[str] | None = None) -> int:
    """Run it. Returns the exit code: 1 when a fault survives that is not in the list of those that change nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=60, metavar="N", help="how many faults (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which ones (default %(default)s)")
    parser.add_argument("--within", default="", metavar="PATH", help="only in files whose path begins so: node/ledger")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, too")
    options = parser.parse_args(arguments)
    chosen = choose(options.seed, options.count, options.within)
    print(f"measuring what simulator and tests take without a fault, then {len(chosen)} faults", flush=True)
    results: list[Result] = []
    try:
        for result in judged(chosen, options.jobs):
            results.append(result)
            print(progress(len(results), len(chosen), result), flush=True)
    finally:
        if options.json:
            options.json.write_text(as_json(results))
        print(f"\n{table(results)}\n{survivors(results)}")
    return int(any(result.verdict is Verdict.SURVIVED for result in results))


def choose(seed: int, count: int, within: str) -> list[Fault]:
    """Some of all faults, without those known to change nothing."""
    known = equivalents(EQUIVALENT.read_text())
    found = [fault for fault in faults(ROOT) if fault.path.startswith(within)]
    Random(seed).shuffle(found)
    chosen: list[Fault] = []
    for fault in found:
        if len(chosen) < count and described(fault) not in known:
            chosen.append(fault)
    return chosen


def judged(chosen: list[Fault], jobs: int) -> Iterator[Result]:
    """Each fault's result, as it is known."""
    with ExitStack() as stack:
        folders = [stack.enter_context(copy_of(ROOT)) for _ in range(jobs)]
        ground = Ground.measure(folders[0])
        free: SimpleQueue[Ground] = SimpleQueue()
        for folder in folders:
            free.put(ground.at(folder))

        def judge(fault: Fault) -> Result:
            own = free.get()
            try:
                return own.judge(fault)
            finally:
                free.put(own)

        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        for done in as_completed([pool.submit(judge, fault) for fault in chosen]):
            yield done.result()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
