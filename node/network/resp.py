"""Reading what a Redis-protocol server sends (RESP3), within bounds that are known before a byte is kept.

Pure. Of what is pushed, a message of a topic within that topic's limit is kept; any other message is passed over as it comes
in, whatever length it announces. Of answers only counts whether they are errors. The grammar is the one of
https://github.com/antirez/RESP3/blob/master/spec.md without attributes and streamed types, which no command used here brings.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

MAX_ANSWER_BYTES = 8192
"""Of anything that is no message: the longest, a greeting, has some hundred bytes."""

_MESSAGE = b">3\r\n$7\r\nmessage\r\n"
_match_message = re.compile(re.escape(_MESSAGE) + rb"\$(\d{1,3})\r\n([^\r\n]{1,256})\r\n\$(\d{1,10})\r\n").match
_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}
"""Items for each one counted."""
_BLOBS = frozenset((b"$", b"=", b"!"))
_LINES = frozenset((b"+", b"-", b":", b"_", b"#", b",", b"("))


class BrokerNonsense(Exception):
    """What came is not the protocol, or not what any command used here is answered with."""


class Published(Struct, frozen=True, gc=False):
    """A message of a topic."""

    topic: bytes
    body: bytes


class Answer(Struct, frozen=True, gc=False):
    """The answer to a command. ``error``: the server's words, None when it did as told."""

    error: str | None


class Reader:
    """Takes the bytes of one connection as they come.

    Attributes:
        passed_over: messages that were larger than their topic allows, or of another topic.
    """

    def __init__(self, limits: Mapping[bytes, int]) -> None:
        """``limits``: the largest body by topic, bytes; read anew for each message."""
        self._limits = limits
        self._buffer = bytearray()
        self._passing = 0  # bytes to come that nobody wants
        self.passed_over = 0

    @property
    def size(self) -> int:
        """Bytes kept."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Published | Answer]:
        """What ``data`` completes.

        Raises:
            BrokerNonsense: see there. The reader must not be fed again.
        """
        if self._passing >= len(data):
            self._passing -= len(data)
            return []
        self._buffer += memoryview(data)[self._passing :]
        self._passing = 0
        items = list(self._items())
        if items:
            del self._buffer[: items[-1][0]]
        return [item for _, item in items if item is not None]

    def _items(self) -> Iterator[tuple[int, Published | Answer | None]]:
        """Each complete item of the buffer with where it ends; None for what is nobody's."""
        buffer, start = self._buffer, 0
        while start < len(buffer) and not self._passing:
            head = _match_message(buffer, start)
            if head is None:
                end = self._end_of_answer(start)
                if end is None:
                    return
                yield end, self._answer(start, end)
            else:
                length, topic, size = head.groups()
                if int(length) != len(topic):
                    raise BrokerNonsense("a topic of another length than announced")
                end = head.end() + int(size) + 2
                if int(size) > self._limits.get(bytes(topic), 0):
                    self.passed_over += 1
                    self._passing = max(0, end - len(buffer))
                    yield min(end, len(buffer)), None
                elif end > len(buffer):
                    return
                elif not buffer.startswith(b"\r\n", end - 2):
                    raise BrokerNonsense("a message of another length than announced")
                else:
                    with memoryview(buffer) as view:  # copied once
                        body = bytes(view[head.end() : end - 2])
                    yield end, Published(bytes(topic), body)
            start = end

    def _answer(self, start: int, end: int) -> Answer | None:
        """What these bytes answer; None for what was pushed without being asked for: that a subscription counts."""
        kind = bytes(self._buffer[start : start + 1])
        if kind == b">":
            return None
        is_error = kind in (b"-", b"!")
        return Answer(self._buffer[start + 1 : end - 2].decode(errors="replace") if is_error else None)

    def _end_of_answer(self, start: int) -> int | None:
        """Where a whole item, all that it contains included, ends; None while it is incomplete."""
        at, wanted = start, 1
        while wanted:
            if at - start > MAX_ANSWER_BYTES:
                raise BrokerNonsense("an answer beyond all bounds")
            found = self._line(at)
            if found is None:
                return None
            line, end = found
            kind = bytes(self._buffer[at : at + 1])
            wanted -= 1
            if kind in _AGGREGATES:
                wanted += _AGGREGATES[kind] * _number(line)
            elif kind in _BLOBS:
                end += _number(line) + 2
            elif kind not in _LINES:
                raise BrokerNonsense("it does not speak the Redis protocol")
            at = end
        return at if at <= len(self._buffer) else None

    def _line(self, start: int) -> tuple[bytes, int] | None:
        """The line without its first byte, and where the next begins; None while it is incomplete."""
        stop = self._buffer.find(b"\r\n", start, start + MAX_ANSWER_BYTES)
        if stop >= 0:
            return bytes(self._buffer[start + 1 : stop]), stop + 2
        if len(self._buffer) - start >= MAX_ANSWER_BYTES:
            raise BrokerNonsense("a line beyond all bounds")
        return None


def _number(line: bytes) -> int:
    """A length or a count; raises BrokerNonsense when it is beyond what an answer may have."""
    if not line.isdigit() or len(line) > 4 or int(line) > MAX_ANSWER_BYTES:
        raise BrokerNonsense("it announces an answer beyond all bounds")
    return int(line)
