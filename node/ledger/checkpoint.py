"""The commitment to the state as of the last checkpoint, worked out a share with every block until its root is due.

What a share costs follows from the number of rows written between two checkpoints alone, not from how many rows there are or
which were written.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from node.ledger.commitment import EMPTY_TREE, branches, updated
from node.ledger.table import LOW, Table
from node.protocol.codec import encode
from node.protocol.limits import MAX_PART_ROWS

_LOTS = 256
_LOADED = 1 << 16
_FREED = 8


class Slice(NamedTuple):
    """Rows of the checkpoint at ``height`` for the disk (key, encoded value; None: no such row any more)."""

    height: int
    rows: tuple[tuple[bytes, bytes | None], ...]
    certified_at: int | None
    """The height of the header that has the root, with the last slice; else None, and for the genesis."""


class Outline(NamedTuple):
    """The checkpoint at ``height``, whose root the final header at ``certified_at`` has; and of its tree what is not in parts:
    ``commitment.branches``."""

    height: int
    certified_at: int
    root: bytes
    branches: dict[bytes, bytes]


class Checkpointing:
    """Attributes:
    height: of the last checkpoint.
    due: height of the next, whose header has the root as of this one.
    certified: the last one whose root is certified, if one became so since the start.
    """

    def __init__(self, height: int, due: int) -> None:
        self.height, self.due = height, due
        self.certified: Outline | None = None
        self._tree = EMPTY_TREE
        self._left, self._written = _Rows(), _Rows()
        self._share = 0
        self._hashed: list[tuple[bytes, bytes | None]] = []
        self._emptied: list[dict[bytes, object | None]] = []
        """Parts of tables whose memory is given back a few at a time: for millions of rows even that takes long."""

    @classmethod
    def load(cls, height: int, due: int, rows: Iterable[tuple[bytes, object]]) -> "Checkpointing":
        """As of a checkpoint whose rows are known."""
        loaded, left = cls(height, due), _Rows()
        left.put(rows)
        while part := left.take(_LOADED):
            loaded._tree = updated(loaded._tree, part)
        return loaded

    @property
    def written(self) -> "Table[object | None]":
        """The rows written since the checkpoint, with their last values; None for those deleted."""
        return self._written.values

    def write(self, rows: Iterable[tuple[bytes, object | None]]) -> None:
        """Rows (key, value) are written after the checkpoint. None: deleted."""
        self._written.put(rows)

    def advance(self, height: int, next_checkpoint: int) -> Slice:
        """The block at ``height`` became final: do its share. ``next_checkpoint``: after it."""
        del self._emptied[-_FREED:]
        if height < self.due:
            self._hash(self._share)
            return Slice(self.height, self._take(), None)
        self._hash(len(self._left.values))
        last = Slice(self.height, self._take(), height if self.height else None)
        if self.height:
            self.certified = Outline(self.height, height, self._tree.root, branches(self._tree, MAX_PART_ROWS))
        self.height, self.due = height, next_checkpoint
        self._emptied += self._left.values.parts
        self._left, self._written = self._written, _Rows()
        blocks = next_checkpoint - height
        self._share = -(-len(self._left.values) // (blocks - blocks // 10))  # the last tenth may not be final when it is due
        return last

    def root(self, later: Iterable[tuple[bytes, object | None]] = ()) -> bytes:
        """The root as of the checkpoint, or with ``later`` rows on top of it. Does at once what is left of the work."""
        self._hash(len(self._left.values))
        return updated(self._tree, later).root

    def _take(self) -> tuple[tuple[bytes, bytes | None], ...]:
        rows, self._hashed = tuple(self._hashed), []
        return rows

    def _hash(self, count: int) -> None:
        rows = self._left.take(count)
        self._tree = updated(self._tree, rows)
        self._hashed += [(key, None if value is None else encode(value)) for key, value in rows]


_Lot = tuple[bytes, "_Lot"] | tuple[()]


class _Rows:
    """Rows that can be taken a few at a time, neighbours in the tree together. Which these are is nobody's business but ours:
    the root is the same in any order. Lots are linked tuples: the garbage collector does not visit those again and again."""

    def __init__(self) -> None:
        self.values: Table[object | None] = Table()
        self._lots: list[_Lot] = [()] * _LOTS

    def put(self, rows: Iterable[tuple[bytes, object | None]]) -> None:
        parts, lots = self.values.parts, self._lots
        for key, value in rows:
            part = parts[hash(key) & LOW]
            if key not in part:
                lot = sha256(key).digest()[0]
                lots[lot] = (key, lots[lot])
            part[key] = value

    def take(self, count: int) -> list[tuple[bytes, object | None]]:
        parts, lots = self.values.parts, self._lots
        taken: list[tuple[bytes, object | None]] = []
        while len(taken) < count and lots:
            if not lots[-1]:
                lots.pop()
                continue
            key, lots[-1] = lots[-1]
            taken.append((key, parts[hash(key) & LOW].pop(key)))
        return taken
