"""Handing over: a member that is far behind, or new, is given the state as of a checkpoint, part for part.

Which parts there are is in memory, of few hashes; their rows are on disk. While somebody asks for parts of a checkpoint it is
held: what later ones change in its rows is kept beside them. One at a time, for whoever comes meanwhile, and not for long: what
is kept is at most what changes in that time.
"""

from node.effects import Ban, Hold, Send, SendCheckpoint, SendParts
from node.ledger.checkpoint import Outline
from node.ledger.rows import REPLAYED
from node.ledger.state import State
from node.protocol.checkpoint import Branching
from node.protocol.messages import CheckpointRequest, PartsReply, PartsRequest

HELD_AT_MOST = 600_000
"""How long a checkpoint is held, ms. Longer than ten million rows need; who is slower begins again with a newer one."""
_UNASKED = 10_000
"""After which nobody needs it any more, ms."""
_LEFT = 2_000
"""The same, if somebody needs another one."""

Answer = Send | SendCheckpoint | SendParts | Hold | Ban


class HandingOver:
    """``held``: the checkpoint that is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.held: Outline | None = None
        self._since = self._asked_at = 0

    def answer(self, peer: bytes, request: CheckpointRequest | PartsRequest, now: int) -> list[Answer]:
        if isinstance(request, PartsRequest):
            return self._parts(peer, request, now)
        held = self.held if now - self._since < HELD_AT_MOST // 2 else None  # else there may not be time enough
        for offered in (held, self._state.certified):
            if offered is not None and offered.height > request.above:
                return [SendCheckpoint(peer, offered.height, offered.certified_at, offered.root)]
        return []

    def _parts(self, peer: bytes, request: PartsRequest, now: int) -> list[Answer]:
        height, held, newest = request.height, self.held, self._state.certified
        effects: list[Answer] = []
        is_free = held is None or (held.height != height and now - self._asked_at >= _LEFT)
        if is_free and newest is not None and newest.height == height:
            held = self.held = newest
            self._since = now
            effects.append(Hold(height))
        found = next((one for one in (held, newest) if one is not None and one.height == height), None)
        if found is None:
            return [Send(peer, PartsReply(height, ()))]
        if found is held:
            self._asked_at = now
        if not all(map(_is_place, request.places)):
            return [*effects, Ban(peer, "it asked for parts that there are not")]
        known = (Branching(place, found.branches[place]) if place in found.branches else place for place in request.places)
        return [*effects, SendParts(peer, height, tuple(known))]

    def poll(self, now: int) -> list[Hold]:
        """To be called now and then: let go of what nobody needs, or of what was held for long."""
        if self.held is None or (now - self._asked_at < _UNASKED and now - self._since < HELD_AT_MOST):
            return []
        self.held = None
        return [Hold(None)]


def _is_place(place: bytes) -> bool:
    """Whether there is such a part, in some tree. Also one below a part that is here may be asked for: another peer may have sent
    the hashes of its children instead of its rows. Whatever is not among the branches has few rows."""
    return place.endswith(REPLAYED) or all(digit < 16 for digit in place)
