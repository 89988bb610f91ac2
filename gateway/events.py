"""What the gateway is doing, told to the dashboard over the broker every second."""

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import psutil

from gateway.broker import BrokerUnavailable
from gateway.ledger import now_ms
from node.protocol.codec import encode
from node.protocol.reports import Event
from node.protocol.topics import reports_topic

if TYPE_CHECKING:
    from gateway.service import Gateway


class Reporter:
    """Publishes ``stats`` once a second and ``notable`` events."""

    def __init__(self, gateway: "Gateway", name: str) -> None:
        self._gateway = gateway
        self._name = name
        self._process = psutil.Process()

    async def run(self) -> None:
        """Report, until cancelled."""
        greeted = False
        while True:
            await asyncio.sleep(1)
            if self._gateway.broker.connected:
                if not greeted:
                    greeted = await self.say("gateway started")
                await self._publish("stats", self._stats())

    async def say(self, text: str) -> bool:
        """Publish a line for the feed; whether it went out."""
        return await self._publish("notable", {"text": text})

    async def _publish(self, kind: str, data: dict[str, Any]) -> bool:
        event = Event("gateway", self._name, kind, now_ms(), data)
        try:
            await self._gateway.broker.publish(reports_topic(self._gateway.genesis.network), encode(event))
        except BrokerUnavailable:
            return False
        return True

    def _stats(self) -> dict[str, Any]:
        gateway = self._gateway
        ledger, payments = gateway.ledger, gateway.payments
        recent = time.monotonic() - 60
        all_ms = sorted(ms for at, ms, _ in ledger.latencies if at >= recent)
        cross_ms = sorted(ms for at, ms, cross in ledger.latencies if at >= recent and cross)
        return {
            "registrations": gateway.accounts.registrations,
            "logins": gateway.accounts.logins,
            "purchases": payments.purchases,
            "transfers": payments.transfers,
            **ledger.finished,
            "balance_reads": payments.balance_reads,
            "pending": len(gateway.outbox),
            "latency_p50_ms": percentile(all_ms, 0.5),
            "latency_p99_ms": percentile(all_ms, 0.99),
            "cross_latency_p50_ms": percentile(cross_ms, 0.5),
            "heights": dict(ledger.projection.heights),
            "cpu": time.process_time(),
            "memory": self._process.memory_info().rss,
            "pid": os.getpid(),
            "doing": self._doing(),
        }

    def _doing(self) -> str:
        if lacking := self._gateway.missing():
            return "waiting: " + ", ".join(lacking)
        pending = len(self._gateway.outbox)
        return f"serving, {pending} transfers under way" if pending else "serving"


def percentile(ascending: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie; 0 when there are none."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] if ascending else 0.0
