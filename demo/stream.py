"""Server-sent events: everybody who watches gets the same bytes once a second, made once.

A client that is slow misses updates and then gets the whole picture again, so nothing is ever queued for it; one that
takes nothing for ten seconds is dropped.
"""

import asyncio

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

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

    async def newer_than(self, number: int) -> None:
        """Wait until there is a picture after ``number``, or the board is closed."""
        while self.number <= number and not self.closed:
            await self._changed.wait()

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


class EventStream(Response):
    """The board as ``text/event-stream``: a ``snapshot``, then an ``update`` each second until either side goes away."""

    media_type = "text/event-stream"

    def __init__(self, board: Board) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._board.streams += 1
        writing, leaving = asyncio.create_task(self._write(send)), asyncio.create_task(_departure(receive))
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._board.streams -= 1
            writing.cancel()
            leaving.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)  # OSError: gone; TimeoutError: too slow

    async def _write(self, send: Send) -> None:
        board, shown = self._board, 0
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while not board.closed:
            await board.newer_than(shown)
            in_sequence = shown != 0 and board.number == shown + 1
            shown = board.number
            kind, data = (b"update", board.update) if in_sequence else (b"snapshot", board.snapshot)
            body = b"retry: 1000\nevent: %b\ndata: %b\n\n" % (kind, data)
            async with asyncio.timeout(SEND_TIMEOUT):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _departure(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
