"""A peer that says on its stream what a test wants, and otherwise speaks the protocols as it should."""

from collections.abc import Awaitable, Callable

import trio

from node.network.connection import Connector, host_and_port
from node.network.stream import Stream
from node.protocol.crypto import KeyPair

_PART_BYTES = 60_000


class Line:
    """A stream on which reading goes on while something is written."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._heard = bytearray()
        self._changed = trio.Event()

    async def read(self) -> bytes:
        """What was heard since, as soon as it is something."""
        while not self._heard:
            await self._changed.wait()
        heard = bytes(self._heard)
        self._heard.clear()
        return heard

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PART_BYTES):
            part = data[start : start + _PART_BYTES]
            while self._stream.room < len(part):
                await self._changed.wait()
            self._stream.send(part)
            await trio.lowlevel.checkpoint()

    async def keep_reading(self) -> None:
        while True:
            data = await self._stream.receive()
            self._stream.consumed(len(data))
            self._heard += data
            self._something_changed()

    async def keep_writing(self) -> None:
        while True:
            await self._stream.unblock()
            self._something_changed()

    def _something_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def call(
    owner: KeyPair, whom: bytes, address: str, talk: Callable[[Line], Awaitable[None]], seconds: float = float("inf")
) -> None:
    """Connect as the owner of a key, and talk until that returns. ``seconds``: for the handshake. Raises whatever ends it."""

    async def converse(_: bytes, stream: Stream) -> None:
        line = Line(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.keep_reading)
            nursery.start_soon(line.keep_writing)
            await talk(line)
            nursery.cancel_scope.cancel()

    tcp = await trio.open_tcp_stream(*host_and_port(address))
    await Connector(owner).converse(tcp, trio.CancelScope(deadline=trio.current_time() + seconds), converse, dialed=whom)
