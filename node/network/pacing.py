"""Token buckets: how much of something is taken in a second. Pure: the time is an input."""


class Bucket:
    """Fills with ``rate`` a second, up to ``burst``. What is taken may leave it in debt, which is paid off by waiting."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = 0.0

    def take(self, amount: float, now: float) -> None:
        """Take ``amount``, there or not. ``now``: seconds, of any clock that does not go back."""
        self._fill(now)
        self._level -= amount

    def wait(self, now: float) -> float:
        """Seconds until it is out of debt."""
        self._fill(now)
        return max(0.0, -self._level / self._rate)

    def has_any(self, now: float, beyond: float = 0.0) -> bool:
        """Whether something may be taken now, of what is ``beyond`` so much."""
        self._fill(now)
        return self._level > beyond

    def _fill(self, now: float) -> None:
        if self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
