"""A node's metrics for Prometheus.

Gauges and counters are read from the latest values at scrape time, so the runtime hands over its figures once a second and
the hot path makes no metric calls.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.network.metrics import Exporter
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


class Metrics(Exporter, Collector):
    """Holds a node's figures; they come out as ``shardpay_NAME``, counters as ``shardpay_NAME_total``."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, int] = {}
        self.registry.register(self)
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
        self.alive()

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client."""
        for name, text in HELP.items():
            if (value := self._values.get(name)) is not None:
                family = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
                yield family(f"shardpay_{name}", text, value=value)
