"""Catching up: a member that is behind asks a peer for the final blocks it lacks, one request at a time."""

_PATIENCE = 300
_FAR_BEHIND = 8
_TIMEOUT = 3_000
_PACE = 120
"""Between two requests to one peer: a little longer than it takes until a peer serves the next."""
_FAR_AWAY = 1 << 62


class CatchingUp:
    """Decides whom to ask for blocks, and when. Times are monotonic milliseconds; peers are public keys.

    A block more elsewhere is normal while votes are under way; so a member asks when it lags many blocks, or any for a
    while without moving. Peers take turns, so one that only boasts cannot keep it from the others.
    """

    def __init__(self, height: int, now: int) -> None:
        self._heights: dict[bytes, int] = {}
        self._height = height
        self._moved_at = now
        self._asked: tuple[bytes, int] | None = None
        self._last_asked: dict[bytes, int] = {}
        self.deadline = _FAR_AWAY
        """When ``next_request`` is to be called again, if nothing happens before (ms, monotonic)."""

    @property
    def target(self) -> int:
        """The greatest height a peer has spoken of."""
        return max(self._heights.values(), default=0)

    def heard(self, peer: bytes, height: int) -> None:
        """A peer's status."""
        self._heights[peer] = height

    def lost(self, peer: bytes) -> None:
        """A peer is gone."""
        self._heights.pop(peer, None)
        if self._asked is not None and self._asked[0] == peer:
            self._asked = None

    def moved(self, height: int, now: int) -> None:
        """The own final height grew."""
        self._height, self._moved_at = height, now

    def answered(self, peer: bytes) -> bool:
        """A peer sent blocks; whether it was asked."""
        expected = self._asked is not None and self._asked[0] == peer
        if expected:
            self._asked = None
        return expected

    def next_request(self, now: int) -> bytes | None:
        """The peer to ask now for the blocks after the own final one, or None. Counts as asked."""
        self.deadline = _FAR_AWAY
        if self._asked is not None:
            if now - self._asked[1] < _TIMEOUT:
                return None
            self._asked = None
        ahead = {peer: height for peer, height in self._heights.items() if height > self._height}
        if not ahead:
            return None
        if max(ahead.values()) - self._height < _FAR_BEHIND and now - self._moved_at < _PATIENCE:
            return None
        peer = min(ahead, key=lambda peer: (self._last_asked.get(peer, -_PACE), peer))
        if now - self._last_asked.get(peer, -_PACE) < _PACE:
            self.deadline = self._last_asked[peer] + _PACE
            return None
        self._asked, self._last_asked[peer] = (peer, now), now
        return peer
