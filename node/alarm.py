"""An alarm that is set anew again and again, mostly for later: cheaper than a time limit on each wait."""

from collections.abc import Callable
from math import inf

import trio


class Alarm:
    """``ring`` is called when it is due, once each time it was set."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = inf
        self._scope = trio.CancelScope()

    def set(self, at: float) -> None:
        """Due at ``at``, trio's seconds, and no more at any time before."""
        self._at = at
        if at < self._scope.deadline:
            self._scope.deadline = at

    async def run(self) -> None:
        """Until cancelled. One that was set for later meanwhile is looked at when it was due first."""
        while True:
            with trio.CancelScope(deadline=self._at) as self._scope:
                await trio.sleep_forever()
            if trio.current_time() >= self._at:
                self._at = inf
                self._ring()
