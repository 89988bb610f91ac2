"""How often somebody may try something: counted here, and at the broker for all gateways together while it is there.

An attempt begins a window; when it is over, counting begins anew. What the broker says can only forbid more, never allow: anybody
who reaches it can change its counts.
"""

import asyncio
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.problems import Problem

log = structlog.get_logger()
_MAX_COUNTED = 100_000
_ANSWER_SECONDS = 0.3
"""For which an attempt waits for the broker."""
_IPV6_BITS = 64
"""One customer's network: whoever has one address of it has all."""


class Limit(NamedTuple):
    """``most`` attempts of a kind in ``window`` seconds."""

    kind: str
    most: int
    window: float


class Attempt(NamedTuple):
    """What counts against a limit: ``whose`` attempts."""

    limit: Limit
    whose: str

    @property
    def name(self) -> str:
        return f"{self.limit.kind} {self.whose}"


class _Count(NamedTuple):
    attempts: int
    left: float
    """Seconds of the window."""


class Counts:
    """This process's counts, the latest."""

    def __init__(self, capacity: int = _MAX_COUNTED, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._clock = capacity, clock
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, attempt: Attempt, by: int = 1) -> _Count:
        now, name = self._clock(), attempt.name
        attempts, end = self._windows.get(name, (0, 0.0))
        if end <= now:
            attempts, end = 0, now + attempt.limit.window
        self._windows[name] = (attempts + by, end)
        self._windows.move_to_end(name)
        if len(self._windows) > self._capacity:
            self._windows.popitem(last=False)
        return _Count(attempts + by, end - now)


class SharedCounts:
    """The counts of all gateways of a network, kept by the broker."""

    def __init__(self, url: str, network: bytes, secret: bytes) -> None:
        """``secret``: the gateways' own; without it the names of counts tell nothing."""
        self._redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=_ANSWER_SECONDS)
        self._prefix = f"shardpay:{network.hex()}:attempts"
        self._secret = secret
        self._is_lost = False

    async def add(self, attempts: Sequence[Attempt], by: int = 1) -> list[_Count]:
        """Nothing while the broker does not answer."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), self._redis.pipeline() as pipeline:
                for attempt in attempts:
                    name = self._hidden(attempt)
                    pipeline.set(name, 0, px=round(attempt.limit.window * 1000), nx=True)
                    pipeline.incrby(name, by)
                    pipeline.pttl(name)
                answers = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_lost:
                log.warning("attempts are counted by each gateway alone", error=type(error).__name__)
            self._is_lost = True
            return []
        self._is_lost = False
        return [_Count(count, left / 1000) for count, left in zip(answers[1::3], answers[2::3], strict=True)]

    def _hidden(self, attempt: Attempt) -> str:
        digest = hmac.digest(self._secret, f"shardpay/attempts {attempt.name}".encode(errors="replace"), "sha256")
        return f"{self._prefix}:{digest.hex()[:32]}"

    async def close(self) -> None:
        await self._redis.aclose()


class Throttle:
    """Refuses what is tried too often."""

    def __init__(self, counts: Counts, shared: SharedCounts) -> None:
        self._counts, self._shared = counts, shared

    async def check(self, *attempts: Attempt) -> None:
        """Count attempts. Raises Problem (429) at the first limit that is passed; what comes after it is not counted."""
        for attempt in attempts:
            _judge(attempt.limit, self._counts.add(attempt))
        for attempt, count in zip(attempts, await self._shared.add(attempts), strict=False):
            _judge(attempt.limit, count)

    async def forgive(self, attempt: Attempt) -> None:
        """One that was counted was right after all: others do not see it in what is left for them."""
        self._counts.add(attempt, -1)
        await self._shared.add([attempt], -1)

    async def close(self) -> None:
        await self._shared.close()


def client_of(address: str) -> str:
    """Whom an address stands for: itself, or its network if it is IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and (mapped := parsed.ipv4_mapped) is not None:
        return str(mapped)
    return str(parsed) if parsed.version == 4 else f"{int(parsed) >> 128 - _IPV6_BITS:x}"


def _judge(limit: Limit, count: _Count) -> None:
    if count.attempts > limit.most:
        wait = max(1, math.ceil(count.left))
        raise Problem(429, "too_many_attempts", "too many attempts; wait a little", retry_after=wait, limit=limit.most)
