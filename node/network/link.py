"""A peer's live connection: frames in, frames out, and whether the peer keeps to time.

Time is counted in ticks of this process, one every ``PING_SECONDS``: what it slept through itself is held against nobody, and
a message costs no look at the clock.
"""

from collections.abc import Callable

import trio

from node.network.framing import PING, WRITE_BYTES, FrameDecoder, SendQueue
from node.network.stream import Stream

PING_SECONDS = 1.0
SILENCE_SECONDS = 5.0
"""A peer that sends nothing, or takes nothing, for this long is gone."""
FRAME_SECONDS = 10.0
"""From the first byte of a frame to its last, at most."""
PART_BYTES = 64 << 10
"""What is received is taken in parts, so that what the smallest frames become is bounded, too."""
WRITES_PER_TURN = 4
"""Of 64 KiB: then other tasks have a turn."""


class Link:
    """What is written goes out when it is flushed, together; what is received waits until it is taken."""

    def __init__(self, peer: bytes, stream: Stream, queue_bytes: int, max_frame: int, dialed: bool = False) -> None:
        """``dialed``: this side did."""
        self.peer = peer
        self.dialed = dialed
        self.queue = SendQueue(queue_bytes)
        self.scope = trio.CancelScope()
        self.up = True
        self.ended = trio.Event()
        self.reason = "closed here"
        """Why it ended."""
        self._stream = stream
        self._decoder = FrameDecoder(max_frame)
        self._unread = bytearray()
        self._has_written = False
        self._stalled = self._silent = self._unfinished = 0
        """Ticks for which it has not taken what waits, sent anything, finished a frame."""
        self.unused = 0
        """Ticks for which no frame has come or gone."""
        self.early: list[bytes] = []
        """What waited for it. The peer may not read it, if another connection crosses this one."""
        self.age = 0
        """Ticks since it is there."""

    @property
    def held(self) -> int:
        """Bytes of an unfinished frame."""
        return self._decoder.size

    def end(self, reason: str) -> None:
        """Close it, soon."""
        if self.up:
            self.reason = reason
        self.up = False
        self.scope.cancel()

    # -- in --------------------------------------------------------------------------------------------------------

    async def receive(self) -> int:
        """Wait for what comes next; bytes of it, none if it was only for Yamux. Raises as ``Stream.receive``."""
        data = await self._stream.receive()
        if data:
            self._silent = 0
            self._unread += data
        return len(data)

    @property
    def has_unread(self) -> bool:
        """Something was received, and not taken."""
        return bool(self._unread)

    def take(self) -> list[bytes]:
        """The frames in the next part of what was received.

        Raises:
            FrameTooLarge: see there. Also as ``Stream.consumed``.
        """
        if len(self._unread) <= PART_BYTES:
            part, self._unread = self._unread, bytearray()
        else:
            part = self._unread[:PART_BYTES]
            del self._unread[:PART_BYTES]
        frames = self._decoder.feed(part)
        self._stream.consumed(len(part))
        if frames:
            self._unfinished = self.unused = 0
        return frames

    # -- out -------------------------------------------------------------------------------------------------------

    def flush(self) -> int:
        """Write what waits, as far as the peer takes it, and a bounded part at once; bytes. Raises OSError."""
        written, stream, queue = 0, self._stream, self.queue
        for _ in range(WRITES_PER_TURN):
            if not queue.size or stream.room < min(queue.size, WRITE_BYTES):
                break
            written += self._write(queue.take())
        return written

    @property
    def has_more(self) -> bool:
        """To flush at once."""
        size = self.queue.size
        return size > 0 and self._stream.room >= min(size, WRITE_BYTES)

    async def flush_when_it_was_blocked(self, flush: Callable[["Link"], None]) -> None:
        """As often as the socket was full and is so no more. Raises OSError."""
        while True:
            await self._stream.unblock()
            self._stalled = 0
            flush(self)

    def _write(self, data: bytes) -> int:
        self._stream.send(data)
        self._has_written, self._stalled = True, 0
        return len(data)

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, waits: bool) -> int:
        """A tick has passed. End it, if the peer is late with something; or tell the peer that this side is still here, if it
        was told nothing else; bytes written. ``waits``: what it sent waits for this process. Raises OSError."""
        limit = round(SILENCE_SECONDS / PING_SECONDS)
        self.age += 1
        self.unused = 0 if self.held or self.queue.size else self.unused + 1
        self._silent = 0 if waits else self._silent + 1
        self._unfinished = self._unfinished + 1 if self.held and not waits else 0
        self._stalled = self._stalled + 1 if self.queue.size or self._stream.is_blocked else 0
        if self._silent > limit:
            self.end(f"silent for {SILENCE_SECONDS:.0f} s")
        elif self._stalled > limit:
            self.end(f"takes nothing for {SILENCE_SECONDS:.0f} s")
        elif self._unfinished > round(FRAME_SECONDS / PING_SECONDS):
            self.end(f"a frame is not finished after {FRAME_SECONDS:.0f} s")
        has_written, self._has_written = self._has_written, False
        if not self.up or has_written or self.queue.size or self._stream.room < len(PING):
            return 0
        return self._write(PING)
