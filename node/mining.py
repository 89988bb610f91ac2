"""Proof of work: a few nonces tried on the spot, the rest by worker processes over disjoint ranges.

Workers are given short chunks, so that stale work costs at most one chunk per worker and nobody has to be killed for it:
to start a worker again would cost more than the chunk. They end when idle, and when this process is gone.
"""

from itertools import count

import structlog
import trio
from trio_parallel import BrokenWorkerError, WorkerContext, open_worker_context

from node.protocol.puzzle import search

SLICE, SLICES = 512, 8
"""Tried in this thread first, in slices of half a millisecond: enough for small difficulties, cheaper than a process."""

CHUNK = 32_768
"""Nonces per job of a worker: some 30 ms."""

IDLE_SECONDS = 30.0

log = structlog.get_logger()


class Miner:
    """Solves puzzles on up to ``workers`` processes, started when first needed. ``run`` in a nursery, then ``solve``."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._limiter = trio.CapacityLimiter(workers)
        self._context: WorkerContext | None = None
        self._nursery: trio.Nursery | None = None
        self.hashes = 0
        """Tried since start."""

    async def run(
        self,
        *,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,  # type: ignore[name-defined]  # old stubs, by libp2p
    ) -> None:
        """Provide workers until cancelled; the ones at work are killed then."""
        try:
            async with (
                open_worker_context(idle_timeout=IDLE_SECONDS, grace_period=1.0) as self._context,
                trio.open_nursery() as self._nursery,
            ):
                task_status.started()
                await trio.sleep_forever()
        except BrokenWorkerError as error:  # a signal to the whole group ended a worker before us
            log.debug("miner did not end by itself", error=str(error))
        finally:
            self._context = self._nursery = None

    async def solve(self, prefix: bytes, bits: int) -> bytes:
        """The nonce that gives ``prefix`` ``bits`` leading zero bits (``puzzle.search``). Cancel it when it is stale.

        Raises:
            RuntimeError: more than a few hashes are needed and ``run`` is not running.
        """
        for start in range(0, SLICE * SLICES, SLICE):
            nonce = search(prefix, bits, start, SLICE)
            self.hashes += _tried(nonce, start, SLICE)
            if nonce is not None:
                return nonce
            await trio.lowlevel.checkpoint()
        if self._nursery is None or self._context is None:
            raise RuntimeError("the miner is not running")
        job = _Job(prefix, bits)
        for _ in range(self._workers):
            self._nursery.start_soon(self._work, job, self._context)
        try:
            await job.solved.wait()
        finally:
            job.over = True
        return job.nonce

    async def _work(self, job: "_Job", context: WorkerContext) -> None:
        """One worker's share of a job, until somebody has solved it or nobody wants it any more."""
        while not job.over:
            start = next(job.starts)
            try:
                nonce = await context.run_sync(
                    search, job.prefix, job.bits, start, CHUNK, kill_on_cancel=True, limiter=self._limiter
                )
            except BrokenWorkerError as error:
                log.warning("miner died", error=str(error))
                await trio.sleep(1)
                continue  # its chunk is lost, there are others
            self.hashes += _tried(nonce, start, CHUNK)
            if nonce is not None and not job.over:
                job.nonce, job.over = nonce, True
                job.solved.set()


class _Job:
    def __init__(self, prefix: bytes, bits: int) -> None:
        self.prefix, self.bits = prefix, bits
        self.starts = count(SLICE * SLICES, CHUNK)
        self.solved = trio.Event()
        self.nonce = b""
        self.over = False


def _tried(nonce: bytes | None, start: int, length: int) -> int:
    return length if nonce is None else int.from_bytes(nonce, "big") - start + 1
