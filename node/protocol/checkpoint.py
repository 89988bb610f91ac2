"""Checkpoints between members: what proves one, and the parts that its state is handed over in."""

from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import Header, skip_height
from node.protocol.certificate import Electorate, Finality
from node.protocol.crypto import HASH_BYTES, Hash, digest
from node.protocol.limits import MAX_PART_ROWS, MAX_REPLAY_PART


def next_state_root(before: bytes, changes_hash: bytes, checkpoint: bytes = b"") -> bytes:
    """``Header.state_root``. ``before``: the parent's. ``checkpoint``: at a checkpoint the state root of the one before and the
    root of the tree as of it."""
    return digest("state", before, changes_hash, checkpoint)


class CertifiedCheckpoint(Struct, array_like=True, frozen=True):
    """The header of a checkpoint, and the proof of what its rows are: the next checkpoint's header, whose state root binds the
    state root of the first one and the root of the tree as of it.

    ``before``: the state root of the block before ``certifying``. ``skipped``: the headers that skips lead to from ``header``,
    one after the other, down to height 0, that one left out.
    """

    header: Header
    finality: Finality
    certifying: Header
    certifying_finality: Finality
    before: Hash
    root: Hash
    skipped: Annotated[tuple[Header, ...], Meta(max_length=64)]

    def is_valid(self, electorate: Electorate) -> bool:
        """Whether a quorum of the electorate stands for all of it."""
        header, certifying = self.header, self.certifying
        expected = next_state_root(self.before, certifying.changes_hash, header.state_root + self.root)
        return (
            certifying.state_root == expected
            and self._is_linked()
            and self.finality.proves(header, electorate)
            and self.certifying_finality.proves(certifying, electorate)
        )

    def _is_linked(self) -> bool:
        above = self.header
        for header in self.skipped:
            if header.height == 0 or (skip_height(above.height), above.skip) != (header.height, header.hash):
                return False
            above = header
        return self.header.height > 0 and skip_height(above.height) == 0


class Beginning(Struct, array_like=True, frozen=True):
    """With what a chain that follows on others began on this disk: the header at height 0, and the root of the tree then."""

    header: Header
    root: Hash


Place = Annotated[bytes, Meta(max_length=64)]
"""Which part of a checkpoint: of the tree, the digits that lead to a subtree from the root, a byte each, 0 to 15; of the replay
set, the key of the row for these ids."""


class Branching(Struct, array_like=True, frozen=True, tag=1):
    """A subtree with too many rows for one part: the hashes of its 16 children, one after the other."""

    place: Place
    children: Annotated[bytes, Meta(min_length=16 * HASH_BYTES, max_length=16 * HASH_BYTES)]


class Rows(Struct, array_like=True, frozen=True, tag=2):
    """All rows of a subtree: key and encoded value, by key."""

    place: Place
    rows: Annotated[tuple[tuple[bytes, bytes], ...], Meta(max_length=MAX_PART_ROWS)]


class Ids(Struct, array_like=True, frozen=True, tag=3):
    """All ids that a row of the replay set commits to, one after the other."""

    place: Place
    ids: Annotated[bytes, Meta(max_length=MAX_REPLAY_PART * HASH_BYTES)]


Part = Branching | Rows | Ids


def work_of(part: Part) -> int:
    """What it takes to check a part, in rows: half as much for an id."""
    match part:
        case Branching():
            return 0
        case Rows(_, rows):
            return len(rows)
        case Ids(_, ids):
            return len(ids) // HASH_BYTES // 2
