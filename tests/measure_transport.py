"""What messages between two processes cost: ``python -m tests.measure_transport``.

CPU of both ends together, in microseconds and in checks of a signature, timed beside it: another machine, or a busier one, has
other microseconds. In each exchange one end sends a number of frames at once, and the other answers with a small one; that is
half of what an exchange of lone messages costs.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

import structlog
import trio

from node.network.events import Message
from node.network.transport import Transport
from node.protocol.crypto import KeyPair, verify
from scripts.devnet.layout import ROOT

HERE, THERE = (KeyPair(sha256(name).digest()) for name in (b"here", b"there"))
ANSWER, TELL = b"!", b"?"
"""With which a frame begins that is to be answered, and one whose receiver is to tell its CPU time."""
SHAPES = [("lone, 250 bytes", 1, 250), ("fifty, 250 bytes", 50, 250), ("lone, 64 KiB", 1, 64 << 10), ("lone, 1 MiB", 1, 1 << 20)]
"""Frames in an exchange, and bytes of each."""


@asynccontextmanager
async def host(key: KeyPair) -> AsyncIterator[Transport]:
    async with trio.open_nursery() as nursery:
        transport = Transport(key, "/ip4/127.0.0.1/tcp/0", lambda _: True)
        await nursery.start(transport.run)
        yield transport
        nursery.cancel_scope.cancel()


async def answer() -> None:
    """The other end. Prints its address, and its CPU time when asked."""
    async with host(THERE) as transport:
        print(transport.addresses[0], flush=True)
        async for item in transport.inbox:
            if isinstance(item, Message) and item.frame[:1] == ANSWER:
                transport.send(item.peer, item.frame[:250])
            elif isinstance(item, Message) and item.frame[:1] == TELL:
                print(time.process_time(), flush=True)


async def exchange(transport: Transport, frames: list[bytes], times: int) -> None:
    for _ in range(times):
        for frame in frames:
            assert transport.send(THERE.public, frame)
        assert isinstance(await transport.inbox.receive(), Message)


def check_seconds() -> float:
    """CPU of one check of a signature."""
    signature, began = HERE.sign(bytes(32)), time.process_time()
    for _ in range(300):
        assert verify(HERE.public, bytes(32), signature)
    return (time.process_time() - began) / 300


async def measure(told: Callable[[], str], seconds: float) -> None:
    async def spent() -> float:
        transport.send(THERE.public, TELL)
        return time.process_time() + float(await trio.to_thread.run_sync(told))

    async with host(HERE) as transport:
        transport.connect(THERE.public, [told().strip()])
        await transport.inbox.receive()
        for name, count, size in SHAPES:
            frames = [bytes(size)] * (count - 1) + [ANSWER + bytes(size - 1)]
            await exchange(transport, frames, 50)
            check, times, before, began = check_seconds(), 0, await spent(), time.monotonic()
            while time.monotonic() < began + seconds:
                await exchange(transport, frames, 10)
                times += 10
            messages = times * (2 if (count, size) == (1, 250) else count)
            each, check = (await spent() - before) / messages, (check + check_seconds()) / 2
            print(f"{name:16} {each * 1e6:8.1f} us each = {each / check:6.2f} checks of {check * 1e6:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.measure_transport", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each shape")
    parser.add_argument("--answer", action="store_true", help="be the other end")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.answer:
        trio.run(answer)
        return
    command = [sys.executable, "-m", "tests.measure_transport", "--answer"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout
        try:
            trio.run(measure, other.stdout.readline, arguments.seconds)
        finally:
            other.kill()


if __name__ == "__main__":
    main()
