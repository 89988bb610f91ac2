"""What the processes say they are doing, as one line for a terminal. Display only: reports are not signed."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from node.protocol.codec import DecodeError
from node.protocol.genesis import Genesis, Phase
from node.protocol.reports import MAX_REPORT_BYTES, CoordinatorFigures, NodeFigures, ReplicaFigures, Report, read_report
from node.protocol.topics import reports_topic
from scripts.devnet.client import Client

MAX_SOURCES = 1024
FRESH_SECONDS = 4.0
MAX_SHARDS_SHOWN = 4


class View:
    """The latest figures of each node and the coordinator, and the rate of transactions. ``now``: seconds of any steady clock."""

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[float, NodeFigures]] = {}
        self._coordinator: tuple[float, CoordinatorFigures] | None = None
        self._committed: dict[int, tuple[float, int]] = {}
        self._rate: dict[int, float] = {}

    def add(self, report: Report, now: float) -> None:
        figures = report.content
        if isinstance(figures, CoordinatorFigures):
            self._coordinator = (now, figures)
        elif isinstance(figures, NodeFigures) and (len(self._nodes) < MAX_SOURCES or report.source in self._nodes):
            self._nodes[report.source] = (now, figures)
            if figures.replica is not None:
                self._count(figures.replica, now)

    def _count(self, replica: ReplicaFigures, now: float) -> None:
        """The rate of a shard, from the member that is furthest, over a second or more."""
        shard = replica.shard
        since, before = self._committed.setdefault(shard, (now, replica.committed))
        if now - since >= 1:
            best = max((r.committed for r in self._replicas(now) if r.shard == shard), default=before)
            self._rate[shard] = max(0, best - before) / (now - since)
            self._committed[shard] = (now, best)

    def _replicas(self, now: float) -> list[ReplicaFigures]:
        fresh = (figures for moment, figures in self._nodes.values() if now - moment < FRESH_SECONDS)
        return [figures.replica for figures in fresh if figures.replica is not None and figures.phase is Phase.MINING]

    def heights(self, now: float) -> dict[int, int]:
        result: dict[int, int] = {}
        for replica in self._replicas(now):
            result[replica.shard] = max(replica.height, result.get(replica.shard, 0))
        return dict(sorted(result.items()))

    def rate(self, now: float) -> float:
        """Transactions committed per second, counted in each shard they touch."""
        return sum(rate for shard, rate in self._rate.items() if now - self._committed[shard][0] < FRESH_SECONDS)

    def forming(self, now: float) -> str:
        """How far the coordinator is on the way to the first block, or an empty text while nothing is heard of it."""
        if self._coordinator is None or now - self._coordinator[0] >= FRESH_SECONDS:
            return ""
        c = self._coordinator[1]
        if c.phase is Phase.REGISTRATION:
            return f"{c.registered} of {c.wanted} nodes registered"
        if c.phase in (Phase.ASSIGNMENT, Phase.HANDOFF):
            return f"{c.phase}: {c.acknowledged} acknowledged, {c.ready} ready, of {c.registered} nodes"
        return str(c.phase)


def status_line(heights: Mapping[int, int], rate: float, nodes_up: int, nodes: int, seconds: float) -> str:
    """``shard 0 at 42 · shard 1 at 40 · 12.5 tx/s · 8/8 nodes up · 0:01:23``"""
    if not heights:
        shown = "no blocks yet"
    elif len(heights) <= MAX_SHARDS_SHOWN:
        shown = " · ".join(f"shard {shard} at {height}" for shard, height in heights.items())
    else:
        shown = f"{len(heights)} shards at {min(heights.values())}-{max(heights.values())}"
    minutes, second = divmod(int(seconds), 60)
    clock = f"{minutes // 60}:{minutes % 60:02}:{second:02}"
    return f"{shown} · {rate:.1f} tx/s · {nodes_up}/{nodes} nodes up · {clock}"


class Listener(threading.Thread):
    """Feeds a View from the broker, for as long as the script runs; a broker that is away is tried again."""

    def __init__(self, url: str, genesis: Genesis) -> None:
        super().__init__(daemon=True)
        self._url, self._genesis = url, genesis
        self._view, self._lock = View(), threading.Lock()

    def run(self) -> None:
        with Client(self._url, self._genesis) as client:
            client.subscribe(reports_topic(self._genesis.network), MAX_REPORT_BYTES, self._hear)
            while True:
                client.poll(1.0)

    def _hear(self, body: bytes) -> None:
        with suppress(DecodeError), self._lock:
            self._view.add(read_report(body), time.monotonic())

    def forming(self) -> str:
        with self._lock:
            return self._view.forming(time.monotonic())

    def line(self, nodes_up: int, nodes: int, seconds: float) -> str:
        now = time.monotonic()
        with self._lock:
            return status_line(self._view.heights(now), self._view.rate(now), nodes_up, nodes, seconds)
