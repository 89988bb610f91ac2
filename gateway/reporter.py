"""What the gateway tells of itself over the broker, every second."""

import asyncio
import time
from collections.abc import Iterable

from gateway.database import now_ms
from gateway.service import Gateway
from node.client.line import BrokerUnavailable
from node.process import this_process
from node.protocol.codec import encode
from node.protocol.reports import GatewayFigures, Latency, Notable, Report
from node.protocol.topics import reports_topic


class Reporter:
    """Reads the gateway's parts, changes nothing."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self._gateway = gateway
        self._name = name

    async def run(self) -> None:
        """Report, until cancelled."""
        greeted = False
        while True:
            await asyncio.sleep(1)
            if self._gateway.broker.connected:
                if not greeted:
                    greeted = await self.notable("gateway started")
                await self._publish(self.figures())

    async def notable(self, text: str) -> bool:
        """Publish a line for the feed; whether it went out."""
        return await self._publish(Notable(text))

    async def _publish(self, content: GatewayFigures | Notable) -> bool:
        report = Report(self._name, now_ms(), content)
        try:
            await self._gateway.broker.publish(reports_topic(self._gateway.genesis.network), encode(report))
        except BrokerUnavailable:
            return False
        return True

    def figures(self) -> GatewayFigures:
        """As of now."""
        gateway = self._gateway
        since = time.monotonic() - 60
        recent = [(milliseconds, cross) for at, milliseconds, cross in gateway.ledger.latencies if at >= since]
        return GatewayFigures(
            process=this_process(self._doing()),
            sign_ups=gateway.identity.accounts.sign_ups,
            logins=gateway.identity.sessions.logins,
            purchases=gateway.payments.purchases,
            transfers=gateway.payments.transfers,
            balance_reads=gateway.wallets.balance_reads,
            pending=len(gateway.relay),
            intra=latency(milliseconds for milliseconds, cross in recent if not cross),
            cross=latency(milliseconds for milliseconds, cross in recent if cross),
        )

    def _doing(self) -> str:
        if lacking := self._gateway.missing():
            return "waiting: " + ", ".join(lacking)
        pending = len(self._gateway.relay)
        return f"serving, {pending} transfers under way" if pending else "serving"


def latency(milliseconds: Iterable[float]) -> Latency | None:
    """Percentiles by nearest rank; None of nothing."""
    ascending = sorted(milliseconds)
    if not ascending:
        return None
    median, slow = (ascending[-(-len(ascending) * percent // 100) - 1] for percent in (50, 99))
    return Latency(p50_us=round(1000 * median), p99_us=round(1000 * slow))
