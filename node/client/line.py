"""The line to the broker, for asyncio: the only file of this package that does I/O.

What is subscribed to stays subscribed across the broker's outages; what is published meanwhile is lost.
"""

import asyncio
import time
from collections.abc import Callable

import redis.asyncio as redis
import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger()
Handler = Callable[[bytes], None]

_POLL = 0.25
_PING_EVERY = 2.0
_SILENCE_LIMIT = 6.0
"""Seconds without so much as a pong after which the connection counts as dead: a stopped server closes nothing."""
_RETRY_FIRST, _RETRY_LAST = 0.1, 1.0
"""Seconds between attempts to connect."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached now."""


class Line:
    """Publishes, and hands each message of a topic to its handler, which must neither block nor raise.

    Attributes:
        connected: whether the broker is heard. ``on_change`` is called, without arguments, when that changes.
    """

    def __init__(self, url: str) -> None:
        """Raises ValueError when ``url`` is not a redis:// URL."""
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=2, socket_timeout=5, retry=Retry(NoBackoff(), 0), max_connections=16
        )
        self._handlers: dict[bytes, Handler] = {}
        self.connected = False
        self.on_change: Callable[[], None] = lambda: None

    def subscribe(self, topic: str, handler: Handler) -> None:
        self._handlers[topic.encode()] = handler

    async def publish(self, topic: str, body: bytes) -> None:
        """Raises BrokerUnavailable."""
        try:
            await self._client.publish(topic, body)
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(str(error)) from None

    async def run(self) -> None:
        """Stay connected and deliver messages, until cancelled."""
        pause = _RETRY_FIRST
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await self._listen(subscription)
            except (RedisError, OSError, TimeoutError) as error:
                if self.connected:
                    log.warning("broker lost", error=str(error) or type(error).__name__)
                    pause = _RETRY_FIRST
                self._connection(False)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY_LAST)

    async def _listen(self, subscription: PubSub) -> None:
        subscribed: set[bytes] = set()
        heard = pinged = time.monotonic()
        while True:
            if missing := self._handlers.keys() - subscribed:
                await subscription.subscribe(*missing)
                subscribed |= missing
            message = await subscription.get_message(timeout=_POLL)
            now = time.monotonic()
            if message is not None:
                heard = now
                self._connection(True)
                handler = self._handlers.get(message["channel"] or b"")
                if message["type"] == "message" and handler is not None:
                    handler(message["data"])
                    await asyncio.sleep(0)  # a burst that is here already must not keep everybody else waiting
            elif now - heard > _SILENCE_LIMIT:
                raise TimeoutError("the broker is silent")
            if now - pinged > _PING_EVERY or not self.connected:
                pinged = now
                await subscription.ping()

    def _connection(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            if connected:
                log.info("broker connected")
            self.on_change()

    async def close(self) -> None:
        await self._client.aclose()
