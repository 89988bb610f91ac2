"""Suspicion: which leaders are passed over, and for how long (rule 7). Counted in turns, so it costs nothing to wait."""

from statistics import median

_MAX_FAILURES = 9


class Suspicion:
    """One member's, of the leaders of its committee; nobody is told of it, and nobody is believed.

    Who failed k times in a row is skipped for its next 2^(k-1) turns, 256 at most, and then tried again, once something was heard
    of it. At most ``most`` leaders, those that failed most often, are skipped at a time: no framing can have more of them passed
    over than may be faulty.
    """

    def __init__(self, member: int, members: int, most: int) -> None:
        self._member, self._most = member, most
        self._failures = [0] * members
        self._pauses = [0] * members
        """Turns that each is still skipped for."""
        self._is_silent = [False] * members
        """Whether nothing was heard of each since it failed."""
        self._is_there = [m == member for m in range(members)]
        """Whether anything was ever heard of each."""
        self._delays = [0] * members
        """How long each took to propose last, ms."""

    def skips(self, leader: int) -> bool:
        """Whether a leader's turn is to be passed over now. Never one's own."""
        paused = [m for m, pause in enumerate(self._pauses) if pause and m != self._member]
        paused.sort(key=lambda m: (-self._failures[m], m))
        return leader in paused[: self._most]

    def tries(self, leader: int) -> bool:
        """Whether it is on probation: its pause is over, and it has not succeeded since."""
        return self._failures[leader] > 0 and self._pauses[leader] == 0

    def is_there(self, leader: int) -> bool:
        """Whether it has begun: when a chain opens, a member may come to it later than others."""
        return self._is_there[leader]

    def passed(self, leader: int) -> None:
        """A turn of a leader begins, skipped or not."""
        least = 1 if self._is_silent[leader] else 0
        self._pauses[leader] = max(least, self._pauses[leader] - 1)

    def heard(self, member: int) -> None:
        """It is not dead."""
        self._is_silent[member] = False
        self.came(member)

    def came(self, member: int) -> None:
        """It has begun."""
        self._is_there[member] = True

    def failed(self, leader: int) -> None:
        self._failures[leader] = min(self._failures[leader] + 1, _MAX_FAILURES)
        self._pauses[leader] = 1 << (self._failures[leader] - 1)
        self._is_silent[leader] = True

    def succeeded(self, leader: int) -> None:
        self._failures[leader] = self._pauses[leader] = 0
        self._is_silent[leader] = False

    def took(self, leader: int, delay: int) -> None:
        """A leader that had work proposed after so many ms."""
        self._delays[leader] = delay

    def usual(self, leader: int) -> int:
        """What the other leaders took, ms: half of them less, half of them more."""
        others = [delay for m, delay in enumerate(self._delays) if m not in (leader, self._member)]
        return int(median(others)) if others else 0

    def clear(self) -> None:
        """Suspect nobody."""
        self._failures = [0] * len(self._failures)
        self._pauses = [0] * len(self._pauses)
        self._is_silent = [False] * len(self._is_silent)
