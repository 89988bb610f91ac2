"""From the broker to the collector, for ever: whatever happens to the connection, it is made again.

The dashboard reports once a second about itself, like every other process. It comes back on the same channel, so a
connection that brings nothing for a while is known to be dead, not idle.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from demo.collector import Collector
from node.process import this_process
from node.protocol.codec import encode
from node.protocol.reports import DashboardFigures, Report
from node.protocol.topics import blocks_topic, epoch_topic, reports_topic

MAX_SILENCE = 5.0
"""Seconds without a message after which the connection is given up."""
RETRY_FIRST, RETRY_LAST = 0.1, 2.0
"""Seconds between attempts to connect."""

log = structlog.get_logger()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class BrokerLost(Exception):
    """Nothing came over the connection for too long."""


def connect(url: str) -> Redis:
    """A client that does not retry by itself: a loss must be seen. Raises ValueError for a URL that is none."""
    return Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, retry=Retry(NoBackoff(), 0))


async def follow(client: Redis, collector: Collector) -> None:
    """Hand every message of the network to the collector. Never returns."""
    pause = RETRY_FIRST
    while True:
        try:
            await _listen(client, collector)
        except (RedisError, OSError, BrokerLost) as error:
            pause = RETRY_FIRST if collector.connected else min(2 * pause, RETRY_LAST)
            if collector.connected:
                log.warning("broker lost", error=str(error) or type(error).__name__)
            collector.connection(False, now_ms())
        await asyncio.sleep(pause)


async def _listen(client: Redis, collector: Collector) -> None:
    genesis = collector.chain.genesis
    reports, epoch = reports_topic(genesis.network).encode(), epoch_topic(genesis.network).encode()
    blocks = {blocks_topic(genesis.network, n).encode(): n for n in range(genesis.parameters.committees)}
    async with client.pubsub() as subscription:
        await subscription.subscribe(reports, epoch, *blocks)
        collector.connection(True, now_ms())
        heard = time.monotonic()
        while True:
            message = await subscription.get_message(timeout=1.0)
            if message is None:
                if time.monotonic() - heard > MAX_SILENCE:
                    raise BrokerLost(f"silent for {MAX_SILENCE:.0f} s")
                continue
            heard = time.monotonic()
            if message["type"] == "message":
                channel, body = message["channel"], message["data"]
                if channel == reports:
                    collector.report(body, now_ms())
                elif channel == epoch:
                    collector.announcement(body, now_ms())
                else:
                    collector.block(blocks[channel], body)
            await asyncio.sleep(0)  # a burst that is already here must not keep the pages waiting


async def report(client: Redis, collector: Collector, doing: Callable[[], str]) -> None:
    """Tell the network once a second what the dashboard itself is doing. Never returns."""
    topic = reports_topic(collector.chain.genesis.network)
    while True:
        report = Report("dashboard", now_ms(), DashboardFigures(process=this_process(doing())))
        with contextlib.suppress(RedisError, OSError):  # follow() notices and says so
            await client.publish(topic, encode(report))
        await asyncio.sleep(1)
