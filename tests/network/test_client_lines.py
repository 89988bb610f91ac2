"""Clients' lines to the broker - that of asyncio programs and that of scripts - against a broker that lies about lengths."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
import uvloop

from node.client.line import BrokerUnavailable, Line
from node.client.unread import MAX_UNREAD_BYTES, Unread
from node.network.broker_url import BrokerUrl
from scripts.devnet.connection import Connection, ConnectionLost

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
PONG = b"+PONG\r\n"
CHUNK = bytes(1 << 20)
ANNOUNCED = 256
"""MiB."""


def head(topic: bytes, size: int) -> bytes:
    return b">3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n" % (len(topic), topic, size)


HUGE = [head(b"topic", ANNOUNCED << 20), *[CHUNK] * ANNOUNCED, b"\r\n", head(b"topic", 5) + b"small\r\n"]


@contextmanager
def broker(*said: bytes, resets: bool = False) -> Iterator[str]:
    """The URL of one that answers whatever comes first with this, every time. ``resets``: the connection, at the next word."""
    server = socket.create_server(("127.0.0.1", 0))

    def speak() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with suppress(OSError), connection:
                    connection.recv(65536)
                    for part in said:
                        connection.sendall(part)
                    while connection.recv(65536) and not resets:
                        pass
                    if resets:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield f"redis://:secret@127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def grown(before: int) -> int:
    """MiB."""
    return (int(psutil.Process().memory_info().rss) - before) >> 20


async def listened(url: str, until: str = "small") -> tuple[list[bytes], Line]:
    """What a line hears until this message."""
    line, heard, done = Line(url), list[bytes](), asyncio.Event()

    def hear(body: bytes) -> None:
        heard.append(body)
        if body == until.encode():
            done.set()

    line.subscribe("topic", 10, hear)
    task = asyncio.create_task(line.run())
    try:
        async with asyncio.timeout(20):
            await done.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return heard, line


def test_a_program_passes_over_a_message_of_any_length_and_hears_the_next() -> None:
    before = int(psutil.Process().memory_info().rss)
    with broker(HELLO, PONG, *HUGE) as url:
        heard, line = asyncio.run(listened(url))
    assert heard == [b"small"]
    assert grown(before) < 32
    assert not line.connected


def test_a_script_passes_over_a_message_of_any_length_and_hears_the_next() -> None:
    before = int(psutil.Process().memory_info().rss)
    with broker(HELLO, PONG, *HUGE) as url:
        connection = Connection(BrokerUrl(url), {b"topic": 10})
        message = connection.receive(20)
        connection.close()
    assert message is not None
    assert message.body == b"small"
    assert grown(before) < 32


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"$400000000\r\n", "beyond all bounds"),
        (b"-WRONGPASS for secret\r\n", "WRONGPASS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak"),
    ],
)
def test_what_no_good_broker_says_is_told_and_never_the_password(said: bytes, told: str) -> None:
    with broker(said) as url, pytest.raises(ConnectionLost, match=told) as lost:
        Connection(BrokerUrl(url), {b"topic": 10})
    assert "secret" not in str(lost.value)
    with broker(said) as url, pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(listened(url), 1))


def test_nothing_is_published_while_the_broker_is_away() -> None:
    with pytest.raises(BrokerUnavailable):
        asyncio.run(Line("redis://127.0.0.1:1").publish("topic", b""))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_breaks_while_we_publish_is_a_broker_unavailable(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def publish_until_lost(url: str, times: int) -> None:
        line, lost = Line(url), 0
        task = asyncio.create_task(line.run())
        async with asyncio.timeout(20):
            while lost < times:
                if not line.connected:
                    await asyncio.sleep(0.001)
                    continue
                try:
                    await line.publish("topic", bytes(1 << 20))
                except BrokerUnavailable:
                    lost += 1
                await asyncio.sleep(0)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError), "the line lives on"

    with broker(HELLO, PONG, resets=True) as url, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(publish_until_lost(url, times=20))


def test_what_nobody_reads_is_bounded_in_bytes_and_the_newest_lost() -> None:
    async def fill() -> list[bytes]:
        unread, part = Unread(), bytes(MAX_UNREAD_BYTES // 4)
        for number in range(6):
            unread.put(bytes([number]) + part[1:])
        first = await unread.take()
        unread.put(b"room again")
        return [*first, *await unread.take()]

    assert [body[:10] for body in asyncio.run(fill())] == [*(bytes([n]) + bytes(9) for n in range(4)), b"room again"]
