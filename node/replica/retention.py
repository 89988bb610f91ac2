"""Retention: which final blocks a member need not keep. Their effects are in the state, and who is far behind is handed that."""

from collections import deque

from node.replica.taking_over import FAR_BEHIND

NOTED_EVERY = 64
"""Blocks between those whose times are noted."""


class Retention:
    """``keep``: how many final blocks are kept at least; 0: all of them. ``window``: ms of block time within which none goes, so
    that who sent a payment and was away until no block could include it any more finds what became of it."""

    def __init__(self, keep: int, window: int) -> None:
        self._keep, self._window = keep, window
        self._noted: deque[tuple[int, int]] = deque()
        self._old = 0
        """Height of the last block known to be older than the window."""

    def past(self, height: int, time: int, checkpoint: int) -> int:
        """The height up to which blocks need not be kept, after the block at ``height`` with block time ``time``. ``checkpoint``:
        height of the last one that is certified; who is not so far behind that it takes it over asks for blocks.

        What was final before this member started counts as young until the window has passed.
        """
        if not self._keep:
            return 0
        if height % NOTED_EVERY == 0:
            self._noted.append((height, time))
        while self._noted and self._noted[0][1] + self._window < time:
            self._old = self._noted.popleft()[0]
        return max(0, min(height - self._keep, checkpoint - FAR_BEHIND, self._old))
