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
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_FRAME_BYTES
from node.protocol.reports import MAX_REPORT_BYTES, DashboardFigures, Report
from node.protocol.topics import asks_topic, blocks_topic, bulletins_topic, epoch_topic, reports_topic

_LOOKS = 10
"""A second, whether an epoch more is known."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def feed(line: Line, collector: Collector) -> None:
    """Hand every message of the network to the collector, once the line runs."""
    network = collector.genesis.network
    line.subscribe(reports_topic(network), MAX_REPORT_BYTES, lambda body: collector.report(body, now_ms()))
    line.subscribe(epoch_topic(network), MAX_FRAME_BYTES, lambda body: collector.announcement(body, now_ms()))
    line.subscribe(bulletins_topic(network), MAX_FRAME_BYTES, lambda body: collector.bulletin(body, now_ms()))
    for shard in range(collector.genesis.parameters.committees):  # who heard of the document first would miss blocks
        _hear(line, collector, Chain(1, shard))
    collector.on_document = partial(_listen, line, collector)
    line.on_change = lambda: collector.connection(line.connected, now_ms())


def _listen(line: Line, collector: Collector, document: EpochDocument) -> None:
    """To the chains of an epoch that has begun, and no more to those before."""
    ended = collector.epochs.documents[document.number - 2].electorates.values() if document.number > 1 else ()
    for electorate in ended:
        line.unsubscribe(blocks_topic(document.network, electorate.chain))
    for electorate in document.electorates.values():
        _hear(line, collector, electorate.chain)


def _hear(line: Line, collector: Collector, chain: Chain) -> None:
    topic = blocks_topic(collector.genesis.network, chain)
    line.subscribe(topic, MAX_BROKER_BODY_BYTES, partial(collector.block, chain.shard, epoch=chain.epoch))


async def ask(line: Line, collector: Collector) -> None:
    """Ask once a second for what is not known of the epochs, and at once when one more is. Never returns."""
    while True:
        known = len(collector.epochs.documents)
        with contextlib.suppress(BrokerUnavailable):
            for asked in collector.epochs.asks(time.monotonic_ns() // 1_000_000):
                await line.publish(asks_topic(collector.genesis.network), asked)
        for _ in range(_LOOKS):
            await asyncio.sleep(1 / _LOOKS)
            if len(collector.epochs.documents) > known:
                break


async def report(line: Line, collector: Collector, doing: Callable[[], str]) -> None:
    """Tell the network once a second what the dashboard itself is doing. Never returns."""
    topic = reports_topic(collector.genesis.network)
    while True:
        figures = DashboardFigures(process=this_process(doing()))
        with contextlib.suppress(BrokerUnavailable):  # the page says so
            await line.publish(topic, encode(Report("dashboard", now_ms(), figures)))
        await asyncio.sleep(1)
