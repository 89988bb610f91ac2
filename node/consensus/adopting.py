"""Adopting: final blocks that a peer sent to who is behind. Each proves itself, or its sender is a liar."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from node.protocol.block import Header
from node.protocol.certificate import Electorate, FinalBlock


class Forged(Exception):
    """A peer sent what no honest one sends."""


def are_final(blocks: Sequence[FinalBlock], electorate: Electorate) -> bool:
    """Whether these consecutive blocks are: the last one is, and so all that it goes back to. That costs one certificate."""
    follow = all(block.block.header.parent == before.block.header.hash for before, block in pairwise(blocks))
    have_theirs = all(final.block.payload_root() == final.block.header.payload_root for final in blocks)
    return follow and have_theirs and blocks[-1].finality.proves(blocks[-1].block.header, electorate)


class Adopting:
    """The blocks of one reply, lowest first, that are not final here yet. ``sender``: who sent them."""

    def __init__(self, electorate: Electorate) -> None:
        self._electorate = electorate
        self._blocks: deque[FinalBlock] = deque()
        self._proven: FinalBlock | None = None
        self.sender = b""

    def offer(self, sender: bytes, blocks: Sequence[FinalBlock]) -> None:
        """What was left of another reply is dropped."""
        self.sender, self._blocks = sender, deque(blocks)

    def following(self, root: Header, root_hash: bytes) -> FinalBlock | None:
        """The block after the last final one, proven. Raises Forged, and drops the rest, if it is not."""
        while self._blocks and self._blocks[0].block.header.height <= root.height:
            self._blocks.popleft()
        if not self._blocks:
            return None
        final = self._blocks[0]
        if final is not self._proven:
            header, block = final.block.header, final.block
            follows = header.parent == root_hash and block.payload_root() == header.payload_root
            if not follows or not final.finality.proves(header, self._electorate):
                self._blocks.clear()
                raise Forged("a final block that does not prove itself")
            self._proven = final
        return final
