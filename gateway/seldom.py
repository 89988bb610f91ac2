"""Warnings that a stranger can cause as often as he likes: anybody who reaches the broker can publish nonsense."""

import re
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()
EVERY = 60.0
"""Seconds between two lines of a kind."""
_MAX_KINDS = 100


class Seldom:
    """Logs each kind of text once in ``EVERY`` seconds; the next line of it says how many were left out. Texts that differ by
    numbers and hashes alone are of one kind."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}

    def warn(self, text: str) -> None:
        kind, now = re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "#", text), self._clock()
        last, left_out = self._said.get(kind, (now - EVERY, 0))
        if now - last < EVERY:
            self._said[kind] = (last, left_out + 1)
            return
        if len(self._said) >= _MAX_KINDS:
            self._said = {one: said for one, said in self._said.items() if now - said[0] < EVERY}
        if kind in self._said or len(self._said) < _MAX_KINDS:
            self._said[kind] = (now, 0)
            log.warning(text, **({"left_out": left_out} if left_out else {}))
