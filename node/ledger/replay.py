"""The replay set's rows: they commit to the ids that blocks of this shard included, until no block can include them again.

Ids whose validity ends within the same 1024 ms are one slot; they are in it in the order of their inclusion, in parts of at most
4096. Each part has a row with their number and a hash chain over them. So a block brings a row or two up to date, with a hash for
each id, and the rows of a checkpoint say which ids, as of then, a member needs beside them.

A chain that follows on others begins with the ids of all of them, as if it had included them itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from node.ledger.rows import Replayed, Row, replay_key, replay_slot
from node.protocol.crypto import HASH_BYTES, ZERO_HASH, domain_prefix
from node.protocol.limits import MAX_REPLAY_PART

_SLOT_BITS = 10
_DOMAIN = domain_prefix("replay")
_NONE = Replayed(0, ZERO_HASH)


class Piece(NamedTuple):
    """Ids that one block added to a part, one after the other, the first as its number ``start``. ``key``: of the part's row."""

    key: bytes
    start: int
    ids: bytes


def slot_of(valid_until: int) -> int:
    return valid_until >> _SLOT_BITS


def last_moment(key: bytes) -> int:
    """The last block time, ms, at which a block might include an id of the part with this row."""
    return ((replay_slot(key) + 1) << _SLOT_BITS) - 1


def pieces(record: Callable[[bytes], Row | None], shard: int, included: Mapping[bytes, int]) -> Iterator[tuple[Piece, Replayed]]:
    """What a block that includes these ids (with their ``valid_until``) adds to which parts, and the parts' rows after it.
    ``record``: says what the rows are before it."""
    by_slot: defaultdict[int, list[bytes]] = defaultdict(list)
    for transaction_id, valid_until in included.items():
        by_slot[slot_of(valid_until)].append(transaction_id)
    for slot, ids in by_slot.items():
        part, row = _part_with_room(record, shard, slot)
        while ids:
            room = MAX_REPLAY_PART - row.count
            added, ids = b"".join(ids[:room]), ids[room:]
            after = Replayed(row.count + len(added) // HASH_BYTES, _chained(row.hash, added))
            yield Piece(replay_key(shard, slot, part), row.count, added), after
            part, row = part + 1, _NONE


def parts_anew(shard: int, slot: int, ids: Iterable[bytes]) -> Iterator[Piece]:
    """These ids of one slot, each once, in the order of their bytes, as nobody had included any before."""
    ordered = sorted(set(ids))
    for part, at in enumerate(range(0, len(ordered), MAX_REPLAY_PART)):
        yield Piece(replay_key(shard, slot, part), 0, b"".join(ordered[at : at + MAX_REPLAY_PART]))


def row_of(piece: Piece) -> Replayed:
    """The row of a part that is this piece."""
    return Replayed(len(piece.ids) // HASH_BYTES, _chained(ZERO_HASH, piece.ids))


def _part_with_room(record: Callable[[bytes], Row | None], shard: int, slot: int) -> tuple[int, Replayed]:
    part = 0
    while (row := record(replay_key(shard, slot, part))) is not None:
        assert isinstance(row, Replayed)
        if row.count < MAX_REPLAY_PART:
            return part, row
        part += 1
    return part, _NONE


def _chained(before: bytes, ids: bytes) -> bytes:
    for at in range(0, len(ids), HASH_BYTES):
        before = sha256(_DOMAIN + before + ids[at : at + HASH_BYTES]).digest()
    return before


def commits_to(row: Replayed, ids: bytes) -> bool:
    """Whether these are the part's ids."""
    return len(ids) == row.count * HASH_BYTES and _chained(ZERO_HASH, ids) == row.hash
