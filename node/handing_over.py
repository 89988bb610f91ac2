"""What is read from storage for a member that is handed the state: the proof of a checkpoint, and its parts."""

from collections.abc import Sequence

from node.ledger.rows import REPLAYED, Replayed
from node.protocol.block import Header, skip_height
from node.protocol.certificate import CertifiedBlock
from node.protocol.checkpoint import Branching, CertifiedCheckpoint, Ids, Part, Rows, work_of
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import HASH_BYTES, ZERO_HASH
from node.protocol.limits import MAX_PART_ROWS, MAX_STORED_BYTES
from node.storage import Storage

_PARTS_BYTES = 1 << 20
"""In one answer; more only if it is a single part."""


def read_checkpoint(storage: Storage, height: int, certified_at: int, root: bytes = ZERO_HASH) -> CertifiedCheckpoint:
    """The proof that the tree as of the checkpoint at ``height`` has this root. A checkpoint that was handed over has its own.

    Raises:
        DecodeError: a block that is needed is missing. StorageError: the database cannot be read.
    """
    handed_over = storage.handed_over()
    if handed_over is not None and handed_over.header.height == height:
        return handed_over
    at, before, certifying = (read_block(storage, number) for number in (height, certified_at - 1, certified_at))
    return CertifiedCheckpoint(
        at.block.header,
        at.finality,
        certifying.block.header,
        certifying.finality,
        before.block.header.state_root,
        root,
        read_skipped(storage, at.block.header),
    )


def read_block(storage: Storage, height: int) -> CertifiedBlock:
    """Raises DecodeError when it is missing, or another."""
    stored = storage.block(height)
    if stored is None:
        raise DecodeError(f"block {height} is missing")
    certified = decode(CertifiedBlock, stored, MAX_STORED_BYTES)
    if certified.block.header.height != height:
        raise DecodeError(f"block {height} is another one")
    return certified


def read_skipped(storage: Storage, header: Header) -> tuple[Header, ...]:
    """The headers that skips lead to from this one, down to height 0, that one left out.

    Raises:
        DecodeError: one of them is missing, or another.
    """
    handed_over = storage.handed_over()
    known = {one.height: one for one in (handed_over.header, *handed_over.skipped)} if handed_over is not None else {}
    found: list[Header] = []
    while below := skip_height(header.height):
        skipped = known.get(below) or read_block(storage, below).block.header
        if skipped.hash != header.skip:
            raise DecodeError(f"block {below} is not the one that block {header.height} skips to")
        found.append(skipped)
        header = skipped
    return tuple(found)


def read_parts(storage: Storage, height: int, wanted: Sequence[Branching | bytes]) -> tuple[Part, ...]:
    """The first of the parts, as many as fit one answer; none when this checkpoint's rows cannot be read any more.

    Raises:
        StorageError: the database cannot be read.
    """
    found: list[Part] = []
    work = size = 0
    for one in wanted:
        part = _read_part(storage, height, one) if isinstance(one, bytes) else one
        if part is None:
            break
        found.append(part)
        work += work_of(part)
        match part:
            case Rows(_, pairs):
                size += sum(len(key) + len(value) for key, value in pairs)
            case Ids(_, ids):
                size += len(ids)
        if work >= MAX_PART_ROWS or size >= _PARTS_BYTES:
            break
    return tuple(found)


def _read_part(storage: Storage, height: int, place: bytes) -> Rows | Ids | None:
    if place.endswith(REPLAYED):
        return _read_ids(storage, height, place)
    rows = storage.part(height, place)
    return None if rows is None or len(rows) > MAX_PART_ROWS else Rows(place, tuple(rows))


def _read_ids(storage: Storage, height: int, key: bytes) -> Ids | None:
    """As the row with this key had them at the checkpoint. None: they cannot be read any more."""
    value = storage.row(height, key)
    if value is None:
        return None
    count = decode(Replayed, value, len(value)).count
    ids = storage.ids(key, count)
    return Ids(key, ids) if len(ids) == count * HASH_BYTES else None  # fewer: the checkpoint was let go meanwhile
