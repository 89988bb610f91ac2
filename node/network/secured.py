"""A socket whose two sides agreed on keys by Noise: plaintext in and out.

One read takes all that is there; what is written goes to the socket at once. Both cost a system call, and no task waits for
its turn but for a socket that has nothing, or is full.

On the wire: messages of 2 bytes length, big-endian, and as many of ciphertext. Source: https://noiseprotocol.org/noise.html,
sections 5.1 and 12.3, and https://github.com/libp2p/specs/blob/master/noise/README.md
"""

import socket
from struct import Struct

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_LENGTH = Struct(">H")
_NONCE = Struct("<4xQ")
_TAG_BYTES = 16
NOISE_MESSAGE_BYTES = 65_535
PLAINTEXT_BYTES = NOISE_MESSAGE_BYTES - _TAG_BYTES
"""Most in one message."""
READ_BYTES = 256 << 10
STRANGER_READ_BYTES = 4 << 10
"""Before there is a stream."""


class ConnectionEnded(Exception):
    """The other side closed it, or sent what is not from it."""


class Secured:
    """One connection. A single task reads; whoever writes does so while it is not ``is_blocked``."""

    def __init__(self, tcp: socket.socket, encrypt: bytes, decrypt: bytes) -> None:
        """``tcp``: not blocking. The keys: of what is written here, and of what the other side writes."""
        self._tcp = tcp
        self._encrypt, self._decrypt = ChaCha20Poly1305(encrypt).encrypt, ChaCha20Poly1305(decrypt).decrypt
        self._sealed = self._opened = 0
        """Messages, which are numbered."""
        self._begun = b""
        """The beginning of a message."""
        self._put_back = b""
        self._unsent = b""
        self._blocked = trio.Event()
        self.read_bytes = STRANGER_READ_BYTES
        """Most that is taken at once."""

    @property
    def is_blocked(self) -> bool:
        """The socket is full, and what it did not take waits for ``unblock``."""
        return bool(self._unsent)

    async def receive(self) -> bytes:
        """What is there, as soon as there is something: empty when it is the beginning of a message only.

        Raises:
            ConnectionEnded: see there.
            OSError: the connection broke.
        """
        if self._put_back:
            data, self._put_back = self._put_back, b""
            return data
        await trio.lowlevel.wait_readable(self._tcp.fileno())
        try:
            data = self._tcp.recv(self.read_bytes)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionEnded("closed by the peer")
        return self._open(self._begun + data)

    def put_back(self, data: bytes) -> None:
        """Let this be received next: it was not meant for whoever took it."""
        self._put_back = data

    def send(self, data: bytes) -> None:
        """Write; what the socket does not take is kept. Raises OSError when the connection broke."""
        while data:
            sealed = self._encrypt(_NONCE.pack(self._sealed), data[:PLAINTEXT_BYTES], None)
            self._sealed += 1
            self._unsent += _LENGTH.pack(len(sealed)) + sealed
            data = data[PLAINTEXT_BYTES:]
        self._write()

    async def unblock(self) -> None:
        """Wait until it is blocked, and write until it is not. Raises OSError when the connection broke."""
        await self._blocked.wait()
        while self._unsent:
            await trio.lowlevel.wait_writable(self._tcp.fileno())
            self._write()
        self._blocked = trio.Event()

    def _write(self) -> None:
        try:
            sent = self._tcp.send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._blocked.set()

    def _open(self, data: bytes) -> bytes:
        """The plaintext of the whole messages in ``data``; the rest is kept."""
        at, end, parts = 0, len(data), []
        while end - at >= _LENGTH.size:
            start = at + _LENGTH.size
            stop = start + (data[at] << 8 | data[at + 1])
            if stop > end:
                break
            try:
                parts.append(self._decrypt(_NONCE.pack(self._opened), data[start:stop], None))
            except InvalidTag:
                raise ConnectionEnded("a message that is not the peer's") from None
            self._opened += 1
            at = stop
        self._begun = data[at:]
        return parts[0] if len(parts) == 1 else b"".join(parts)
