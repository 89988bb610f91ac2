"""Frames on a byte stream: a 4-byte big-endian length, then that many bytes. An empty frame means "still here".

Pure: ``FrameDecoder`` turns what was read into frames, ``SendQueue`` turns frames into what to write next.
"""

from collections import deque
from struct import Struct

from node.protocol.limits import MAX_FRAME_BYTES

_LENGTH = Struct(">I")

PING = _LENGTH.pack(0)
"""An empty frame: tells that the sender is alive, and carries nothing."""

MIN_FRAME_BYTES = _LENGTH.size + 1
"""On the stream, of a frame that carries something."""

WRITE_BYTES = 65_535 - 16 - 12
"""Most bytes in one write: with Yamux's header it fills one Noise message (65,535 bytes, 16 of them its tag)."""

URGENT_BYTES = 16 << 10
"""A frame up to this size overtakes the larger ones: votes do not wait for proposals."""

URGENT_RUN_BYTES = 1 << 20
"""Urgent bytes in a row after which a bulk frame gets its turn, so that neither kind can starve the other."""


class FrameTooLarge(ValueError):
    """A frame's announced length is beyond the cap. The stream is of no more use."""


class FrameDecoder:
    """Incremental decoder of one stream. Holds at most one unfinished frame, and what came with it."""

    def __init__(self, max_frame: int = MAX_FRAME_BYTES) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        """Bytes of an unfinished frame that are here."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """The frames that ``data`` completes, in order; pings are left out.

        Raises:
            FrameTooLarge: as soon as a length beyond the cap is seen. The decoder must not be fed again.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            with memoryview(buffer) as view:
                frames, start = self._split(view)
            del buffer[:start]
        else:  # nothing is kept of most
            with memoryview(data) as view:
                frames, start = self._split(view)
                if start < len(data):
                    buffer += view[start:]
        return frames

    def _split(self, view: memoryview) -> tuple[list[bytes], int]:
        """The whole frames, and where the next one begins."""
        frames = []
        start, end = 0, len(view)
        while end - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(view, start)
            if length > self._max_frame:
                raise FrameTooLarge(f"a frame of {length} bytes, {self._max_frame} at most")
            stop = start + _LENGTH.size + length
            if stop > end:
                break
            if length:
                frames.append(bytes(view[start + _LENGTH.size : stop]))
            start = stop
        return frames, start


class SendQueue:
    """Frames that wait to be written to one peer: urgent ones before bulk ones, each kind in order. Bounded in bytes.

    A frame is written whole before the next one begins; urgent frames slip in between bulk frames.
    """

    def __init__(self, limit: int, max_frame: int = MAX_FRAME_BYTES) -> None:
        """``limit``: bytes, lengths included, that may wait."""
        self._limit = limit
        self._max_frame = max_frame
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._rest = memoryview(b"")
        self._urgent_run = 0
        self.size = 0
        """Bytes waiting."""

    def put(self, frame: bytes) -> bool:
        """Queue a frame; False, and nothing queued, when it would go beyond the limit.

        Raises:
            ValueError: an empty frame, or one larger than any peer would read.
        """
        if not 0 < len(frame) <= self._max_frame:
            raise ValueError(f"a frame has 1 to {self._max_frame} bytes, not {len(frame)}")
        size = _LENGTH.size + len(frame)
        if self.size + size > self._limit:
            return False
        self.size += size
        (self._urgent if len(frame) <= URGENT_BYTES else self._bulk).append(frame)
        return True

    def take(self) -> bytes:
        """What to write next, at most ``WRITE_BYTES``; empty when nothing waits."""
        parts: list[bytes | memoryview] = []
        room = WRITE_BYTES
        while room > _LENGTH.size:
            if not self._rest:
                frame = self._next()
                if frame is None:
                    break
                self._rest = memoryview(frame)
                parts.append(_LENGTH.pack(len(frame)))
                room -= _LENGTH.size
            part = self._rest[:room]
            self._rest = self._rest[room:]
            parts.append(part)
            room -= len(part)
        data = b"".join(parts)
        self.size -= len(data)
        return data

    def _next(self) -> bytes | None:
        if self._urgent and not (self._bulk and self._urgent_run >= URGENT_RUN_BYTES):
            frame = self._urgent.popleft()
            self._urgent_run += len(frame)
            return frame
        self._urgent_run = 0
        return self._bulk.popleft() if self._bulk else None
