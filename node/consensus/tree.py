"""The blocks that are not final yet. They hang on each other by parent, and the first on the last final block."""

from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

from node.protocol.block import Block

Draft = TypeVar("Draft")
"""What the caller of consensus keeps with a block: its decoded payload, the result of executing it, when it was proposed."""


class Verdict(Enum):
    """Whether a block is valid on its parent."""

    OPEN = 0
    VALID = 1
    REFUSED = 2


class PendingBlock(Generic[Draft]):
    """All that is known of one block that is not final."""

    __slots__ = ("block", "block_hash", "draft", "verdict")

    def __init__(self, block_hash: bytes, block: Block, draft: Draft | None) -> None:
        self.block_hash, self.block, self.draft = block_hash, block, draft
        self.verdict = Verdict.OPEN


class Tree(Generic[Draft]):
    """Blocks by hash."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, PendingBlock[Draft]] = {}

    def get(self, block_hash: bytes) -> PendingBlock[Draft] | None:
        return self._blocks.get(block_hash)

    def add(self, block_hash: bytes, block: Block, draft: Draft | None = None) -> PendingBlock[Draft]:
        """Take a block in, unless it is here already."""
        return self._blocks.setdefault(block_hash, PendingBlock(block_hash, block, draft))

    def is_valid(self, block_hash: bytes) -> bool:
        """Whether a block is here, executed and found valid."""
        pending = self._blocks.get(block_hash)
        return pending is not None and pending.verdict is Verdict.VALID

    def is_refused(self, block_hash: bytes) -> bool:
        pending = self._blocks.get(block_hash)
        return pending is not None and pending.verdict is Verdict.REFUSED

    def branch(self, block_hash: bytes) -> Iterator[PendingBlock[Draft]]:
        """A block and its ancestors, as far as they are here."""
        while (pending := self._blocks.get(block_hash)) is not None:
            yield pending
            block_hash = pending.block.header.parent

    def prune(self, view: int) -> None:
        """A block of ``view`` is final: none of an earlier view can become final beside its chain."""
        self._blocks = {key: pending for key, pending in self._blocks.items() if pending.block.header.view > view}
