"""Between the broker and the collector: what it takes in, and what the dashboard tells of itself, like every other process."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from demo.collector import Collector
from node.client.line import BrokerUnavailable, Line
from node.process import this_process
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_FRAME_BYTES
from node.protocol.reports import MAX_REPORT_BYTES, DashboardFigures, Report
from node.protocol.topics import blocks_topic, epoch_topic, reports_topic


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def feed(line: Line, collector: Collector) -> None:
    """Hand every message of the network to the collector, once the line runs."""
    genesis = collector.genesis
    line.subscribe(reports_topic(genesis.network), MAX_REPORT_BYTES, lambda body: collector.report(body, now_ms()))
    line.subscribe(epoch_topic(genesis.network), MAX_FRAME_BYTES, lambda body: collector.announcement(body, now_ms()))
    for shard in range(genesis.parameters.committees):
        line.subscribe(blocks_topic(genesis.network, Chain(1, shard)), MAX_BROKER_BODY_BYTES, partial(collector.block, shard))
    line.on_change = lambda: collector.connection(line.connected, now_ms())


async def report(line: Line, collector: Collector, doing: Callable[[], str]) -> None:
    """Tell the network once a second what the dashboard itself is doing. Never returns."""
    topic = reports_topic(collector.genesis.network)
    while True:
        figures = DashboardFigures(process=this_process(doing()))
        with contextlib.suppress(BrokerUnavailable):  # the page says so
            await line.publish(topic, encode(Report("dashboard", now_ms(), figures)))
        await asyncio.sleep(1)
