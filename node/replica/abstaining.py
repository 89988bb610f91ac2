"""Abstaining: a member that may have lost its votes finds out which views it cannot have voted in."""

from node.protocol.certificate import Electorate
from node.protocol.messages import Standing

_MAX_CLAIM = 1_000


class Abstaining:
    """Collects what the others say of how far they voted.

    A member whose votes are lost may have voted in the view after the greatest one it could have left. It left none without a
    quorum's votes, and of 2f+1 other members one at least is honest and was of that quorum. Claims are not proven, so one far
    beyond the views this member has come to know counts for no more than ``_MAX_CLAIM`` of them.
    """

    def __init__(self, electorate: Electorate) -> None:
        self._needed = min(2 * electorate.faults_tolerated + 1, len(electorate.keys) - 1)
        self._voted: dict[bytes, int] = {}

    def heard(self, peer: bytes, standing: Standing) -> None:
        self._voted[peer] = max(standing.view, standing.voted)

    def through(self, view: int) -> int | None:
        """The last view to abstain from, for a member that knows of ``view``; None while too few have spoken."""
        if len(self._voted) < self._needed:
            return None
        return min(max(self._voted.values(), default=-1), view + _MAX_CLAIM) + 1
