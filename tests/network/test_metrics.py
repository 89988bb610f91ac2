"""What Prometheus and a health check see of a process."""

from contextlib import suppress

import pytest
import trio

from node.metrics import Metrics
from node.network.metrics import MAX_CONNECTIONS, STALE_SECONDS, Exporter
from tests.figures import NODE, changed


async def request(port: int, text: bytes) -> bytes:
    answer = b""
    with trio.fail_after(20):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(text)
            with suppress(trio.BrokenResourceError):  # closed before it read all we sent
                while chunk := await stream.receive_some(65536):
                    answer += chunk
    return answer


async def get(port: int, path: str) -> bytes:
    return await request(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
async def serving(nursery: trio.Nursery) -> tuple[Metrics, int]:
    metrics = Metrics()
    return metrics, await nursery.start(metrics.serve, "127.0.0.1", 0)


async def test_figures_come_out_as_last_updated_and_a_taken_port_is_named(serving: tuple[Metrics, int]) -> None:
    metrics, port = serving
    with pytest.raises(OSError, match=f"cannot serve metrics on 127.0.0.1 port {port}"):
        await Exporter().serve("127.0.0.1", port)
    metrics.update(changed(NODE, height=41), True)
    metrics.update(changed(NODE, height=42, committed=10, catching_up=True, latency_us=None), False)
    metrics.write_seconds(0.004)
    metrics.bad_broker_message()
    page = (await get(port, "/metrics")).decode()
    assert page.startswith("HTTP/1.1 200 OK\r\n")
    for line in (
        "shardpay_height 42.0",
        "shardpay_committed_total 10.0",
        "shardpay_catching_up 1.0",
        "shardpay_broker_connected 0.0",
        'shardpay_storage_write_seconds_bucket{le="0.005"} 1.0',
        "shardpay_broker_malformed_total 1.0",
        "process_cpu_seconds_total ",
    ):
        assert f"\n{line}" in page
    assert "latency" not in page


async def test_health_is_bad_until_the_first_update_and_when_updates_stop(
    serving: tuple[Metrics, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, port = serving
    assert b" 503 " in await get(port, "/healthz")
    metrics.update(NODE, True)
    assert b" 200 " in await get(port, "/healthz")
    now = trio.current_time()
    monkeypatch.setattr(trio, "current_time", lambda: now + STALE_SECONDS + 1)
    assert b" 503 " in await get(port, "/healthz")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"\xff\x00\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 10_000, b"400"),
    ],
)
async def test_nonsense_is_answered_and_does_no_harm(serving: tuple[Metrics, int], sent: bytes, status: bytes) -> None:
    _, port = serving
    answer = await request(port, sent)
    assert answer.split(b" ")[1:2] in ([status], [])  # nothing when the connection was reset over unread bytes
    assert b" 200 " in await get(port, "/metrics")


async def test_idle_connections_are_few_and_end(serving: tuple[Metrics, int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, port = serving
    monkeypatch.setattr("node.network.metrics.REQUEST_SECONDS", 3.0)
    streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
    assert await get(port, "/metrics") == b""  # one too many
    with trio.fail_after(20):
        assert [await stream.receive_some(1) for stream in streams] == [b""] * MAX_CONNECTIONS
    assert b" 200 " in await get(port, "/metrics")
    for stream in streams:
        await stream.aclose()
