"""The node's line to the broker: redis-py's synchronous client in two threads, batches handed over to trio's loop.

The broker may be away, stopped, slow or lossy at any time. Nothing here waits for it: what cannot be sent is kept up to a
bound, what cannot be taken in is dropped, both are counted, and the protocol above asks again for whatever matters.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Condition, Event
from typing import Any

import redis
import structlog
import trio
from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url
from redis.retry import Retry

from node.protocol.limits import MAX_BROKER_BODY_BYTES

Message = tuple[str, bytes]
"""(channel, body)"""

Line = Callable[[Any, Callable[[], None]], None]
"""Works on a redis-py connection (those are not typed) until it breaks; calls back once the broker has answered."""

MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 << 20
"""Bounds of the queue to the broker; the inbox's are the same."""

_BATCH, _BATCH_BYTES = 256, 1 << 20
_POLL = 0.1
"""Seconds until the receiver notices new subscriptions and the end."""
_PING = 1.0
_SILENCE = 3.0
"""Seconds without an answer after which a connection counts as lost."""
_BACKOFF = (0.1, 2.0)

log = structlog.get_logger()


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
            options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
            kind = options.pop("connection_class", Connection)
            options |= {"protocol": 2, "socket_timeout": _SILENCE, "socket_connect_timeout": _SILENCE}
            self._connection: Callable[[], Any] = partial(kind, **options, retry=Retry(NoBackoff(), 0))
            self._connection()  # does not connect yet, but refuses unknown options
        except (ValueError, TypeError):
            raise ValueError("the broker's URL must look like redis://[:password@]host:port or rediss://...") from None
        self._address = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        self._wanted = dict.fromkeys(subscriptions)
        self._outbox: deque[Message] = deque()
        self._outbox_bytes = 0
        self._outbox_ready = Condition()
        self._deliver, self.inbox = trio.open_memory_channel[Message](MAX_QUEUED)
        self._inbox_sizes: deque[int] = deque()
        self._inbox_bytes = 0
        self._stopped = Event()
        self._up = {"receiver": False, "sender": False}
        self.dropped = 0
        """Messages lost in either direction since start: too large, refused, or more than fit."""

    @property
    def connected(self) -> bool:
        """Whether the broker answered within the last seconds, in both directions."""
        return all(self._up.values())

    async def run(
        self,
        *,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,  # type: ignore[name-defined]  # old stubs, by libp2p
    ) -> None:
        """Keep the lines to the broker open until cancelled. Once only."""
        receive = partial(self._receive, trio.lowlevel.current_trio_token())
        in_thread = partial(
            trio.to_thread.run_sync,  # type: ignore[call-arg]  # old stubs, by libp2p
            abandon_on_cancel=True,
            limiter=trio.CapacityLimiter(2),
        )
        try:
            async with trio.open_nursery() as nursery:
                for name, line in ("receiver", receive), ("sender", self._send):
                    nursery.start_soon(partial(in_thread, self._hold, name, line))
                task_status.started()
        finally:
            self._stopped.set()
            with self._outbox_ready:
                self._outbox_ready.notify_all()

    def subscribe(self, *channels: str) -> None:
        """Also take in what comes on ``channels``, from about now on and after every reconnection."""
        self._wanted |= dict.fromkeys(channels)

    def publish(self, channel: str, body: bytes) -> None:
        """Queue ``body``; never blocks. When the queue is full its oldest messages are dropped."""
        if len(body) > MAX_BROKER_BODY_BYTES:
            self.dropped += 1
            return
        with self._outbox_ready:
            self._outbox.append((channel, body))
            self._outbox_bytes += len(body)
            self._trim()
            self._outbox_ready.notify()

    def _trim(self) -> None:
        while len(self._outbox) > MAX_QUEUED or self._outbox_bytes > MAX_QUEUED_BYTES:
            self._outbox_bytes -= len(self._outbox.popleft()[1])
            self.dropped += 1

    # In threads

    def _hold(self, name: str, line: Line) -> None:
        """Connect and run ``line``, again and again."""
        delay, told = _BACKOFF[0], False

        def up() -> None:
            nonlocal delay, told
            delay, told, self._up[name] = _BACKOFF[0], False, True
            log.info("broker connected", line=name, broker=self._address)

        while not self._stopped.is_set():
            connection = self._connection()
            try:
                connection.connect()
                line(connection, up)
            except Exception as error:  # whatever a broken or hostile broker provokes in the client, the node goes on
                if not told and not self._stopped.is_set():
                    log.warning("broker lost", line=name, broker=self._address, error=f"{type(error).__name__}: {error}")
                told = True
            finally:
                self._up[name] = False
                connection.disconnect()
            self._stopped.wait(delay)
            delay = min(delay * 2, _BACKOFF[1])

    def _receive(self, token: trio.lowlevel.TrioToken, connection: Any, up: Callable[[], None]) -> None:
        subscribed: set[str] = set()
        connection.send_command("PING")
        heard = asked = time.monotonic()
        delivered = Event()
        while not self._stopped.is_set():
            if wanted := [channel for channel in self._wanted.copy() if channel not in subscribed]:
                connection.send_command("SUBSCRIBE", *wanted)
                subscribed.update(wanted)
            batch: list[Message] = []
            size = 0
            while len(batch) < _BATCH and size < _BATCH_BYTES and connection.can_read(timeout=0 if batch else _POLL):
                reply = connection.read_response(disable_decoding=True)
                heard = time.monotonic()
                if not self._up["receiver"]:
                    up()
                if isinstance(reply, list) and reply[0] == b"message":
                    batch.append((reply[1].decode(), reply[2]))
                    size += len(reply[2])
            if batch:
                # One batch under way at a time: a busy loop makes the next one larger instead of a queue of them.
                delivered.clear()
                token.run_sync_soon(self._take_in, batch, delivered)
                while not delivered.wait(_POLL) and not self._stopped.is_set():
                    pass
            now = time.monotonic()
            if now - heard > _SILENCE:
                raise TimeoutError(f"no answer for {_SILENCE:.0f} s")
            if now - max(heard, asked) > _PING:
                connection.send_command("PING")
                asked = now

    def _take_in(self, batch: list[Message], delivered: Event) -> None:
        """On trio's loop: put a batch into the inbox."""
        for message in batch:
            size = len(message[1])
            waiting = self._deliver.statistics().current_buffer_used
            while len(self._inbox_sizes) > waiting:
                self._inbox_bytes -= self._inbox_sizes.popleft()
            if size > MAX_BROKER_BODY_BYTES or self._inbox_bytes + size > MAX_QUEUED_BYTES:
                self.dropped += 1
                continue
            try:
                self._deliver.send_nowait(message)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self.dropped += 1
            else:
                self._inbox_sizes.append(size)
                self._inbox_bytes += size
        delivered.set()

    def _send(self, connection: Any, up: Callable[[], None]) -> None:
        connection.send_command("PING")
        connection.read_response()
        up()
        while not self._stopped.is_set():
            with self._outbox_ready:
                self._outbox_ready.wait_for(lambda: self._outbox or self._stopped.is_set(), timeout=_PING)
                batch = self._next_batch()
            try:
                commands: list[tuple[Any, ...]] = [("PUBLISH", channel, body) for channel, body in batch] or [("PING",)]
                connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    try:
                        connection.read_response()
                    except redis.ResponseError:
                        self.dropped += 1
            except BaseException:
                self._put_back(batch)
                raise

    def _next_batch(self) -> list[Message]:
        """Take the oldest messages off the queue."""
        batch: list[Message] = []
        size = 0
        while self._outbox and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._outbox.popleft())
            size += len(batch[-1][1])
        self._outbox_bytes -= size
        return batch

    def _put_back(self, batch: list[Message]) -> None:
        """The connection broke: how much of the batch got through is unknown, and to repeat is better than to lose."""
        with self._outbox_ready:
            self._outbox.extendleft(reversed(batch))
            self._outbox_bytes += sum(len(body) for _, body in batch)
            self._trim()
