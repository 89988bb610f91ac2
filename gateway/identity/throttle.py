"""How often somebody may try something."""

import time
from collections import OrderedDict, deque

from gateway.problems import Problem


class Throttle:
    """At most ``limit`` attempts per key in ``window`` seconds. Remembers a bounded number of keys, the latest."""

    def __init__(self, limit: int, window: float, capacity: int = 10_000) -> None:
        self._limit, self._window, self._capacity = limit, window, capacity
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Count an attempt. Raises Problem (429) when there were too many."""
        now = time.monotonic()
        attempts = self._attempts.setdefault(key, deque())
        self._attempts.move_to_end(key)
        if len(self._attempts) > self._capacity:
            self._attempts.popitem(last=False)
        while attempts and attempts[0] < now - self._window:
            attempts.popleft()
        if len(attempts) >= self._limit:
            wait = int(attempts[0] + self._window - now) + 1
            raise Problem(429, "too_many_attempts", "too many attempts; wait a little", retry_after=wait)
        attempts.append(now)
