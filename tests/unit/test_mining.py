"""The miner: right nonces, cheap when easy, cancelled at once, and no process left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def workers_of(pid: int) -> list[psutil.Process]:
    """The live worker processes below a process."""
    workers = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in child.cmdline()):
                workers.append(child)
    return workers


async def test_easy_work_needs_no_process_and_hard_work_without_run_is_an_error_not_a_hang() -> None:
    miner = Miner(workers=2)
    nonce = await miner.solve(b"prefix", EASY)
    assert is_solution(b"prefix", nonce, EASY)
    assert miner.hashes == int.from_bytes(nonce, "big") + 1
    assert await miner.solve(b"prefix", 0) == bytes(8)
    assert not workers_of(os.getpid())
    with pytest.raises(RuntimeError, match="not running"):
        await miner.solve(b"prefix", HOPELESS)


async def test_stale_work_stops_a_dead_worker_is_replaced_and_all_end_with_the_miner() -> None:
    miner = Miner(workers=1)
    async with trio.open_nursery() as running:
        await running.start(miner.run)
        with trio.fail_after(30):
            async with trio.open_nursery() as stale:
                stale.start_soon(miner.solve, b"stale", HOPELESS)
                await trio_until(lambda: miner.hashes > 2 * SLICE * SLICES)
                stale.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.3)  # a chunk takes a tenth of that
            (worker,) = workers_of(os.getpid())
            numbers = (number.to_bytes(32, "big") for number in range(100))
            prefix = next(prefix for prefix in numbers if search(prefix, HARD, 0, SLICE * SLICES) is None)
            assert is_solution(prefix, await miner.solve(prefix, HARD), HARD)
        assert workers_of(os.getpid()) == [worker], "the same works on what is next"

        before = miner.hashes
        running.start_soon(miner.solve, b"prefix", HOPELESS)
        await trio_until(lambda: miner.hashes > before + 100_000)
        worker.kill()
        await trio_until(lambda: worker not in workers_of(os.getpid()))
        before = miner.hashes
        await trio_until(lambda: miner.hashes > before + 100_000)
        running.cancel_scope.cancel()
    await trio_until(lambda: not workers_of(os.getpid()))


def test_a_worker_loads_no_more_than_it_needs() -> None:
    heavy = "print({'trio', 'libp2p', 'redis', 'pytest'} & set(__import__('sys').modules))"
    loaded = subprocess.check_output([sys.executable, "-c", f"import {search.__module__}; {heavy}"], text=True)
    assert loaded == "set()\n"


MINING = """
import trio
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


@pytest.fixture
def mining() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", MINING], stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_workers_of_a_killed_process_end_by_themselves_and_not_on_ctrl_c(mining: "subprocess.Popen[bytes]") -> None:
    assert mining.stdout is not None
    assert await trio.to_thread.run_sync(mining.stdout.readline) == b"mining\n"
    workers, everything = workers_of(mining.pid), psutil.Process(mining.pid).children(recursive=True)
    assert workers
    worked = {worker: worker.cpu_times().user for worker in workers}
    for worker in workers:
        worker.send_signal(signal.SIGINT)  # as a terminal's Ctrl-C does, to the whole group
    await trio_until(lambda: all(worker.cpu_times().user > before for worker, before in worked.items()))
    assert all(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    mining.kill()
    mining.wait()
    _, alive = await trio.to_thread.run_sync(partial(psutil.wait_procs, everything, timeout=10))
    assert not alive
