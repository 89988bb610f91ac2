"""The blocks that are not final yet. They hang on each other by parent, and the first on the last final block."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Generic, TypeVar

from msgspec import Struct

from node.protocol.block import Block, Header, skip_height

Draft = TypeVar("Draft")
"""What the caller of consensus keeps with a block: its decoded payload, the result of executing it, when it was proposed."""


class Verdict(Enum):
    """Whether a block is valid on its parent."""

    OPEN = 0
    VALID = 1
    REFUSED = 2


class PendingBlock(Generic[Draft]):
    """All that is known of one block that is not final. ``size``: of its payload, bytes."""

    __slots__ = ("block", "block_hash", "draft", "size", "verdict")

    def __init__(self, block_hash: bytes, block: Block, draft: Draft | None) -> None:
        self.block_hash, self.block, self.draft = block_hash, block, draft
        self.size = sum(map(len, (*block.bundles, *block.transactions, *block.entries)))
        self.verdict = Verdict.OPEN


class Missing(Struct, frozen=True):
    """A block that is known by hash only. ``view``: of the block through which it was found; who voted for that one has this one,
    too."""

    block_hash: bytes
    view: int


class Tree(Generic[Draft]):
    """Blocks by hash. ``root``: the header of the last final block; ``peaks``: of that, as the method gives them."""

    def __init__(self, root: Header, peaks: Mapping[int, bytes]) -> None:
        self.root, self.root_hash = root, root.hash
        self._peaks = dict(peaks)
        self._blocks: dict[bytes, PendingBlock[Draft]] = {}

    def get(self, block_hash: bytes) -> PendingBlock[Draft] | None:
        return self._blocks.get(block_hash)

    def add(self, block_hash: bytes, block: Block, draft: Draft | None = None) -> PendingBlock[Draft]:
        """Take a block in, unless it is here already."""
        pending = self._blocks.get(block_hash)
        if pending is None:
            pending = self._blocks[block_hash] = PendingBlock(block_hash, block, draft)
        return pending

    def discard(self, block_hash: bytes) -> None:
        """Let go of a block that nothing is built on; if it should matter again, it is fetched."""
        self._blocks.pop(block_hash, None)

    @property
    def size(self) -> int:
        """Payload bytes of all blocks here."""
        return sum(pending.size for pending in self._blocks.values())

    def is_ready(self, block_hash: bytes) -> bool:
        """Whether a block is the root, or here, executed and found valid: the next one can be built on it."""
        pending = self._blocks.get(block_hash)
        return block_hash == self.root_hash or (pending is not None and pending.verdict is Verdict.VALID)

    def is_refused(self, block_hash: bytes) -> bool:
        pending = self._blocks.get(block_hash)
        return pending is not None and pending.verdict is Verdict.REFUSED

    def obstacle(self, block_hash: bytes, view: int) -> PendingBlock[Draft] | Missing | None:
        """What keeps the block of this hash and view from being ready: its first ancestor that is not executed, or a body that
        is missing. None: nothing does, or nothing can be done about it. What descends from a refused block is refused."""
        waiting: list[PendingBlock[Draft]] = []
        while not self.is_ready(block_hash):
            pending = self._blocks.get(block_hash)
            if pending is None:
                return Missing(block_hash, view)
            waiting.append(pending)
            header = pending.block.header
            if pending.verdict is Verdict.REFUSED or header.height <= self.root.height:
                for descendant in waiting:
                    descendant.verdict = Verdict.REFUSED
                return None
            block_hash, view = header.parent, header.view
        return waiting[-1] if waiting else None

    def branch(self, block_hash: bytes) -> Iterator[PendingBlock[Draft]]:
        """A block and its ancestors, as far as they are here."""
        while (pending := self._blocks.get(block_hash)) is not None:
            yield pending
            block_hash = pending.block.header.parent

    def peaks(self, block_hash: bytes) -> dict[int, bytes]:
        """Hashes by height: of a block that is ready, and of all that skips lead to from it, down to height 0."""
        found: dict[int, bytes] = {}
        reached = self.root.height
        while (pending := self._blocks.get(block_hash)) is not None:
            header = pending.block.header
            found[header.height] = block_hash
            block_hash, reached = header.skip, skip_height(header.height)
        return found | {height: peak for height, peak in self._peaks.items() if height <= reached}

    def skip_after(self, block_hash: bytes) -> bytes:
        """The ``skip`` of a header whose parent is this block, which is ready. It is among the parent's peaks."""
        peaks = self.peaks(block_hash)
        return peaks[skip_height(max(peaks) + 1)]

    def prune(self, root: Header) -> None:
        """A block is final: none of an earlier view can become final beside its chain. Dead branches of later views stay until
        their time has come."""
        self._peaks = self.peaks(root.hash)
        self.root, self.root_hash = root, root.hash
        self._blocks = {key: pending for key, pending in self._blocks.items() if pending.block.header.view > root.view}
