"""What the processes say they are doing, as one line for a terminal. Display only: events are not signed."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis

from node.protocol.codec import DecodeError, decode
from node.protocol.reports import Event
from node.protocol.topics import reports_topic

MAX_EVENT_BYTES = 64 << 10
MAX_SOURCES = 1024
FRESH_SECONDS = 4.0
MAX_SHARDS_SHOWN = 4


class View:
    """The latest stats of each process, and the rate of transactions. ``now``: seconds of any steady clock."""

    def __init__(self) -> None:
        self._stats: dict[tuple[str, str], tuple[float, Mapping[str, Any]]] = {}
        self._committed: dict[int, tuple[float, int]] = {}
        self._rate: dict[int, float] = {}

    def add(self, event: Event, now: float) -> None:
        if event.kind != "stats" or (len(self._stats) >= MAX_SOURCES and (event.role, event.source) not in self._stats):
            return
        self._stats[event.role, event.source] = (now, event.data)
        shard, total = event.data.get("shard"), event.data.get("committed")
        if event.role == "node" and isinstance(shard, int) and isinstance(total, int):
            self._count(shard, total, now)

    def _count(self, shard: int, total: int, now: float) -> None:
        """The rate of a shard, from the member that is furthest, over a second or more."""
        since, before = self._committed.setdefault(shard, (now, total))
        if now - since >= 1:
            best = max(total, *(int(s.get("committed", 0)) for s in self._fresh("node", now) if s.get("shard") == shard))
            self._rate[shard] = max(0, best - before) / (now - since)
            self._committed[shard] = (now, best)

    def _fresh(self, role: str, now: float) -> list[Mapping[str, Any]]:
        return [data for (r, _), (moment, data) in self._stats.items() if r == role and now - moment < FRESH_SECONDS]

    def heights(self, now: float) -> dict[int, int]:
        result: dict[int, int] = {}
        for data in self._fresh("node", now):
            shard, height = data.get("shard"), data.get("height")
            if data.get("phase") == "mining" and isinstance(shard, int) and isinstance(height, int):
                result[shard] = max(height, result.get(shard, 0))
        return dict(sorted(result.items()))

    def rate(self, now: float) -> float:
        """Transactions committed per second, counted in each shard they touch."""
        return sum(rate for shard, rate in self._rate.items() if now - self._committed[shard][0] < FRESH_SECONDS)

    def forming(self, now: float) -> str:
        """How far the coordinator is on the way to the first block, or an empty text while nothing is heard of it."""
        for data in self._fresh("coordinator", now):
            phase, registered, wanted = data.get("phase", ""), data.get("registered", 0), data.get("wanted", 0)
            if phase == "registration":
                return f"{registered} of {wanted} nodes registered"
            if phase in ("assignment", "handoff"):
                return f"{phase}: {data.get('acknowledged', 0)} acknowledged, {data.get('ready', 0)} ready, of {registered} nodes"
            return f"{phase}"
        return ""


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

    def __init__(self, url: str, network: bytes) -> None:
        super().__init__(daemon=True)
        self._url, self._channel = url, reports_topic(network)
        self._view, self._lock = View(), threading.Lock()

    def run(self) -> None:
        while True:
            with suppress(redis.RedisError, OSError):
                self._listen()
            time.sleep(0.5)

    def _listen(self) -> None:
        with redis.Redis.from_url(self._url, socket_connect_timeout=2, socket_timeout=5) as client, client.pubsub() as pubsub:
            pubsub.subscribe(self._channel)
            while True:
                message = pubsub.get_message(ignore_subscribe_messages=True, timeout=2)
                if message is not None:
                    with suppress(DecodeError, TypeError, ValueError), self._lock:
                        self._view.add(decode(Event, message["data"], MAX_EVENT_BYTES), time.monotonic())

    def forming(self) -> str:
        with self._lock:
            return self._view.forming(time.monotonic())

    def line(self, nodes_up: int, nodes: int, seconds: float) -> str:
        now = time.monotonic()
        with self._lock:
            return status_line(self._view.heights(now), self._view.rate(now), nodes_up, nodes, seconds)
