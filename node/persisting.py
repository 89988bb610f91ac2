"""Which records have to be on disk now, and which may go there with the next that have to.

What this node binds itself to - votes, pledges, the epoch document - is stored before anything is said. A final block binds
nobody: a quorum has its votes on disk, from which it comes again. So it waits for the next vote in its chain, and a block costs
one durable write less. Pure.
"""

from collections.abc import Sequence

from node.effects import (
    Abandon,
    ChainEffect,
    Checkpoint,
    Commit,
    In,
    NodeEffect,
    Recover,
    ReplyBlocks,
    Retire,
    Row,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    StoreParts,
)
from node.protocol.chain import Chain
from node.protocol.checkpoint import Ids

_MOST_BYTES = 1 << 20
_LONGEST = 1_000
"""A record waits so many ms at most, if there are events meanwhile, and with so many bytes of others of its chain."""


class Persisting:
    """The records that wait, by chain."""

    def __init__(self) -> None:
        self._waiting: dict[Chain, _Waiting] = {}

    def take(self, effects: Sequence[NodeEffect], now: int) -> list[tuple[Chain, list[Row]]]:
        """What is to be stored of chains, all of one at once, before any other of ``effects`` is performed.

        ``now``: ms, monotonic.
        """
        for effect in effects:
            if isinstance(effect, Abandon):
                self._waiting.pop(effect.chain, None)
            if isinstance(effect, Retire) and effect.chain in self._waiting:
                self._of(effect.chain).is_read = True
            if isinstance(effect, In):
                self._of(effect.chain).add(effect.effect, now)
                if isinstance(effect.effect, Recover):
                    for origin in effect.effect.origins:
                        self._of(origin.state.rules.chain).is_read = True
        return self._flush([chain for chain, waiting in self._waiting.items() if waiting.is_due(now)])

    def flush(self) -> list[tuple[Chain, list[Row]]]:
        """All that waits."""
        return self._flush(list(self._waiting))

    def _of(self, chain: Chain) -> "_Waiting":
        return self._waiting.setdefault(chain, _Waiting())

    def _flush(self, chains: Sequence[Chain]) -> list[tuple[Chain, list[Row]]]:
        due = [(chain, self._waiting.pop(chain).rows) for chain in chains]
        return [(chain, rows) for chain, rows in due if rows]


class _Waiting:
    """The rows of one chain, in order. ``is_read``: the chain is to be read from storage."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.is_read = False
        self._binds = False
        self._bytes = self._since = 0

    def add(self, effect: ChainEffect, now: int) -> None:
        match effect:
            case Commit() | Checkpoint() | StoreParts():
                self._bytes += _size(effect)
            case SendBlocks() | SendBundles() | ReplyBlocks() | SendCheckpoint() | SendParts() | Recover():
                self.is_read = True
            case _ if isinstance(effect, Row):
                self._binds = True
        if isinstance(effect, Row):
            if not self.rows:
                self._since = now
            self.rows.append(effect)

    def is_due(self, now: int) -> bool:
        return self.is_read or self._binds or self._bytes > _MOST_BYTES or now - self._since >= _LONGEST


def _size(effect: Commit | Checkpoint | StoreParts) -> int:
    if isinstance(effect, StoreParts):
        return sum(
            len(part.ids) if isinstance(part, Ids) else sum(len(key) + len(value) for key, value in part.rows)
            for part in effect.parts
        )
    if isinstance(effect, Checkpoint):
        return sum(len(key) + len(value or b"") for key, value in effect.rows)
    return len(effect.encoded) + sum(len(bundle) for _, _, bundle in effect.bundles)
