"""Prometheus metrics, read from the parts when scraped rather than counted along the way."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.service import Gateway

PREFIX = "shardpay_gateway_"


class Metrics(Collector):
    """The gateway's metrics."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._registry = CollectorRegistry()
        self._requests = Counter(PREFIX + "requests", "HTTP requests", ["method", "status"], registry=self._registry)
        self._counters: dict[tuple[str, int], Counter] = {}
        self._seconds = Histogram(PREFIX + "request_seconds", "Time to answer", registry=self._registry)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def request(self, method: str, status: int, begun: float) -> None:
        """Count an answered request that began at ``begun`` (monotonic)."""
        if (counter := self._counters.get((method, status))) is None:
            counter = self._counters[method, status] = self._requests.labels(method, str(status))
        counter.inc()
        self._seconds.observe(time.monotonic() - begun)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        gateway = self._gateway
        ledger, payments, wallets, accounts = gateway.ledger, gateway.payments, gateway.wallets, gateway.identity.accounts
        counts = {
            "sign_ups": (accounts.sign_ups, "Users signed up"),
            "logins": (gateway.identity.sessions.logins, "Logins"),
            "purchases": (payments.purchases, "Amounts minted to users"),
            "transfers": (payments.transfers, "Transfers accepted"),
            "balance_reads": (wallets.balance_reads, "Balances read"),
            "sent": (gateway.relay.sent, "Transactions published, repetitions included"),
        }
        for name, (value, text) in counts.items():
            yield CounterMetricFamily(PREFIX + name, text, value=value)
        if (report := gateway.money.reconciliation.latest) is not None:
            text = "Where money in and out did not add up when it was looked at last"
            yield GaugeMetricFamily(PREFIX + "money_differences", text, value=len(report.differences))
        finished = CounterMetricFamily(PREFIX + "finished", "Transfers that became final", labels=["status"])
        for status, count in ledger.finished.items():
            finished.add_metric([status], count)
        yield finished
        attempts = CounterMetricFamily(PREFIX + "webhook_attempts", "Attempts to deliver webhooks", labels=["succeeded"])
        for succeeded, count in gateway.events.deliveries.attempts.items():
            attempts.add_metric([str(succeeded).lower()], count)
        yield attempts
        yield GaugeMetricFamily(PREFIX + "follows", "1 when this process follows the chains", value=gateway.lease.held)
        yield GaugeMetricFamily(PREFIX + "streams", "Streams of events", value=len(gateway.events.streams))
        yield GaugeMetricFamily(PREFIX + "pending", "Transfers under way", value=len(gateway.relay))
        yield GaugeMetricFamily(PREFIX + "broker_connected", "1 when connected", value=gateway.broker.connected)
        heights = GaugeMetricFamily(PREFIX + "height", "Last block followed", labels=["shard"])
        epoch = GaugeMetricFamily(PREFIX + "epoch", "The epoch in force", value=len(gateway.epochs.documents))
        refused = CounterMetricFamily(PREFIX + "unproven_blocks", "Blocks refused", labels=["shard"])
        nonsense = CounterMetricFamily(
            PREFIX + "nonsense_blocks", "Certified blocks that make no sense: a captured shard's", labels=["shard"]
        )
        for shard, electorate in sorted(gateway.epochs.current.items()):
            follower = gateway.followers[electorate.chain]
            heights.add_metric([str(shard)], follower.height)
            refused.add_metric([str(shard)], follower.refused)
            nonsense.add_metric([str(shard)], follower.nonsense)
        yield epoch
        yield heights
        yield refused
        yield nonsense
