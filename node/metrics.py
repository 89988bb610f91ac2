"""Metrics for Prometheus, and the small HTTP server they are read from.

Gauges and counters are read from the latest values at scrape time, so the runtime hands over its figures once a second and
the hot path makes no metric calls. CPU, memory and open files of the process come from prometheus-client's own collector.
"""

from collections.abc import Iterable
from http import HTTPStatus

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from node.protocol.reports import COUNTERS, NodeFigures, numbers

HELP = {
    "shard": "Shard this node keeps",
    "epoch": "Epoch the node works in",
    "height": "Height of the last final block",
    "view": "Consensus view",
    "mempool": "Transactions waiting",
    "pending_commits": "Cross-shard transactions undecided or unapplied in this shard",
    "peers": "Connected peers",
    "latency_us": "Own proposals, from proposal to finalization, microseconds",
    "catching_up": "1 while fetching blocks it missed",
    "committed": "Transactions committed",
    "rejected": "Transactions rejected",
    "expired": "Transactions expired",
    "bundles_in": "Bundles received from other shards",
    "bundles_out": "Bundles sent to other shards",
    "bytes_in": "Bytes received from peers",
    "bytes_out": "Bytes sent to peers",
    "view_timeouts": "Views that timed out",
    "hashes": "Hashes tried while mining",
    "broker_dropped": "Broker messages dropped",
    "mempool_dropped": "Transactions dropped from a full mempool",
}
"""The figures of a node that Prometheus is given."""

STALE_SECONDS = 10.0
"""Without an update for so long the process counts as stuck."""

_REQUEST_BYTES, _REQUEST_SECONDS, _CONNECTIONS = 8192, 5.0, 16


class Metrics(Collector):
    """Holds a node's figures and serves them: as ``shardpay_NAME``, counters as ``shardpay_NAME_total``."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._updated: float | None = None
        self._connections = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self._writes = Histogram(
            "shardpay_storage_write_seconds",
            "Durable writes, fsync included",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self._broker = Gauge("shardpay_broker_connected", "1 while the broker answers", registry=self.registry)
        self._bad = Counter("shardpay_broker_malformed", "Broker messages that could not be read", registry=self.registry)

    def write_seconds(self, seconds: float) -> None:
        """Count one durable write."""
        self._writes.observe(seconds)

    def bad_broker_message(self) -> None:
        """Count a broker message that could not be read."""
        self._bad.inc()

    def update(self, figures: NodeFigures, broker_connected: bool) -> None:
        """Take over the figures of now. Call once a second: it is also the sign of life behind /healthz."""
        self._values = numbers(figures)
        self._broker.set(broker_connected)
        self._updated = trio.current_time()

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client."""
        for name, text in HELP.items():
            if (value := self._values.get(name)) is not None:
                family = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
                yield family(f"shardpay_{name}", text, value=value)

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: "trio.TaskStatus[int]" = trio.TASK_STATUS_IGNORED,  # type: ignore[name-defined]  # old stubs, by libp2p
    ) -> None:
        """Serve GET /metrics and /healthz (503 when stuck) until cancelled; ``started`` with the port.

        Raises:
            OSError: cannot listen there; the text says where and why.
        """
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise OSError(error.errno, f"cannot serve metrics on {host} port {port}: {error.strerror or error}") from None
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        """One request, one answer, close: whatever a client does here must not harm the node."""
        if self._connections >= _CONNECTIONS:
            await stream.aclose()
            return
        self._connections += 1
        try:
            with trio.move_on_after(_REQUEST_SECONDS):
                await stream.send_all(self._response(await _request_line(stream)))
        except trio.BrokenResourceError:
            pass  # gone
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    def _response(self, request: list[bytes]) -> bytes:
        match request:
            case [b"GET" | b"HEAD", target, _]:
                status, kind, body = self._page(target.partition(b"?")[0])
            case _:
                status, kind, body = HTTPStatus.BAD_REQUEST, "text/plain", b"bad request\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if request[:1] == [b"HEAD"] else body)

    def _page(self, path: bytes) -> tuple[HTTPStatus, str, bytes]:
        if path == b"/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.registry)
        if path == b"/healthz":
            if self._updated is None:
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"starting\n"
            if (silent := trio.current_time() - self._updated) > STALE_SECONDS:
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"stuck for {silent:.0f} s\n".encode()
            return HTTPStatus.OK, "text/plain", b"ok\n"
        return HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics and /healthz\n"


async def _request_line(stream: trio.SocketStream) -> list[bytes]:
    """Read a request's head and split its first line; empty when it is too long or cut off."""
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some(_REQUEST_BYTES)
        head += chunk
        if not chunk or len(head) > _REQUEST_BYTES:
            return []
    return head.partition(b"\r\n")[0].split(b" ")
