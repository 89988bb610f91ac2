"""A TCP connection, as bytes: one read takes all that is there, and what is written goes to the socket at once.

Each costs a system call. No task waits for its turn, but for a socket that has nothing, or is full.
"""

import socket

import trio

READ_BYTES = 256 << 10
STRANGER_READ_BYTES = 4 << 10
"""Before the other side has proved who it is."""


class ConnectionEnded(Exception):
    """The other side closed it, or sent what is not from it."""


class Wire:
    """One connection. A single task reads."""

    def __init__(self, tcp: socket.socket) -> None:
        """``tcp``: not blocking."""
        self._tcp = tcp
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
        """What is there, as soon as there is something; rarely nothing.

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
        return data

    def put_back(self, data: bytes) -> None:
        """Let this be received next: it was not meant for whoever took it."""
        self._put_back = data

    def send(self, data: bytes) -> None:
        """Write; what the socket does not take is kept. Raises OSError when the connection broke."""
        self._unsent += data
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
