"""Server-sent events: each user's own, from the outbox to whoever listens.

Nothing is queued for a stream. One that is ready to take events is given what comes after the last it took, from the database, a
few at a time; while it is slow, it only falls behind. Many streams that are ready are given theirs in one read.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import islice

from sqlalchemy import Connection, select
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from gateway.database import Database
from gateway.events.outbox import Event, Outbox
from gateway.events.shown import Shower, Shown
from gateway.problems import Problem

MAX_STREAMS = 2000
"""But not more than half of the files the process may open."""
MAX_OF_USER = 5
SEND_TIMEOUT = 10.0
"""Seconds a client may take to accept one event; it can come back and go on where it was."""
HEARTBEAT = 15.0
_LOOK_EVERY = 1.0
_BATCH = 20
_MAX_SEEN = 1000
_FED_AT_ONCE = 100
"""Streams, so that other reads wait for some milliseconds only."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
"""Seconds between two rounds, else as many as the last took."""
_FIRST = b"retry: 2000\n: connected\n\n"
_COMMENT = b":\n\n"


class Stream:
    """One connection of a user. ``position``: the last event it was given. ``behind``: there may be more for it. ``given_at``:
    when it was given something last, monotonic."""

    def __init__(self, user: str, still_good: Callable[[], bool]) -> None:
        self.user, self.still_good = user, still_good
        self.position = 0
        self.behind = True
        self._asked: asyncio.Future[list[bytes] | None] | None = None
        self.given_at = time.monotonic()

    @property
    def ready(self) -> bool:
        """It waits for something to send."""
        return self._asked is not None and not self._asked.done()

    async def next(self) -> list[bytes] | None:
        """What to send next; None when the stream has ended."""
        self._asked = asyncio.get_running_loop().create_future()
        return await self._asked

    def give(self, chunks: list[bytes] | None) -> None:
        """Answer ``next``, if it is asked."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(chunks)
            self.given_at = time.monotonic()


class Streams:
    """All streams of a gateway."""

    def __init__(self, database: Database, outbox: Outbox, shower: Shower) -> None:
        self._database, self._outbox, self._shower = database, outbox, shower
        self._streams: set[Stream] = set()
        self._head: int | None = None  # of the events up to here it is known whom they are for
        self._wake = asyncio.Event()
        self._closed = False
        outbox.listeners.append(self._wake.set)

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, user: str, after: int | None, still_good: Callable[[], bool]) -> "EventStream":
        """The response that streams a user's events later than ``after``, by default those from now on.

        It ends when ``still_good`` says no. Raises Problem: 429, this user has as many as a user may; 503, there are as many as
        there may be, or the process ends.
        """
        if sum(stream.user == user for stream in self._streams) >= MAX_OF_USER:
            raise Problem(429, "too_many_streams", f"at most {MAX_OF_USER} streams of one user", retry_after=15)
        most = min(MAX_STREAMS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        if len(self._streams) >= most or self._closed:
            raise Problem(503, "overloaded", "no room for another stream", retry_after=15)
        stream = Stream(user, still_good)
        self._streams.add(stream)
        return EventStream(self._chunks(stream, after), lambda: self._streams.discard(stream))

    async def run(self) -> None:
        """Give streams what they wait for, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_after())
            while True:
                await self._wake.wait()
                self._wake.clear()
                begun = time.monotonic()
                if self._streams:
                    await self._see()
                    await self._feed()
                else:
                    self._head = None
                await asyncio.sleep(min(max(_SHORTEST_PAUSE, time.monotonic() - begun), _LONGEST_PAUSE))

    def close(self) -> None:
        """End all streams, for good."""
        self._closed = True
        for stream in self._streams:
            stream.give(None)

    async def _chunks(self, stream: Stream, after: int | None) -> AsyncIterator[bytes]:
        last = await self._outbox.last()
        stream.position = last if after is None else min(after, last)
        yield _FIRST
        while not self._closed:
            if stream.behind:
                self._wake.set()
            chunks = await stream.next()
            if chunks is None:
                return
            for chunk in chunks:
                yield chunk

    async def _see(self) -> None:
        """Find out whose streams have fallen behind."""
        if self._head is None:  # they all have, as far as anybody knows
            self._head = await self._outbox.last()
            return
        seen = select(Event.id, Event.user_id).where(Event.id > self._head).order_by(Event.id).limit(_MAX_SEEN)
        rows = await self._database.read(lambda c: c.execute(seen).all())
        if rows:
            self._head = rows[-1].id
            users = {row.user_id for row in rows}
            for stream in self._streams:
                stream.behind = stream.behind or stream.user in users
        if len(rows) == _MAX_SEEN:
            self._wake.set()

    async def _feed(self) -> None:
        """Give streams that are ready and behind their next events, those first that have waited longest."""
        hungry = sorted((one for one in self._streams if one.ready and one.behind), key=lambda one: one.given_at)
        if len(hungry) > _FED_AT_ONCE:
            del hungry[_FED_AT_ONCE:]
            self._wake.set()
        wanted = [(stream.user, stream.position) for stream in hungry]
        found = await self._database.read(lambda c: self._read(c, wanted))
        for stream, events in zip(hungry, found, strict=True):
            stream.behind = len(events) == _BATCH
            if not stream.still_good():
                stream.give(None)
            elif events:
                stream.position = events[-1].id
                stream.give([b"id: %d\nevent: %b\ndata: %b\n\n" % (e.id, e.type.encode(), e.body) for e in events])

    def _read(self, connection: Connection, wanted: list[tuple[str, int]]) -> list[list[Shown]]:
        query = select(Event.__table__).order_by(Event.id).limit(_BATCH)
        found = [connection.execute(query.where(Event.user_id == user, Event.id > after)).all() for user, after in wanted]
        shown = iter(self._shower.show(connection, [row for rows in found for row in rows]))
        return [list(islice(shown, len(rows))) for rows in found]

    async def _look_after(self) -> None:
        """End streams whose session is over, and let silent ones say that they live, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for stream in list(self._streams):
                if not stream.still_good():
                    stream.give(None)
                elif time.monotonic() - stream.given_at >= HEARTBEAT:
                    stream.give([_COMMENT])


class EventStream(StreamingResponse):
    """A stream as ``text/event-stream``, until either side goes away."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(chunks, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT):
                await send(message)

        try:
            with suppress(TimeoutError):
                await super().__call__(scope, receive, in_time)
        finally:
            self._on_end()
