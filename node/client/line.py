"""The line to the broker, for asyncio: the only file of this package that does I/O.

What is subscribed to stays subscribed across the broker's outages; what is published meanwhile is lost. Anybody who reaches the
broker can publish to every topic, so nothing larger than its topic allows is kept, and no more is read in a second than a process
has time for.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from node.network.broker_url import BrokerUrl, packed
from node.network.pacing import Bucket
from node.network.resp import Answer, BrokerNonsense, Published, Reader

log = structlog.get_logger()
Handler = Callable[[bytes], None]

READ_RATE = 64 << 20
"""Bytes read in a second at most, a message counting for ``MESSAGE_COST`` more."""
MESSAGE_COST = 4 << 10
_READ_BYTES = 256 << 10
_CONNECT_SECONDS = 2.0
_WRITE_SECONDS = 5.0
_PING_SECONDS = 1.0
_MAX_PINGS = 2
"""Unanswered: what is older than this many seconds when it is read is not worth reading, so that a flood's end is its end."""
_SILENCE_SECONDS = 6.0
"""Without so much as a pong for so long the connection counts as dead: a stopped server closes nothing."""
_RETRY_FIRST, _RETRY_LAST = 0.1, 1.0
"""Seconds between attempts to connect."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached now."""


class Line:
    """Publishes, and hands each message of a topic to its handler, which must neither block nor raise.

    Attributes:
        connected: whether the broker is heard. ``on_change`` is called, without arguments, when that changes.
    """

    def __init__(self, url: str, rate: int = READ_RATE) -> None:
        """``rate``: as ``READ_RATE``. Raises ValueError when ``url`` is no broker's."""
        self._address, self._rate = url, rate
        self._url = BrokerUrl(url)
        self._handlers: dict[bytes, Handler] = {}
        self._limits: dict[bytes, int] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._unanswered: deque[str] = deque()
        self.connected = False
        self.on_change: Callable[[], None] = lambda: None

    def beside(self, rate: int) -> "Line":
        """Another connection to the same broker, for what may be flooded and must not hold up the rest."""
        return Line(self._address, rate)

    def subscribe(self, topic: str, largest: int, handler: Handler) -> None:
        """Have each message of a topic handed on, if it has ``largest`` bytes at most."""
        self._handlers[topic.encode()], self._limits[topic.encode()] = handler, largest
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(packed("SUBSCRIBE", topic))

    def unsubscribe(self, topic: str) -> None:
        """Hear no more of a topic."""
        self._handlers.pop(topic.encode(), None)
        self._limits.pop(topic.encode(), None)
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(packed("UNSUBSCRIBE", topic))

    async def publish(self, topic: str, body: bytes) -> None:
        """Raises BrokerUnavailable. A broker that is lost right then may not have got it."""
        writer = self._writer
        if writer is None or not self.connected:
            raise BrokerUnavailable("not connected")
        try:
            self._send(writer, "PUBLISH", topic, body)
            async with asyncio.timeout(_WRITE_SECONDS):
                await writer.drain()
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailable(str(error) or type(error).__name__) from None

    async def run(self) -> None:
        """Stay connected and deliver messages, until cancelled."""
        pause = _RETRY_FIRST
        while True:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    reader, self._writer = await self._connect()
                await self._listen(reader, self._writer)
            except (OSError, EOFError, TimeoutError, BrokerNonsense, BrokerUnavailable) as error:
                if self.connected:
                    log.warning("broker lost", error=str(error) or type(error).__name__)
                    pause = _RETRY_FIRST
            finally:
                self._hang_up()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = self._url
        if url.path is not None:
            return await asyncio.open_unix_connection(url.path, limit=_READ_BYTES)
        return await asyncio.open_connection(url.host, url.port, ssl=url.context, limit=_READ_BYTES)

    async def _listen(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._unanswered.clear()
        self._send(writer, *self._url.hello)
        if self._handlers:
            writer.write(packed("SUBSCRIBE", *self._handlers))
        self._send(writer, "PING")
        clock = asyncio.get_running_loop().time
        reader, pace, passed_over = Reader(self._limits), Bucket(self._rate, self._rate), 0
        heard = pinged = clock()
        while True:
            data = await _read(stream, _PING_SECONDS)
            if data:
                heard = clock()
                items = reader.feed(data)
                for item in items:
                    await self._take(item)
                fresh, passed_over = reader.passed_over - passed_over, reader.passed_over
                pace.take(len(data) + MESSAGE_COST * (len(items) + fresh), clock())
                await asyncio.sleep(pace.wait(clock()))
            elif clock() - heard > _SILENCE_SECONDS:
                raise TimeoutError("the broker is silent")
            if clock() - pinged >= _PING_SECONDS:
                if self._unanswered.count("PING") > _MAX_PINGS:
                    raise TimeoutError("too far behind: beginning anew")
                pinged = clock()
                self._send(writer, "PING")

    def _send(self, writer: asyncio.StreamWriter, command: str, *words: str | bytes) -> None:
        """A command that is answered. Raises BrokerUnavailable."""
        if writer.is_closing():  # which asyncio's own loop passes over in silence, and uvloop calls a RuntimeError
            raise BrokerUnavailable("the connection is lost")
        self._unanswered.append(command)
        writer.write(packed(command, *words))

    async def _take(self, item: Published | Answer) -> None:
        if isinstance(item, Published):
            if (handler := self._handlers.get(item.topic)) is not None:
                handler(item.body)
            await asyncio.sleep(0)  # a burst that is here already must not keep everybody else waiting
            return
        if not self._unanswered:
            raise BrokerNonsense("an answer to no command")
        self._unanswered.popleft()
        if item.error is not None:
            raise BrokerUnavailable(f"it answers {item.error.partition(' ')[0]}")  # the rest may repeat a password
        self._connection(True)

    def _connection(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            if connected:
                log.info("broker connected")
            self.on_change()

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        self._connection(False)


async def _read(stream: asyncio.StreamReader, seconds: float) -> bytes | None:
    """What comes next; None when nothing comes in time. Raises EOFError when nothing more will."""
    try:
        async with asyncio.timeout(seconds):
            data = await stream.read(_READ_BYTES)
    except TimeoutError:
        return None
    if not data:
        raise EOFError("closed by the broker")
    return data
