"""Virtual time: a heap of events, run in order; events of one instant run in the order they were planned."""

import heapq
from collections.abc import Callable
from itertools import count


class Loop:
    """Time is in ms from 0. Nothing here reads a clock, so a run is a function of what it is started with."""

    def __init__(self) -> None:
        self.time = 0
        self.events = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, delay: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.time + max(0, delay), next(self._order), event))

    def run(self, until: int, condition: Callable[[], bool] | None = None) -> bool:
        """Run events up to a time (ms), or until a condition holds after one; returns whether it does."""
        while self._heap and self._heap[0][0] <= until:
            if condition is not None and condition():
                return True
            self.time, _, event = heapq.heappop(self._heap)
            self.events += 1
            event()
        if condition is not None:
            return condition()
        self.time = max(self.time, until)
        return False
