"""The one Yamux stream of a secured connection, as its two sides use it."""

from node.network.secured import Secured
from node.network.yamux import Yamux


class StreamEnded(Exception):
    """The peer is done."""


class Stream:
    """Bytes both ways. A single task reads; whoever writes keeps to ``room``."""

    def __init__(self, secured: Secured, yamux: Yamux) -> None:
        self._secured = secured
        self._yamux = yamux
        self._put_back = b""

    @property
    def is_blocked(self) -> bool:
        """The socket is full."""
        return self._secured.is_blocked

    @property
    def room(self) -> int:
        """How many bytes may be written now."""
        return 0 if self._secured.is_blocked or not self._yamux.is_open else self._yamux.send_window

    async def open(self) -> None:
        """Wait until it is there, if it is the peer's to open. Raises as ``receive``."""
        early = b""
        while not self._yamux.is_open:
            early += await self.receive()
        self._put_back = early
        self.answer()

    async def receive(self) -> bytes:
        """What is there, as soon as there is something, if only for Yamux: then it is empty. It counts as unread until it is
        said to be ``consumed``.

        Raises:
            StreamEnded, ConnectionEnded, YamuxBroken: see there.
            OSError: the connection broke.
        """
        if self._put_back:
            payload, self._put_back = self._put_back, b""
            return payload
        if self._yamux.is_over:
            raise StreamEnded("ended by the peer")
        payload = self._yamux.receive(await self._secured.receive())
        self.answer()
        return payload

    def put_back(self, data: bytes) -> None:
        """Let this be received next: it was not meant for whoever took it."""
        self._put_back = data

    def consumed(self, size: int) -> None:
        """So many bytes do not wait any more: the peer may send as many others. Raises as ``send``."""
        self._yamux.consumed(size)
        self.answer()

    def send(self, data: bytes) -> None:
        """Write at once, at most ``room``. Raises OSError when the connection broke."""
        self._secured.send(self._yamux.send(data))

    async def unblock(self) -> None:
        """Wait until it is blocked, and write until it is not. Raises OSError when the connection broke."""
        await self._secured.unblock()
        self.answer()

    def answer(self) -> None:
        """Write what Yamux has to say, unless the socket is full: then it goes with what is sent next."""
        if self._yamux.answers and not self._secured.is_blocked:
            self._secured.send(self._yamux.send(b""))
