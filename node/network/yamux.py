"""Yamux, as far as a connection with one stream needs it. Pure: bytes in, payload and frames out.

The one who dialed opens the stream. Further streams are reset, pings answered; whatever is malformed, or more than this side
allowed to be sent, ends the connection. Source: https://github.com/hashicorp/yamux/blob/master/spec.md
"""

from struct import Struct

_HEADER = Struct(">BBHII")  # version, type, flags, stream, length (of a ping: its value; of a go-away: why)
HEADER_BYTES = _HEADER.size
_DATA, _WINDOW_UPDATE, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8

FIRST_WINDOW = 256 << 10
"""What each side may send before it was allowed more, bytes."""
MAX_ANSWERS = 64 << 10
"""Bytes of answers that a peer asks for and does not take."""


class YamuxBroken(Exception):
    """The peer broke the protocol, or reset the stream. The connection is of no more use."""


class Yamux:
    """One side of a connection, from its first Yamux byte to its last. It must not be used after it raised."""

    def __init__(self, dialed: bool, unread: int) -> None:
        """``dialed``: this side did, and opens the stream, which may be used at once. ``unread``: bytes that the peer may
        be ahead of ``consumed``."""
        self._stream = 1 if dialed else 0
        self._other_parity = 0 if dialed else 1
        self._unread_limit = unread
        self._unread = 0
        self._window = FIRST_WINDOW
        """What the peer may still send."""
        self._granted_later = 0
        self._head = b""
        self._body = 0
        """What is missing of the payload of a frame that began."""
        self._is_ours = False
        """Whether that frame belongs to the stream."""
        self._control = bytearray()
        self.send_window = FIRST_WINDOW
        """Payload that may be sent now, bytes."""
        self._is_last = False
        if dialed:
            self._greet(_SYN)

    @property
    def is_open(self) -> bool:
        """The stream is there."""
        return self._stream > 0

    @property
    def is_over(self) -> bool:
        """The peer sends no more payload."""
        return self._is_last and not self._body

    def receive(self, data: bytes) -> bytes:
        """The stream's payload in ``data``, which follows what was received before.

        Raises:
            YamuxBroken: see there.
        """
        if self._head:
            data, self._head = self._head + data, b""
        parts, at, end = list[bytes](), 0, len(data)
        while at < end:
            if self._body:
                part = data[at : at + self._body]
                at += len(part)
                self._body -= len(part)
                if self._is_ours:
                    parts.append(part)
            elif end - at < HEADER_BYTES:
                self._head = data[at:]
                break
            else:
                self._on_header(*_HEADER.unpack_from(data, at))
                at += HEADER_BYTES
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def consumed(self, size: int) -> None:
        """So many bytes of payload do not wait any more. The peer is told when half a window came together. Never raises."""
        self._unread -= size
        self._granted_later += size
        if self._granted_later >= max(FIRST_WINDOW, self._unread_limit) // 2:
            self._grant(0, self._granted_later)
            self._granted_later = 0

    def send(self, payload: bytes) -> bytes:
        """What to write now: answers that wait and, if there is any, this payload; at most ``send_window`` bytes of it."""
        size = len(payload)
        answers = b""
        if self._control:
            answers = bytes(self._control)
            self._control.clear()
        if not size:
            return answers
        assert size <= self.send_window
        self.send_window -= size
        return answers + _HEADER.pack(0, _DATA, 0, self._stream, size) + payload

    @property
    def answers(self) -> int:
        """Bytes that wait to be written besides payload."""
        return len(self._control)

    def _on_header(self, version: int, kind: int, flags: int, stream: int, length: int) -> None:
        if version != 0 or kind > _GO_AWAY:
            raise YamuxBroken(f"version {version}, type {kind}")
        if kind == _PING:
            if flags & _SYN:
                self._answer(_PING, _ACK, 0, length)
        elif kind == _GO_AWAY:
            self._is_last = True
        else:
            self._on_stream(kind, flags, stream, length)

    def _on_stream(self, kind: int, flags: int, stream: int, length: int) -> None:
        if flags & _SYN:
            self._on_new(stream)
        is_ours = stream == self._stream
        if kind == _DATA:
            self._body, self._is_ours = length, is_ours
            if is_ours:
                self._window -= length
                self._unread += length
                if self._window < 0 or self._unread > self._unread_limit:
                    raise YamuxBroken("the peer ignores flow control")
        elif is_ours:
            self.send_window += length
        if is_ours and flags & _RST:
            raise YamuxBroken("the peer reset the stream")
        if is_ours and flags & _FIN:
            self._is_last = True

    def _on_new(self, stream: int) -> None:
        if not stream or stream % 2 != self._other_parity or stream == self._stream:
            raise YamuxBroken(f"the peer opens stream {stream}")
        if self._stream:
            self._answer(_WINDOW_UPDATE, _RST, stream, 0)
        else:
            self._stream = stream
            self._greet(_ACK)

    def _greet(self, flag: int) -> None:
        self._grant(flag, max(0, self._unread_limit - FIRST_WINDOW))

    def _grant(self, flag: int, more: int) -> None:
        self._window += more
        self._control += _HEADER.pack(0, _WINDOW_UPDATE, flag, self._stream, more)

    def _answer(self, kind: int, flags: int, stream: int, length: int) -> None:
        self._control += _HEADER.pack(0, kind, flags, stream, length)
        if len(self._control) > MAX_ANSWERS:
            raise YamuxBroken("the peer does not take its answers")
