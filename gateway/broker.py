"""The connection to the broker: what is subscribed to stays subscribed across its outages; what is lost meanwhile is lost."""

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


class BrokerUnavailable(Exception):
    """The broker cannot be reached now."""


class Broker:
    """Publishes, and hands each message of a subscribed channel to its handler (which must not block)."""

    def __init__(self, url: str) -> None:
        """Raises ValueError when ``url`` is not a redis:// URL."""
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=2, socket_timeout=5, retry=Retry(NoBackoff(), 0), max_connections=16
        )
        self._handlers: dict[bytes, Handler] = {}
        self.connected = False

    def subscribe(self, channel: str, handler: Handler) -> None:
        self._handlers[channel.encode()] = handler

    async def publish(self, channel: str, body: bytes) -> None:
        """Raises BrokerUnavailable."""
        try:
            await self._client.publish(channel, body)
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(str(error)) from None

    async def run(self) -> None:
        """Stay connected and deliver messages, until cancelled."""
        delay = 0.1
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await self._listen(subscription)
            except (RedisError, OSError, TimeoutError) as error:
                if self.connected:
                    log.warning("broker lost", error=str(error))
                    delay = 0.1
                self.connected = False
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

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
                if not self.connected:
                    log.info("broker connected")
                    self.connected = True
                handler = self._handlers.get(message["channel"] or b"")
                if message["type"] == "message" and handler is not None:
                    handler(message["data"])
            elif now - heard > _SILENCE_LIMIT:
                raise TimeoutError("the broker is silent")
            if now - pinged > _PING_EVERY or not self.connected:
                pinged = now
                await subscription.ping()

    async def close(self) -> None:
        await self._client.aclose()
