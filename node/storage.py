"""The database of one chain: consensus journal, final blocks, bundles, the state as of the last checkpoint.

Rows of a checkpoint arrive a few at a time. With the last of them the checkpoint counts, and while the next one arrives nothing
of it is lost (``row_tables``).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, assert_never

from node.database import Database, StorageDamaged, row_checksum
from node.effects import BeginHandoff, Checkpoint, Commit, FinishHandoff, Hold, Journal, LoseVotes, Pledge, Row, StoreParts
from node.protocol.block import skip_height
from node.protocol.checkpoint import Beginning, CertifiedCheckpoint
from node.protocol.codec import decode, encode
from node.protocol.limits import MAX_STORED_BYTES
from node.row_tables import TABLES, RowTables, bounds, path_of

FORMAT = 1
"""Version of the tables, kept in the file's user_version."""

_TABLES = """
CREATE TABLE journal (view INTEGER, slot TEXT, data BLOB, sum INTEGER, PRIMARY KEY (view, slot));
CREATE TABLE blocks (height INTEGER PRIMARY KEY, data BLOB, sum INTEGER);
CREATE TABLE bundles (destination INTEGER, sequence INTEGER, data BLOB, sum INTEGER, PRIMARY KEY (destination, sequence));
"""
_CHECKPOINT, _HANDED_OVER = ":checkpoint", ":handed over"  # keys in meta
_OLDEST, _SECRET, _BEGINNING = ":oldest", ":secret", ":beginning"
_GONE_AT_ONCE = 32
"""Blocks that are not kept any more are deleted so many at a time."""


class Storage(Database):
    """One chain's database at a node."""

    def __init__(self, path: Path, network: bytes) -> None:
        """Open ``path``, or make it for the network with this id. Raises StorageError."""
        self._rows = RowTables(row_checksum, self._intact)
        super().__init__(path, network, FORMAT, _TABLES + TABLES, ("journal",))
        try:
            self._oldest = int.from_bytes(self._fact(_OLDEST) or b"\x01", "big")
        except BaseException:
            self.close()
            raise

    def write(self, effects: Sequence[Row]) -> None:
        """Store all of ``effects`` in order, in one durable transaction."""
        with self._transaction():
            for effect in effects:
                match effect:
                    case Journal(view, slot, data):
                        self._upsert("journal", (view, slot), data)
                    case Commit():
                        self._commit(effect)
                    case Checkpoint():
                        self._checkpoint(effect)
                    case Hold() | BeginHandoff() | StoreParts() | FinishHandoff():
                        self._hand_over(effect)
                    case Pledge():
                        self._upsert("meta", (_SECRET,), encode(effect))
                    case LoseVotes():
                        self._writer.execute("DELETE FROM journal")
                        self._writer.execute("DELETE FROM meta WHERE key = ?", (_SECRET,))
                    case _:
                        assert_never(effect)

    def begin(
        self, beginning: Beginning, rows: Iterable[tuple[bytes, bytes]], included: Iterable[tuple[bytes, int, bytes]]
    ) -> None:
        """Store what a chain that follows on others begins with, in one durable transaction: all rows, and its replay set, as
        ``ledger.replay.Piece``. Nothing of the chain may be stored before."""
        with self._transaction():
            self._rows.fill(self._writer, rows)
            self._rows.include(self._writer, included)
            self._upsert("meta", (_BEGINNING,), encode(beginning))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What is written meanwhile is stored durably, all or nothing, and so is what is known of it here."""
        with self._writing, self._explained():
            oldest = self._oldest
            try:
                with self._writer:
                    self._writer.execute("BEGIN IMMEDIATE")
                    yield
            except BaseException:
                self._oldest = oldest
                raise

    def beginning(self) -> Beginning | None:
        """What ``begin`` was given, but for the rows: these are those of height 0."""
        value = self._fact(_BEGINNING)
        return None if value is None else decode(Beginning, value, len(value))

    def pledge(self) -> Pledge | None:
        """The last one written."""
        value = self._fact(_SECRET)
        return None if value is None else decode(Pledge, value, len(value))

    def journal(self) -> list[Journal]:
        """The records not forgotten by a commit, by (view, slot)."""
        rows = self._read("SELECT view, slot, data, sum FROM journal ORDER BY view, slot")
        return [Journal(view, slot, self._intact("journal", (view, slot), data, checksum)) for view, slot, data, checksum in rows]

    def last_block(self) -> tuple[int, bytes] | None:
        """(height, encoded ``CertifiedBlock``) of the newest block."""
        return next(self.blocks_descending(), None)

    def block(self, height: int) -> bytes | None:
        """The encoded block at ``height``: also one of those few that are kept for the skips of later ones."""
        found = self._read("SELECT data, sum FROM blocks WHERE height = ?", height)
        return self._intact("blocks", (height,), *found[0]) if found else None

    @property
    def oldest(self) -> int:
        """Height of the first block from which on all are kept, or will be."""
        return self._oldest

    def blocks(self, first: int, limit_bytes: int, count: int = 256) -> list[bytes]:
        """Consecutive encoded blocks from height ``first`` on: at most ``count``, and no more than fit ``limit_bytes``, but
        one at least. Empty when there is no block ``first``, or it is not kept any more."""
        if first < self._oldest:
            return []
        query = "SELECT height, data, sum FROM blocks WHERE height >= ? ORDER BY height LIMIT ?"
        try:
            return self._consecutive("blocks", (first,), limit_bytes, query, (first, count))
        except StorageDamaged:
            if first < self._oldest:  # it went meanwhile, or is left without the next ones: this is known before they go
                return []
            raise

    def blocks_descending(self) -> Iterator[tuple[int, bytes]]:
        """(height, encoded block), newest first, read as it is iterated."""
        below = 1 << 62
        while rows := self._read("SELECT height, data, sum FROM blocks WHERE height < ? ORDER BY height DESC LIMIT 1", below):
            below, data, checksum = rows[0]
            yield below, self._intact("blocks", (below,), data, checksum)

    def bundles(self, destination: int, sequence: int, limit_bytes: int) -> list[bytes]:
        """Consecutive encoded bundles to ``destination`` from ``sequence`` on, as ``blocks``."""
        query = "SELECT sequence, data, sum FROM bundles WHERE destination = ? AND sequence >= ? ORDER BY sequence LIMIT 256"
        return self._consecutive("bundles", (destination, sequence), limit_bytes, query, (destination, sequence))

    def first_bundles(self) -> dict[int, int]:
        """By destination, the number of the first bundle that is stored."""
        return dict(self._read("SELECT destination, MIN(sequence) FROM bundles GROUP BY destination"))

    def checkpoint(self) -> tuple[int, int] | None:
        """The height of the last checkpoint that is whole, and of the header that has its root."""
        rows = self._read("SELECT value, sum FROM meta WHERE key = ?", _CHECKPOINT)
        return self._heights(*rows[0]) if rows else None

    def _heights(self, value: Any, checksum: Any) -> tuple[int, int]:
        value = self._intact("meta", (_CHECKPOINT,), value, checksum)
        return int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big")

    def rows(self, height: int) -> Iterator[tuple[bytes, bytes | None]]:
        """The rows of the checkpoint, read as it is iterated: of those with one key the last counts; None: no such row."""
        for table in ("state", "recent", "replay"):
            self._check(table)
        return self._rows.rows(self._read, height)

    def ids(self, key: bytes, count: int) -> bytes:
        """The first so many ids of the part of the replay set with this row, one after the other."""
        return self._rows.ids(self._read, key, count)

    def part(self, height: int, place: bytes) -> list[tuple[bytes, bytes]] | None:
        """The rows (key, value) of a subtree as of the checkpoint at ``height``, by key. None: it is neither the last whole one
        nor held."""
        return self._between(height, *bounds(place))

    def row(self, height: int, key: bytes) -> bytes | None:
        """The value of one row as of that checkpoint; None: there is none, or the checkpoint can not be read."""
        return dict(self._between(height, path_of(key), path_of(key)) or ()).get(key)

    def _between(self, height: int, first: int, last: int) -> list[tuple[bytes, bytes]] | None:
        def read(query: str, *arguments: Any) -> list[Any]:
            return self._reader.execute(query, arguments).fetchall()

        with self._reading, self._explained():
            read("BEGIN")  # one view of all tables
            try:
                whole = read("SELECT value, sum FROM meta WHERE key = ?", _CHECKPOINT)
                if height != self._rows.held and (not whole or self._heights(*whole[0])[0] != height):
                    return None
                return self._rows.between(read, height, first, last)
            finally:
                read("COMMIT")

    def handed_over(self) -> CertifiedCheckpoint | None:
        """The checkpoint with which this ledger began here, if it was handed over."""
        value = self._fact(_HANDED_OVER)
        return None if value is None else decode(CertifiedCheckpoint, value, MAX_STORED_BYTES)

    # Rows

    def _commit(self, commit: Commit) -> None:
        self._upsert("blocks", (commit.height,), commit.encoded)
        for destination, sequence, data in commit.bundles:
            self._upsert("bundles", (destination, sequence), data)
        self._writer.executemany("DELETE FROM bundles WHERE destination = ? AND sequence <= ?", commit.taken)
        self._writer.execute("DELETE FROM journal WHERE view <= ?", (commit.view,))
        self._rows.include(self._writer, commit.included)
        self._drop_blocks(commit.past)

    def _drop_blocks(self, past: int) -> None:
        """Some of the blocks up to ``past``, the oldest first: but what proves a checkpoint that is whole or held, and what skips
        of later blocks lead to."""
        whole = self._whole_checkpoint()
        last = self._oldest + _GONE_AT_ONCE - 1
        if last > past or last >= min(whole, self._rows.held or whole):
            return
        linked = [last]
        while below := skip_height(linked[-1]):
            linked.append(below)
        places = ", ".join("?" * len(linked))
        self._writer.execute(f"DELETE FROM blocks WHERE height < ? AND height NOT IN ({places})", (last, *linked))
        self._oldest = last + 1
        self._upsert("meta", (_OLDEST,), self._oldest.to_bytes(8, "big"))

    def _checkpoint(self, part: Checkpoint) -> None:
        self._rows.store(self._writer, part)
        if part.certified_at is not None:
            self._note_checkpoint(part.height, part.certified_at)
        self._rows.move(self._writer, len(part.rows), self._whole_checkpoint())

    def _whole_checkpoint(self) -> int:
        """Its height; 0: none."""
        whole = self._writer.execute("SELECT value FROM meta WHERE key = ?", (_CHECKPOINT,)).fetchone()
        return int.from_bytes(whole[0][:8], "big") if whole else 0

    def _note_checkpoint(self, height: int, certified_at: int) -> None:
        self._upsert("meta", (_CHECKPOINT,), height.to_bytes(8, "big") + certified_at.to_bytes(8, "big"))

    def _hand_over(self, effect: Hold | BeginHandoff | StoreParts | FinishHandoff) -> None:
        match effect:
            case Hold(height):
                self._rows.hold(self._writer, height)
            case BeginHandoff():
                self._rows.begin(self._writer)
            case StoreParts():
                self._rows.fetch(self._writer, effect)
            case FinishHandoff():
                self._finish_handoff(effect)

    def _finish_handoff(self, finish: FinishHandoff) -> None:
        """Of the ledger before nothing is left; blocks and bundles would have a gap."""
        header = finish.checkpoint.header
        self._rows.adopt(self._writer)
        self._note_tables()
        for table in ("blocks", "bundles"):
            self._writer.execute(f"DELETE FROM {table}")
        self._writer.execute("DELETE FROM journal WHERE view <= ?", (header.view,))
        self._oldest = header.height + 1
        self._upsert("meta", (_OLDEST,), self._oldest.to_bytes(8, "big"))
        self._note_checkpoint(header.height, finish.checkpoint.certifying.height)
        self._upsert("meta", (_HANDED_OVER,), encode(finish.checkpoint))

    def _consecutive(self, table: str, key: tuple[int, ...], limit: int, query: str, arguments: tuple[int, ...]) -> list[bytes]:
        """The rows whose keys are ``key``, ``key`` with its last number one higher, and so on, until ``limit`` bytes."""
        found: list[bytes] = []
        with self._reading, self._explained(), closing(self._reader.execute(query, arguments)) as rows:
            for number, data, checksum in rows:
                expected = (*key[:-1], key[-1] + len(found))
                if number != expected[-1]:
                    if not found:
                        break
                    raise self._damaged(f"{table} row {expected} is missing")
                limit -= len(data)
                if found and limit < 0:
                    break
                found.append(self._intact(table, expected, data, checksum))
        return found
