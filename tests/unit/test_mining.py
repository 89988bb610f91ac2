"""The miner: right nonces, cheap when easy, cancelled at once, and no process left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import psutil
import pytest
import trio
import trio.testing

from node.mining import SLICE, SLICES, Miner
from node.protocol.puzzle import is_solution, search
from tests.waiting import trio_until

EASY, HARD, HOPELESS = 4, 16, 200


def prefix_beyond_first_slices() -> bytes:
    """One whose first solution only the workers reach."""
    numbers = (number.to_bytes(32, "big") for number in range(100))
    return next(prefix for prefix in numbers if search(prefix, HARD, 0, SLICE * SLICES) is None)


def workers_of(pid: int) -> list[psutil.Process]:
    """The live worker processes below a process."""
    workers = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in child.cmdline()):
                workers.append(child)
    return workers


def worker_processes() -> list[psutil.Process]:
    return workers_of(os.getpid())


async def test_easy_work_needs_no_process() -> None:
    miner = Miner(workers=2)
    nonce = await miner.solve(b"prefix", EASY)
    assert is_solution(b"prefix", nonce, EASY)
    assert miner.hashes == int.from_bytes(nonce, "big") + 1
    assert await miner.solve(b"prefix", 0) == bytes(8)
    assert not worker_processes()


async def test_hard_work_is_solved_by_workers_that_end_with_the_miner(nursery: trio.Nursery) -> None:
    miner = Miner(workers=2)
    scope: trio.CancelScope = await nursery.start(run_in_scope, miner)
    prefix = prefix_beyond_first_slices()
    with trio.fail_after(30):
        nonce = await miner.solve(prefix, HARD)
    assert is_solution(prefix, nonce, HARD)
    assert worker_processes()
    assert miner.hashes > SLICE * SLICES
    scope.cancel()
    await trio_until(lambda: not worker_processes())


def test_a_worker_loads_no_more_than_it_needs() -> None:
    heavy = "print({'trio', 'libp2p', 'redis', 'pytest'} & set(__import__('sys').modules))"
    loaded = subprocess.check_output([sys.executable, "-c", f"import {search.__module__}; {heavy}"], text=True)
    assert loaded == "set()\n"


async def test_cancelled_work_stops_and_leaves_workers_for_the_next(nursery: trio.Nursery) -> None:
    miner = Miner(workers=1)
    await nursery.start(run_in_scope, miner)
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when, scope, lambda: miner.hashes > 2 * SLICE * SLICES)
        await miner.solve(b"stale", HOPELESS)
    assert scope.cancelled_caught
    pids = {worker.pid for worker in worker_processes()}

    with trio.fail_after(10):
        await trio.testing.wait_all_tasks_blocked(0.3)  # a chunk takes a tenth of that
    prefix = prefix_beyond_first_slices()
    with trio.fail_after(30):
        assert is_solution(prefix, await miner.solve(prefix, HARD), HARD)
    assert {worker.pid for worker in worker_processes()} == pids
    nursery.cancel_scope.cancel()


async def test_a_worker_that_dies_is_replaced(nursery: trio.Nursery) -> None:
    miner = Miner(workers=1)
    await nursery.start(run_in_scope, miner)
    nursery.start_soon(miner.solve, b"prefix", HOPELESS)
    await trio_until(lambda: miner.hashes > 2 * SLICE * SLICES)
    (worker,) = worker_processes()
    worker.kill()
    await trio_until(lambda: worker not in worker_processes())
    before = miner.hashes
    await trio_until(lambda: miner.hashes > before + 100_000)
    nursery.cancel_scope.cancel()


async def test_without_run_hard_work_is_an_error_not_a_hang() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        await Miner(workers=1).solve(b"prefix", HOPELESS)


MINING = """
import sys, trio
from node.mining import Miner
async def main():
    miner = Miner(workers=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(miner.run)
        nursery.start_soon(miner.solve, b"prefix", 200)
        while miner.hashes < 200_000:
            await trio.sleep(0.01)
        print("mining", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def start_mining() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MINING], stdout=subprocess.PIPE)


async def test_workers_of_a_killed_process_end_by_themselves_and_not_on_ctrl_c() -> None:
    process = start_mining()
    assert process.stdout is not None
    try:
        assert await trio.to_thread.run_sync(process.stdout.readline) == b"mining\n"
        workers, everything = workers_of(process.pid), psutil.Process(process.pid).children(recursive=True)
        assert workers
        worked = [worker.cpu_times().user for worker in workers]
        for worker in workers:
            worker.send_signal(signal.SIGINT)  # as a terminal's Ctrl-C does, to the whole group
        await trio_until(lambda: all(worker.cpu_times().user > before for worker, before in zip(workers, worked, strict=True)))
        assert all(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    finally:
        process.kill()
        process.wait()
    _, alive = await trio.to_thread.run_sync(partial(psutil.wait_procs, everything, timeout=10))
    assert not alive


async def run_in_scope(miner: Miner, *, task_status: object) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(miner.run)
            task_status.started(scope)  # type: ignore[attr-defined]


async def cancel_when(scope: trio.CancelScope, condition: Callable[[], object]) -> None:
    await trio_until(condition)
    scope.cancel()
