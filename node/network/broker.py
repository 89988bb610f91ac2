"""The line to the broker: one connection to a Redis-protocol server, to publish and to subscribe.

The broker may be away, stopped, slow or lossy at any time. Nothing here waits for it: what cannot be sent is kept up to a
bound, what cannot be taken in is dropped, both are counted, and the protocol above asks again for whatever matters.

Anybody who reaches the broker can publish to every topic. So nothing larger than its topic allows is ever kept, and no more is
read in a second than a process has time for: what is beyond waits at the broker, which hangs up on who lets too much wait.
"""

import random
from collections import deque
from collections.abc import Mapping, Sequence

import structlog
import trio

from node.network.beat import next_beat
from node.network.broker_url import BrokerUrl, packed
from node.network.pacing import Bucket
from node.network.resp import Answer, Published, Reader
from node.protocol.limits import MAX_BROKER_BODY_BYTES

Message = tuple[str, bytes]
"""(topic, body)"""

MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 20 << 20
"""Bounds of the queue to the broker, the largest body included."""
MAX_UNREAD = 10_000
MAX_UNREAD_BYTES = 8 << 20
"""Bounds of the inbox."""

READ_RATE = 64 << 20
"""Bytes taken in each second at most, a message counting for ``MESSAGE_COST`` more: so many can be passed over in little time."""
MESSAGE_COST = 4 << 10

_BATCH_BYTES = 1 << 20
_READ_BYTES = 256 << 10
_PING_SECONDS = 1.0
_MAX_PINGS = 2
"""Unanswered: what is older than this many seconds when it is read is not worth reading, so that a flood's end is its end."""
_SILENCE_SECONDS = 3.0
"""A broker that says nothing, or takes nothing, for this long is gone: it has a ping to answer every second."""
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 2.0

log = structlog.get_logger()

_PUSHED = ("SUBSCRIBE", "UNSUBSCRIBE")
"""Commands that have no answer, but something pushed for each topic."""


class BrokerRefused(Exception):
    """The broker does not do what it must: wrong password, no permission."""


class Broker:
    """Publishes and subscribes for one process. ``run`` in a nursery, then ``publish`` and read ``inbox``.

    ``inbox`` is bounded: while nobody reads, newest messages are dropped, as the broker itself would.
    """

    def __init__(self, url: str, subscriptions: Mapping[str, int] | None = None) -> None:
        """``subscriptions``: topics to take in, with the largest body of each, bytes; what is larger is dropped unread.

        Raises:
            ValueError: ``url`` is no broker's.
        """
        self._url = BrokerUrl(url)
        self._wanted = {topic.encode(): largest for topic, largest in (subscriptions or {}).items()}
        self._queue: deque[Message] = deque()
        self._unanswered: deque[Message | str] = deque()  # sent, and not known to have arrived; a name: another command
        self._queue_bytes = 0  # of both
        self._pings = 0  # under way
        self._wakeup = trio.Event()
        self._commands: list[tuple[str, ...]] = []  # to send besides
        self._deliver, self.inbox = trio.open_memory_channel[Message](MAX_UNREAD)
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
                    stream = await _connect(self._url)
                try:
                    await self._talk(stream)
                finally:
                    await trio.aclose_forcefully(stream)
            except* Exception as errors:  # whatever a broken or hostile broker provokes, the node goes on
                if self.connected:
                    delay, told = _FIRST_RETRY_SECONDS, False
                if not told:
                    log.warning("broker lost", broker=str(self._url), error=_reason(errors))
                told = True
            self.connected = False
            self._put_back()
            await trio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_SECONDS)

    def subscribe(self, topics: Mapping[str, int]) -> None:
        """Also take in what comes on ``topics``, each with its largest body, from about now on and after every reconnection."""
        self._wanted |= {topic.encode(): largest for topic, largest in topics.items()}
        self._command("SUBSCRIBE", *topics)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Take in no more of what comes on ``topics``."""
        for topic in topics:
            self._wanted.pop(topic.encode(), None)
        self._command("UNSUBSCRIBE", *topics)

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
        self._commands = [self._url.hello]
        if self._wanted:
            self._command("SUBSCRIBE", *(topic.decode() for topic in self._wanted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, stream)
            nursery.start_soon(self._write, stream)
            self._pings = 0
            while self._pings <= _MAX_PINGS:
                self._pings += 1
                self._command("PING")
                await next_beat(_PING_SECONDS)
            # Not all whom a flood leaves behind begin anew at once: what some are not there to hear, others hear.
            await trio.sleep(random.uniform(0, _PING_SECONDS))
            raise EOFError("too far behind: beginning anew")

    async def _write(self, stream: trio.abc.Stream) -> None:
        while True:
            await self._wakeup.wait()
            data = [packed(*command) for command in self._commands]
            self._unanswered += [command[0] for command in self._commands if command[0] not in _PUSHED]
            self._commands = []
            size = 0
            while self._queue and size < _BATCH_BYTES:
                topic, body = message = self._queue.popleft()
                self._unanswered.append(message)
                data.append(packed("PUBLISH", topic, body))
                size += len(body)
            if not self._queue:
                self._wakeup = trio.Event()
            with trio.fail_after(_SILENCE_SECONDS):
                await stream.send_all(b"".join(data))

    async def _read(self, stream: trio.abc.Stream) -> None:
        reader, pace, passed_over = Reader(self._wanted), Bucket(READ_RATE, READ_RATE), 0
        with trio.fail_after(_SILENCE_SECONDS) as silence:
            while data := await stream.receive_some(_READ_BYTES):
                silence.deadline = trio.current_time() + _SILENCE_SECONDS
                items = reader.feed(data)
                self._forget_consumed()
                for item in items:
                    if isinstance(item, Published):
                        self._take_in(item)
                    else:
                        self._answered(item)
                fresh, passed_over = reader.passed_over - passed_over, reader.passed_over
                self.dropped += fresh
                pace.take(len(data) + MESSAGE_COST * (len(items) + fresh), trio.current_time())
                if (wait := pace.wait(trio.current_time())) > 0:
                    await trio.sleep(wait)
        raise EOFError("closed by the broker")

    def _answered(self, answer: Answer) -> None:
        """Commands are answered in order."""
        command = self._unanswered.popleft()
        if isinstance(command, tuple):
            self._queue_bytes -= len(command[1])
            self.dropped += answer.error is not None
        elif answer.error is not None:
            code = answer.error.partition(" ")[0]  # the rest may repeat what was sent, the password too
            raise BrokerRefused(f"{code} in answer to {command}")
        elif command == "PING":
            self._pings -= 1
            if not self.connected:
                self.connected = True
                log.info("broker connected", broker=str(self._url))

    def _forget_consumed(self) -> None:
        waiting = self._deliver.statistics().current_buffer_used
        while len(self._inbox_sizes) > waiting:
            self._inbox_bytes -= self._inbox_sizes.popleft()

    def _take_in(self, message: Published) -> None:
        size = len(message.body)
        if len(self._inbox_sizes) == MAX_UNREAD or self._inbox_bytes + size > MAX_UNREAD_BYTES:
            self.dropped += 1
            return
        self._deliver.send_nowait((message.topic.decode(), message.body))
        self._inbox_sizes.append(size)
        self._inbox_bytes += size


async def _connect(url: BrokerUrl) -> trio.abc.Stream:
    """Raises OSError, trio.BrokenResourceError."""
    if url.path is not None:
        return await trio.open_unix_socket(url.path)
    stream = await trio.open_tcp_stream(url.host, url.port)
    return stream if url.context is None else trio.SSLStream(stream, url.context, server_hostname=url.host)


def _reason(error: BaseException) -> str:
    """The first error of a group, in one line; trio's own say the real one in their cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    error = error.__cause__ or error
    return f"{type(error).__name__}: {error}"
