"""Catching up: a member that is behind asks its peers for the final blocks it lacks, and is not kept waiting by any of them."""

from msgspec import Struct

_PATIENCE = 300
_FAR_BEHIND = 8
_TIMEOUT = 3_000
_SLOW = 250
_MAX_REQUESTS = 3
"""Under way at once. Only one of them is new; the others' peers are slow. Each answer is one frame at most."""

_PACE = 120
"""Between two requests to one peer: a little longer than it takes until a peer serves the next."""

_MAX_PENALTY = 6
_FAR_AWAY = 1 << 62


class _Request(Struct, frozen=True):
    """For blocks from height ``first`` on."""

    first: int
    at: int


class _Peer(Struct):
    """``failures``: requests in a row that it did not answer. ``not_before``: when it may be asked again."""

    height: int = 0
    failures: int = 0
    not_before: int = 0
    last_asked: int = -1


class CatchingUp:
    """Decides whom to ask for blocks, and when. Times are monotonic milliseconds; peers are public keys.

    A block more elsewhere is normal while votes are under way; so a member asks when it lags many blocks, or any for a while
    without moving. Peers take turns. When one is slow, the next is asked for the same blocks; one that does not answer at all is
    asked after all others, and each time only after twice as long, a minute at most.

    ``patience``: ms without moving after which a few blocks are asked for, too.
    """

    def __init__(self, height: int, now: int, patience: int = _PATIENCE) -> None:
        self._patience = patience
        self._peers: dict[bytes, _Peer] = {}
        self._height = self._greatest = height
        """The own height, and one that no peer has spoken of more than."""
        self._moved_at = now
        self._requests: dict[bytes, _Request] = {}
        self._usual = 0
        """How long answers take, ms, the newest counting an eighth."""
        self.deadline = _FAR_AWAY
        """When ``next_request`` is to be called again, if nothing happens before (ms, monotonic)."""

    @property
    def target(self) -> int:
        """The greatest height that a peer has spoken of which answers."""
        return max((peer.height for peer in self._peers.values() if not peer.failures), default=0)

    @property
    def told(self) -> list[int]:
        """How high peers that are connected say they are, the highest first."""
        return sorted((peer.height for peer in self._peers.values() if peer.height), reverse=True)

    def heard(self, peer: bytes, height: int) -> None:
        """A peer's status."""
        self._peers.setdefault(peer, _Peer()).height = height
        self._greatest = max(self._greatest, height)

    def hurry(self, height: int) -> None:
        """The chain ends at this height, so it will not move by itself: peers have the last block, or will at once."""
        self._patience = 0
        for peer in self._peers.values():
            peer.height = max(height, peer.height) if peer.height else 0
            self._greatest = max(self._greatest, peer.height)

    def lost(self, peer: bytes) -> None:
        """A peer is gone. That it failed is not forgotten."""
        self._requests.pop(peer, None)
        if peer in self._peers:
            self._peers[peer].height = 0

    def moved(self, height: int, now: int) -> None:
        """The own final height grew."""
        self._height, self._moved_at = height, now

    def answered(self, peer: bytes, first: int, now: int) -> bool:
        """A peer sent blocks from height ``first`` on; whether it was asked for them."""
        request = self._requests.get(peer)
        if request is None or request.first != first:
            return False
        del self._requests[peer]
        self._usual += (now - request.at - self._usual) // 8
        self._peers[peer].failures = 0
        return True

    def next_request(self, now: int) -> tuple[bytes, int] | None:
        """The peer to ask now, and from which height on, or None. Counts as asked."""
        self.deadline = _FAR_AWAY
        if self._greatest <= self._height and not self._requests:
            return None
        self._give_up(now)
        ahead = {key: peer for key, peer in self._peers.items() if peer.height > self._height}
        greatest = self._greatest = max((peer.height for peer in ahead.values()), default=self._height)
        if not ahead or (greatest - self._height < _FAR_BEHIND and now - self._moved_at < self._patience):
            return None
        slow = max(_SLOW, 2 * self._usual)
        youngest = max((request.at for request in self._requests.values()), default=now - slow)
        if len(self._requests) >= _MAX_REQUESTS:
            return None  # until one is answered, or given up
        if now - youngest < slow:
            self._wake_at(youngest + slow)
            return None
        free = [(peer.failures, peer.last_asked, key) for key, peer in ahead.items() if key not in self._requests]
        ready = [choice for choice in free if ahead[choice[2]].not_before <= now]
        if not ready:
            self._wake_at(min((ahead[key].not_before for _, _, key in free), default=_FAR_AWAY))
            return None
        _, _, key = min(ready)
        ahead[key].last_asked, ahead[key].not_before = now, now + _PACE
        self._requests[key] = _Request(self._height + 1, now)
        self._wake_at(now + slow)
        return key, self._height + 1

    def _give_up(self, now: int) -> None:
        """On requests that were not answered in time."""
        for key in [key for key, request in self._requests.items() if now - request.at >= _TIMEOUT]:
            del self._requests[key]
            peer = self._peers[key]
            peer.failures += 1
            peer.not_before = now + (1_000 << min(peer.failures - 1, _MAX_PENALTY))
        if self._requests:
            self._wake_at(min(request.at for request in self._requests.values()) + _TIMEOUT)

    def _wake_at(self, at: int) -> None:
        self.deadline = min(self.deadline, at)
