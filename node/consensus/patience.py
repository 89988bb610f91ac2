"""Patience: how long the current view may take, and what it says of its leader when it took longer (rules 4 and 7)."""

from msgspec import Struct

from node.consensus.round import Seat
from node.consensus.suspicion import Suspicion

_MAX_BACKOFF = 8
_PROBATION = 4
_LATE = 8
_USUAL = 4
PATIENT_ROUNDS = 2
"""Rounds of views without a final block after which nobody is suspected any more."""


class Timeouts(Struct, frozen=True):
    """Milliseconds. ``view``: a view with a live leader ends within it, even when there is no work. ``busy``: within it after
    work waits. ``retransmit``: between repetitions when it does not end; a leader that is tried, or was never heard of, has a
    quarter of it, and a leader with work that takes more than an eighth, and more than four times what others take, is late."""

    view: int
    busy: int
    retransmit: int


class Patience:
    """The timer of one view at a time. Times are monotonic ms.

    Attributes:
        deadline: when the view is to be given up, or what was said to be repeated.
        is_patient: no block was final for two rounds. Whatever is suspected may be what keeps it so: nobody is skipped, everybody
            has the full time, until there is one again.
    """

    def __init__(self, seat: Seat, timeouts: Timeouts) -> None:
        members = len(seat.electorate.keys)
        self.suspicion = Suspicion(seat.member, members, seat.electorate.faults_tolerated)
        self.deadline = 0
        self.is_patient = False
        self._member, self._rounds, self._timeouts = seat.member, PATIENT_ROUNDS * members, timeouts
        self._given_up = 0
        """Views in a row."""
        self._leader = seat.member
        self._is_judged = self._is_tried = False
        self._work_at: int | None = None
        self._came_at: int | None = None

    def enter(self, leader: int, now: int, since_final: int, is_expected: bool) -> bool:
        """A view begins, ``since_final`` views after the last final block. ``is_expected``: right after the one before; who comes
        late cannot tell who is to blame. Returns whether to skip its leader."""
        self.is_patient = since_final > self._rounds
        if self.is_patient:
            self.suspicion.clear()
        skips = self.suspicion.skips(leader)
        self._leader, self._is_tried = leader, self.suspicion.tries(leader)
        self.suspicion.passed(leader)
        self._is_judged = leader == self._member or not is_expected
        self._work_at = self._came_at = None
        self.deadline = now + self._timeouts.view * self._backoff
        return skips

    @property
    def knows_of_work(self) -> bool:
        return self._work_at is not None

    def work_waits(self, now: int) -> None:
        """From now on the leader of this view has no reason to wait."""
        if self._work_at is None:
            self._work_at = now
            is_sure = self.suspicion.is_there(self._leader) and not self._is_tried
            wait = self._timeouts.busy if is_sure else self._timeouts.retransmit // _PROBATION
            if not self.is_patient:
                self.deadline = min(self.deadline, now + wait * self._backoff)

    def came(self, now: int) -> None:
        """The leader's proposal is here."""
        if self._came_at is None:
            self._came_at = now

    def blame(self) -> None:
        """The leader failed; counted once in a view."""
        if not self._is_judged:
            self._is_judged = True
            self.suspicion.failed(self._leader)

    def ended(self, is_notarized: bool) -> None:
        """The view ended in time. That others nullified it says nothing of its leader: they may be framing it."""
        if self._is_judged or not is_notarized:
            return
        if self._work_at is not None and self._came_at is not None:
            delay = max(0, self._came_at - self._work_at)
            limit = max(self._timeouts.retransmit // _LATE, _USUAL * self.suspicion.usual(self._leader))
            self.suspicion.took(self._leader, delay)
            if delay > limit:
                self.blame()
                return
        self.suspicion.succeeded(self._leader)

    def progressed(self) -> None:
        """A block is notarized or final: the times are as at first."""
        self._given_up = 0

    def gave_up(self) -> None:
        """The time is over."""
        self._given_up += 1
        self.blame()

    def wait_again(self, now: int) -> None:
        """Until the next repetition."""
        self.deadline = now + self._timeouts.retransmit * self._backoff

    @property
    def _backoff(self) -> int:
        return min(_MAX_BACKOFF, 1 << min(self._given_up, 3))
