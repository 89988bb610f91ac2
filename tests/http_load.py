"""A cheap HTTP client: a closed loop over connections that stay open, with requests that were written beforehand.

``python -m tests.http_load`` reads a ``Job`` as JSON from standard input and writes a ``Result`` to standard output.
"""

import asyncio
import sys
import time
from collections import Counter
from typing import cast

import msgspec
import uvloop
from msgspec import Struct


class Job(Struct):
    """Requests (whole, as text) for one server; ``clients`` connections take them in turn."""

    host: str
    port: int
    clients: int
    requests: list[str]


class Result(Struct):
    """``answers``: how many by HTTP status. ``bodies``: the last of each. Times in seconds; ``cpu``: of this process."""

    seconds: float
    cpu: float
    answers: dict[str, int]
    bodies: dict[str, str]
    latencies: list[float]


class _Client(asyncio.Protocol):
    def __init__(self, job: Job, result: Result, done: "asyncio.Future[None]") -> None:
        self._job, self._result, self._done = job, result, done
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._buffer = b""
        self._result.latencies.append(time.perf_counter() - self._sent)
        status = head[9:12].decode()
        self._result.answers[status] = self._result.answers.get(status, 0) + 1
        self._result.bodies[status] = body.decode()
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("closed by the server"))

    def _next(self) -> None:
        assert self._transport is not None
        if not self._job.requests:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._job.requests.pop().encode())


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    return int(lowered[start : lowered.find(b"\r\n", start)] if b"\r\n" in lowered[start:] else lowered[start:])


async def run(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    result = Result(0.0, 0.0, Counter(), {}, [])
    began, used = time.perf_counter(), time.process_time()
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(job.clients)]
    for end in ends:
        await loop.create_connection(lambda end=end: _Client(job, result, end), job.host, job.port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    result.seconds, result.cpu = time.perf_counter() - began, time.process_time() - used
    return result


if __name__ == "__main__":
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(run(job))))
