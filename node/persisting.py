"""Which records have to be on disk now, and which may go there with the next that have to.

What this node binds itself to - votes, pledges, the epoch document - is stored before anything is said. A final block binds
nobody: a quorum has its votes on disk, from which it comes again. So it waits for the next vote, and a block costs one durable
write less. Pure.
"""

from collections.abc import Sequence

from node.effects import (
    Checkpoint,
    Commit,
    Effect,
    Persist,
    ReplyBlocks,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    StoreParts,
)
from node.protocol.checkpoint import Ids

_MOST_BYTES = 1 << 20
_LONGEST = 1_000
"""A record waits so many ms at most, if there are events meanwhile, and with so many bytes of others."""


class Persisting:
    """The records that wait, in order."""

    def __init__(self) -> None:
        self._waiting: list[Persist] = []
        self._bytes = 0
        self._since = 0

    def take(self, effects: Sequence[Effect], now: int) -> list[Persist]:
        """What is to be stored, all of it at once, before any other of ``effects`` is performed. ``now``: ms, monotonic."""
        if not self._waiting:
            self._since = now
        is_due = now - self._since >= _LONGEST
        for effect in effects:
            match effect:
                case Commit() | Checkpoint() | StoreParts():
                    self._waiting.append(effect)
                    self._bytes += _size(effect)
                case SendBlocks() | SendBundles() | ReplyBlocks() | SendCheckpoint() | SendParts():  # they are read from storage
                    is_due = True
                case _ if isinstance(effect, Persist):
                    self._waiting.append(effect)
                    is_due = True
        return self.flush() if is_due or self._bytes > _MOST_BYTES else []

    def flush(self) -> list[Persist]:
        """All that waits."""
        due, self._waiting, self._bytes = self._waiting, [], 0
        return due


def _size(effect: Commit | Checkpoint | StoreParts) -> int:
    if isinstance(effect, StoreParts):
        return sum(
            len(part.ids) if isinstance(part, Ids) else sum(len(key) + len(value) for key, value in part.rows)
            for part in effect.parts
        )
    if isinstance(effect, Checkpoint):
        return sum(len(key) + len(value or b"") for key, value in effect.rows)
    return len(effect.encoded) + sum(len(bundle) for _, _, bundle in effect.bundles)
