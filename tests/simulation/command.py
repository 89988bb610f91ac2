"""scripts/simulate: whole networks of real replicas through bad days, one seed each."""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

import msgspec

from tests.simulation.faults import draw
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Plan
from tests.simulation.run import Verdict, simulate
from tests.simulation.shrink import shrink
from tests.simulation.story import Story

Task = tuple[int, str | None]


def main(arguments: list[str] | None = None) -> int:
    """Run it. Returns the exit code: 1 when an invariant was violated."""
    options = _parse(arguments)
    if options.list_mutants:
        for name, mutant in MUTANTS.items():
            print(f"{name:32} {mutant.what} (caught by a seed from {mutant.first} to {mutant.within})")
        return 0
    failing = _run_seeds(options)
    if failing is None:
        return 0
    print(f"\nseed {failing.plan.seed} violates: {failing.violation}")
    again = simulate(failing.plan, options.mutant)
    same = "replays bit for bit" if again.digest == failing.digest else "DOES NOT REPLAY"
    print(f"{same} (digest {failing.digest[:16]}); making it smaller ...", flush=True)
    smallest = shrink(failing, lambda plan: simulate(plan, options.mutant))
    story = Story()
    simulate(smallest.plan, options.mutant, story)
    print(f"smallest run that still violates: {smallest.violation}\n{describe_plan(smallest.plan)}\n\n{story.tell()}")
    return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many runs (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="S", help="seed of the first run (default %(default)s)")
    parser.add_argument("--mutant", choices=MUTANTS, metavar="NAME", help="run with one rule of the core taken away")
    parser.add_argument("--list-mutants", action="store_true", help="the names, and what each does")
    parser.add_argument("--story", action="store_true", help="tell what happened in the first seed, violation or not")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (default %(default)s)")
    return parser.parse_args(arguments)


def _run_seeds(options: argparse.Namespace) -> Verdict | None:
    """Run the seeds until one fails, saying how far they are. Returns the first that failed."""
    if options.story:
        story = Story()
        plan = plan_of(options.first_seed, options.mutant)
        verdict = simulate(plan, options.mutant, story)
        print(f"{describe_plan(plan)}\n\n{story.tell()}")
        return verdict if verdict.violation else None
    begun, last, used = time.monotonic(), 0.0, 0.0
    tasks = [(seed, options.mutant) for seed in range(options.first_seed, options.first_seed + options.seeds)]
    blocks = transactions = done = 0
    failing: Verdict | None = None
    for verdict, seconds in _verdicts(tasks, options.jobs):
        done, used = done + 1, used + seconds
        blocks, transactions = blocks + verdict.blocks, transactions + verdict.transactions
        if verdict.violation:
            failing = verdict
        now = time.monotonic()
        if failing or done == len(tasks) or now - last > (0.2 if sys.stdout.isatty() else 10):
            last = now
            _progress(done, len(tasks), done / used, blocks, transactions, now - begun, int(failing is not None))
        if failing:
            break
    print()
    return failing


def _progress(done: int, of: int, rate: float, blocks: int, transactions: int, seconds: float, violations: int) -> None:
    filled = 20 * done // of
    line = (
        f"[{'#' * filled}{'.' * (20 - filled)}] {done}/{of} seeds, {rate:.1f} seeds/s per core, {blocks} blocks, "
        f"{transactions} transactions, {seconds:.0f} s, {violations} violations"
    )
    print(f"\r\x1b[K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _verdicts(tasks: list[Task], jobs: int) -> Iterator[tuple[Verdict, float]]:
    if jobs == 1:
        yield from map(_run, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_run, tasks, chunksize=4)


def _run(task: Task) -> tuple[Verdict, float]:
    seed, mutant = task
    gc.set_threshold(100_000)  # a network has many objects and few cycles: an eighth of the time
    begun = time.process_time()
    return simulate(plan_of(seed, mutant), mutant), time.process_time() - begun


def plan_of(seed: int, mutant: str | None) -> Plan:
    """The mixed run of a seed; for a mutant, with the liars that it takes."""
    return draw(seed) if mutant is None else MUTANTS[mutant].plan(seed)


def describe_plan(plan: Plan) -> str:
    """The plan as text: what is out of the ordinary."""
    lines = [
        f"seed {plan.seed}: {plan.committees} committees of {plan.size}, {len(plan.transactions)} transactions, {plan.active} ms"
    ]
    lines += [f"  {name}: {getattr(plan, name)}" for name in ("links", "broker")]
    lines += [f"  liar {'abcdefgh'[node // plan.size]}{node % plan.size}: {', '.join(how)}" for node, how in plan.byzantine]
    lines += [f"  {fault}" for fault in plan.faults]
    lines += [f"  messages come {plan.timing}"] if plan.timing else []
    lines += [f"  limits {plan.limits}"] if plan.limits else []
    lines += ["  a client lies"] if plan.swindled else []
    lines += ["  one shard is captured"] if plan.captured else []
    lines += [f"  the coordinator lies: {', '.join(plan.lies)}"] if plan.lies else []
    lines.append(f"  parameters {msgspec.json.encode(plan.parameters).decode()}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted.")
        os._exit(130)
