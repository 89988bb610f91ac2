"""The line to the broker: one connection to a Redis-protocol server, to publish and to subscribe.

The broker may be away, stopped, slow or lossy at any time. Nothing here waits for it: what cannot be sent is kept up to a
bound, what cannot be taken in is dropped, both are counted, and the protocol above asks again for whatever matters.
"""

import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import structlog
import trio
from redis.connection import SSLConnection, parse_url

from node.protocol.limits import MAX_BROKER_BODY_BYTES

Message = tuple[str, bytes]
"""(topic, body)"""

MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 << 20
"""Bounds of the queue to the broker; the inbox's are the same."""

_BATCH_BYTES = 1 << 20
_READ_BYTES = 256 << 10
_UNFINISHED_BYTES = MAX_BROKER_BODY_BYTES + _READ_BYTES
"""Of one reply: whoever makes the broker announce a larger one loses us the connection, not our memory."""
_PING_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
"""A broker that says nothing, or takes nothing, for this long is gone: it has a ping to answer every second."""
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 2.0

log = structlog.get_logger()


class BrokerRefused(Exception):
    """The broker does not do what it must: wrong password, no permission, too large a reply."""


class Broker:
    """Publishes and subscribes for one process. ``run`` in a nursery, then ``publish`` and read ``inbox``.

    ``inbox`` is bounded: while nobody reads, newest messages are dropped, as the broker itself would.
    """

    def __init__(self, url: str, subscriptions: Sequence[str] = ()) -> None:
        """
        Raises:
            ValueError: ``url`` is not a redis://, rediss:// or unix:// URL. The text does not show it: it may hold a password.
        """
        try:
            self._address = _Address(url)
        except (ValueError, TypeError, OSError):
            raise ValueError("the broker's URL must look like redis://[:password@]host:port or rediss://...") from None
        self._wanted = dict.fromkeys(subscriptions)
        self._queue: deque[Message] = deque()
        self._unanswered: deque[Message | str] = deque()  # sent, and not known to have arrived; a name: another command
        self._queue_bytes = 0  # of both
        self._wakeup = trio.Event()
        self._commands: list[tuple[str, ...]] = []  # to send besides
        self._deliver, self.inbox = trio.open_memory_channel[Message](MAX_QUEUED)
        self._inbox_sizes: deque[int] = deque()
        self._inbox_bytes = 0
        self.connected = False
        """Whether the broker answered within the last seconds."""
        self.dropped = 0
        """Messages lost in either direction since start: too large, refused, or more than fit."""

    async def run(
        self,
        *,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,  # type: ignore[name-defined]  # old stubs, by libp2p
    ) -> None:
        """Keep the line to the broker open until cancelled. Once only."""
        task_status.started()
        delay, told = _FIRST_RETRY_SECONDS, False
        while True:
            try:
                with trio.fail_after(_SILENCE_SECONDS):
                    stream = await self._address.connect()
                try:
                    await self._talk(stream)
                finally:
                    await trio.aclose_forcefully(stream)
            except* Exception as errors:  # whatever a broken or hostile broker provokes, the node goes on
                if self.connected:
                    delay, told = _FIRST_RETRY_SECONDS, False
                if not told:
                    log.warning("broker lost", broker=str(self._address), error=_reason(errors))
                told = True
            self.connected = False
            self._put_back()
            await trio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_SECONDS)

    def subscribe(self, *topics: str) -> None:
        """Also take in what comes on ``topics``, from about now on and after every reconnection."""
        self._wanted |= dict.fromkeys(topics)
        self._command("SUBSCRIBE", *topics)

    def publish(self, topic: str, body: bytes) -> None:
        """Queue ``body``; never blocks. When the queue is full its oldest messages are dropped."""
        if len(body) > MAX_BROKER_BODY_BYTES:
            self.dropped += 1
            return
        self._queue.append((topic, body))
        self._queue_bytes += len(body)
        self._trim()
        self._wakeup.set()

    def _trim(self) -> None:
        while self._queue and (len(self._queue) > MAX_QUEUED or self._queue_bytes > MAX_QUEUED_BYTES):
            self._queue_bytes -= len(self._queue.popleft()[1])
            self.dropped += 1

    def _command(self, *words: str) -> None:
        self._commands.append(words)
        self._wakeup.set()

    def _put_back(self) -> None:
        """How much of what was under way got through is unknown, and to repeat is better than to lose."""
        self._queue.extendleft(reversed([sent for sent in self._unanswered if not isinstance(sent, str)]))
        self._unanswered.clear()
        self._trim()

    async def _talk(self, stream: trio.abc.Stream) -> None:
        """Exchange messages until the connection ends, by an exception."""
        self._commands = [self._address.hello]
        if self._wanted:
            self._command("SUBSCRIBE", *self._wanted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, stream)
            nursery.start_soon(self._write, stream)
            while True:
                self._command("PING")
                await trio.sleep(_PING_SECONDS)

    async def _write(self, stream: trio.abc.Stream) -> None:
        while True:
            await self._wakeup.wait()
            data = [_packed(*command) for command in self._commands]
            self._unanswered += [command[0] for command in self._commands if command[0] != "SUBSCRIBE"]  # pushed, not answered
            self._commands = []
            size = 0
            while self._queue and size < _BATCH_BYTES:
                topic, body = message = self._queue.popleft()
                self._unanswered.append(message)
                data.append(_packed("PUBLISH", topic, body))
                size += len(body)
            if not self._queue:
                self._wakeup = trio.Event()
            with trio.fail_after(_SILENCE_SECONDS):
                await stream.send_all(b"".join(data))

    async def _read(self, stream: trio.abc.Stream) -> None:
        decoder = hiredis.Reader()
        unfinished = 0
        with trio.fail_after(_SILENCE_SECONDS) as silence:
            while data := await stream.receive_some(_READ_BYTES):
                silence.deadline = trio.current_time() + _SILENCE_SECONDS
                decoder.feed(data)
                unfinished += len(data)
                while (reply := decoder.gets()) is not False:
                    unfinished = 0
                    if not isinstance(reply, hiredis.PushNotification):
                        self._answered(reply)
                    elif reply[0] == b"message":
                        self._take_in(reply[1].decode(), reply[2])
                if unfinished > _UNFINISHED_BYTES:
                    raise BrokerRefused("it announces a reply beyond all bounds")
        raise EOFError("closed by the broker")

    def _answered(self, reply: Any) -> None:
        """Commands are answered in order."""
        command = self._unanswered.popleft()
        if isinstance(command, tuple):
            self._queue_bytes -= len(command[1])
            self.dropped += isinstance(reply, hiredis.ReplyError)
        elif isinstance(reply, hiredis.ReplyError):
            code = str(reply).partition(" ")[0]  # the rest may repeat what was sent, the password too
            raise BrokerRefused(f"{code} in answer to {command}")
        elif command == "PING" and not self.connected:
            self.connected = True
            log.info("broker connected", broker=str(self._address))

    def _take_in(self, topic: str, body: bytes) -> None:
        waiting = self._deliver.statistics().current_buffer_used
        while len(self._inbox_sizes) > waiting:
            self._inbox_bytes -= self._inbox_sizes.popleft()
        if len(body) > MAX_BROKER_BODY_BYTES or waiting == MAX_QUEUED or self._inbox_bytes + len(body) > MAX_QUEUED_BYTES:
            self.dropped += 1
            return
        self._deliver.send_nowait((topic, body))
        self._inbox_sizes.append(len(body))
        self._inbox_bytes += len(body)


class _Address:
    """Where the broker is and how to get in. As text: without the password."""

    def __init__(self, url: str) -> None:
        """Raises ValueError, TypeError or OSError when the URL makes no sense, or names a certificate that is none."""
        options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        options.pop("db", None)  # topics belong to no database
        is_tls = options.pop("connection_class", None) is SSLConnection
        self._path: str | None = options.pop("path", None)
        self._host, self._port = options.pop("host", "localhost"), options.pop("port", 6379)
        user, password = options.pop("username", "default"), options.pop("password", None)
        self.hello = ("HELLO", "3") if password is None else ("HELLO", "3", "AUTH", user, password)
        self._context = ssl.create_default_context(cafile=options.pop("ssl_ca_certs", None)) if is_tls else None
        if options:
            raise ValueError("unknown options")

    def __str__(self) -> str:
        return self._path or f"{self._host}:{self._port}"

    async def connect(self) -> trio.abc.Stream:
        """Raises OSError, trio.BrokenResourceError."""
        if self._path is not None:
            return await trio.open_unix_socket(self._path)
        stream = await trio.open_tcp_stream(self._host, self._port)
        return stream if self._context is None else trio.SSLStream(stream, self._context, server_hostname=self._host)


def _packed(*words: str | bytes) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows commands of one word only
    return packed


def _reason(error: BaseException) -> str:
    """The first error of a group, in one line; trio's own say the real one in their cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    error = error.__cause__ or error
    return f"{type(error).__name__}: {error}"
