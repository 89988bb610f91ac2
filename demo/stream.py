"""Server-sent events: everybody who watches gets the same bytes once a second, made once.

A client that is slow misses updates and then gets the whole picture again, so nothing is ever queued for it; one that
takes nothing for ten seconds is dropped.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from demo.collector import Collector

MAX_STREAMS = 200
SEND_TIMEOUT = 10.0
"""Seconds a client may take to accept one message."""


class Board:
    """The newest picture of the network, encoded, and a signal when there is a newer one."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._now = 0
        self._update = b"{}"
        self._snapshot: bytes | None = None
        self._changed = asyncio.Event()
        self.number = 0
        """Of the newest picture; 0 before the first."""
        self.closed = False
        self.streams = 0

    def publish(self, now: int) -> None:
        """Let the collector take stock, and show everybody."""
        self._collector.tick(now)
        self._now, self._snapshot = now, None
        self._update = msgspec.json.encode(self._collector.update(now))
        self.number += 1
        self._wake()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def events(self) -> AsyncIterator[bytes]:
        """For one page: a ``snapshot``, then an ``update`` each second; a ``snapshot`` again when it missed one."""
        shown = 0
        while not self.closed:
            if self.number == shown:
                await self._changed.wait()
                continue
            in_sequence = shown != 0 and self.number == shown + 1
            shown = self.number
            kind, data = (b"update", self.update) if in_sequence else (b"snapshot", self.snapshot)
            yield b"retry: 1000\nevent: %b\ndata: %b\n\n" % (kind, data)

    @property
    def update(self) -> bytes:
        """The newest picture without history, as JSON."""
        return self._update

    @property
    def snapshot(self) -> bytes:
        """The newest picture with history, as JSON."""
        if self._snapshot is None:
            self._snapshot = msgspec.json.encode(self._collector.snapshot(self._now))
        return self._snapshot


class EventStream(StreamingResponse):
    """The board as ``text/event-stream``, until either side goes away."""

    media_type = "text/event-stream"

    def __init__(self, board: Board) -> None:
        super().__init__(board.events(), headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT):
                await send(message)

        self._board.streams += 1
        try:
            with contextlib.suppress(TimeoutError):
                await super().__call__(scope, receive, in_time)
        finally:
            self._board.streams -= 1
