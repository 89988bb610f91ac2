"""The rows of a shard's state on disk, as of its last whole checkpoint, and of the one that is being handed to somebody.

    recent    rows of checkpoints as they arrive, a few with each block
    state     the rows of whole checkpoints, into which those of ``recent`` move a few with every write
    kept      while a checkpoint is held: what rows that move replace, so that those as of that one can still be read; of those
              that are held no more, until it is cleared, a few rows with each block
    replay    the ids that rows of the replay set commit to, in the order of their inclusion
    fetched, fetched_replay    parts of a checkpoint that this node is being handed, before they take the place of all others

The rows of the last whole checkpoint are those of ``state`` and over them those of ``recent`` up to its height; the rows of the
held one are the same up to its height, and over them those of ``kept``. Rows lie by their path in the state tree, so that a part
of a checkpoint is read at one go. A row's ids are forgotten with it.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

from node.effects import Checkpoint, StoreParts
from node.ledger.rows import REPLAYED
from node.protocol.checkpoint import Ids, Rows
from node.protocol.crypto import HASH_BYTES

TABLES = """
CREATE TABLE state (path INTEGER, key BLOB, value BLOB, sum INTEGER, PRIMARY KEY (path, key)) WITHOUT ROWID;
CREATE TABLE recent (
    height INTEGER, path INTEGER, key BLOB, value BLOB, sum INTEGER, PRIMARY KEY (height, path, key)
) WITHOUT ROWID;
CREATE TABLE kept (
    held INTEGER, path INTEGER, key BLOB, value BLOB, sum INTEGER, PRIMARY KEY (held, path, key)
) WITHOUT ROWID;
CREATE TABLE replay (key BLOB, start INTEGER, ids BLOB, sum INTEGER, PRIMARY KEY (key, start));
CREATE TABLE fetched (path INTEGER, key BLOB, value BLOB, sum INTEGER, PRIMARY KEY (path, key)) WITHOUT ROWID;
CREATE TABLE fetched_replay (key BLOB, start INTEGER, ids BLOB, sum INTEGER, PRIMARY KEY (key, start));
"""
_ADOPT = """
DROP TABLE state; ALTER TABLE fetched RENAME TO state;
DROP TABLE replay; ALTER TABLE fetched_replay RENAME TO replay;
DELETE FROM recent; DELETE FROM kept;
CREATE TABLE fetched (path INTEGER, key BLOB, value BLOB, sum INTEGER, PRIMARY KEY (path, key)) WITHOUT ROWID;
CREATE TABLE fetched_replay (key BLOB, start INTEGER, ids BLOB, sum INTEGER, PRIMARY KEY (key, start));
"""
_ROWS = 1024
"""Read at once."""
_MOVED = 16
"""Rows at least that one write moves from ``recent`` into ``state``: of many accounts each lies on a page of its own."""
_CLEARED = 512
"""Rows at least that one write takes out of ``kept``."""
_PATH_DIGITS = 16

Read = Callable[..., list[Any]]
"""Runs a query with its arguments."""
Intact = Callable[[str, tuple[Any, ...], Any, Any], bytes]
"""The data of a row of a table, by its key, if its checksum holds."""
Checksum = Callable[[str, tuple[Any, ...], bytes], int]


class RowTables:
    """``checksum``, ``intact``: as the rest of the database has it. ``held``: height of the checkpoint that is held."""

    def __init__(self, checksum: Checksum, intact: Intact) -> None:
        self._checksum, self._intact = checksum, intact
        self.held: int | None = None

    # -- writing, within a transaction -----------------------------------------------------------------------------

    def store(self, writer: sqlite3.Connection, part: Checkpoint) -> None:
        """Rows of a checkpoint under way."""
        rows = ((part.height, *self._row(key, value)) for key, value in part.rows)
        writer.executemany("INSERT OR REPLACE INTO recent VALUES (?, ?, ?, ?, ?)", rows)

    def fill(self, writer: sqlite3.Connection, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """All rows of a state, where there are none."""
        writer.executemany("INSERT INTO state VALUES (?, ?, ?, ?)", (self._row(key, value) for key, value in rows))

    def include(self, writer: sqlite3.Connection, pieces: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Ids that a block adds to the replay set."""
        writer.executemany("INSERT OR REPLACE INTO replay VALUES (?, ?, ?, ?)", map(self._piece, pieces))

    def move(self, writer: sqlite3.Connection, arrived: int, whole: int) -> None:
        """After ``arrived`` rows: those of the oldest checkpoint in ``recent``, if it is one up to ``whole``, into ``state``."""
        oldest = writer.execute("SELECT min(height) FROM recent").fetchone()[0]
        self._clear(writer, 2 * arrived + _CLEARED)
        if oldest is None or oldest > whole:
            return
        query = "SELECT path, key FROM recent WHERE height = ? ORDER BY path, key LIMIT 1 OFFSET ?"
        beyond = writer.execute(query, (oldest, arrived + arrived // 4 + _MOVED)).fetchone()  # faster than they come
        moved, arguments = ("height = ? AND (path, key) < (?, ?)", (oldest, *beyond)) if beyond else ("height = ?", (oldest,))
        gone = f"SELECT path, key FROM recent WHERE {moved} AND value IS NULL"
        if self.held is not None and self.held < oldest:
            self._keep(writer, moved, arguments)
        else:
            writer.execute(f"DELETE FROM replay WHERE key IN (SELECT key FROM ({gone}))", arguments)
        values = f"SELECT path, key, value, sum FROM recent WHERE {moved} AND value IS NOT NULL"
        writer.execute(f"INSERT OR REPLACE INTO state {values}", arguments)
        writer.execute(f"DELETE FROM state WHERE (path, key) IN ({gone})", arguments)
        writer.execute(f"DELETE FROM recent WHERE {moved}", arguments)

    def _keep(self, writer: sqlite3.Connection, moved: str, arguments: Sequence[Any]) -> None:
        """What these rows replace; NULL where nothing was. The first that replaces a row counts."""
        writer.execute(
            f"""INSERT OR IGNORE INTO kept SELECT {self.held}, path, key, state.value, state.sum
                FROM (SELECT path, key FROM recent WHERE {moved}) LEFT JOIN state USING (path, key)""",
            arguments,
        )

    def hold(self, writer: sqlite3.Connection, height: int | None) -> None:
        """Keep the rows as of this height, which is the last whole checkpoint's, readable; of another one not any more."""
        self.held = height

    def _clear(self, writer: sqlite3.Connection, count: int) -> None:
        """So many rows of what was kept of a checkpoint that is not held any more, and ids of rows that are nowhere else."""
        oldest = writer.execute("SELECT min(held) FROM kept").fetchone()[0]
        if oldest is None or oldest == self.held:
            return
        query = "SELECT path, key FROM kept WHERE held = ? ORDER BY path, key LIMIT 1 OFFSET ?"
        beyond = writer.execute(query, (oldest, count)).fetchone()
        which, arguments = ("held = ? AND (path, key) < (?, ?)", (oldest, *beyond)) if beyond else ("held = ?", (oldest,))
        elsewhere = "SELECT 1 FROM {} WHERE other.path = cleared.path AND other.key = cleared.key"
        writer.execute(
            f"""DELETE FROM replay WHERE key IN (
                SELECT key FROM kept AS cleared WHERE {which} AND value IS NOT NULL AND substr(key, -1) = ?
                AND NOT EXISTS ({elsewhere.format("state AS other")})
                AND NOT EXISTS ({elsewhere.format("kept AS other")} AND other.held = ?))""",
            (*arguments, REPLAYED, self.held),
        )
        writer.execute(f"DELETE FROM kept WHERE {which}", arguments)

    def begin(self, writer: sqlite3.Connection) -> None:
        """Nothing is fetched yet."""
        writer.execute("DELETE FROM fetched")
        writer.execute("DELETE FROM fetched_replay")

    def fetch(self, writer: sqlite3.Connection, stored: StoreParts) -> None:
        """Parts of a checkpoint that are proven."""
        for part in stored.parts:
            match part:
                case Rows(_, rows):
                    made = (self._row(key, value) for key, value in rows)
                    writer.executemany("INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?)", made)
                case Ids(key, ids):
                    writer.execute("INSERT OR REPLACE INTO fetched_replay VALUES (?, ?, ?, ?)", self._piece((key, 0, ids)))

    def adopt(self, writer: sqlite3.Connection) -> None:
        """What is fetched takes the place of all other rows."""
        self.held = None
        for statement in filter(str.strip, _ADOPT.split(";")):
            writer.execute(statement)

    def _row(self, key: bytes, value: bytes | None) -> tuple[int, bytes, bytes | None, int]:
        path = path_of(key)
        return path, key, value, self._checksum("state", (path, key), value or b"")

    def _piece(self, piece: tuple[bytes, int, bytes]) -> tuple[bytes, int, bytes, int]:
        key, start, ids = piece
        return key, start, ids, self._checksum("replay", (key, start), ids)

    # -- reading ---------------------------------------------------------------------------------------------------

    def rows(self, read: Read, height: int) -> Iterator[tuple[bytes, bytes | None]]:
        """Of the last whole checkpoint, read as it is iterated: of those with one key the last counts; None: no such row."""
        last: tuple[Any, ...] = (-1 << 63, b"")
        query = f"SELECT path, key, value, sum FROM state WHERE (path, key) > (?, ?) ORDER BY path, key LIMIT {_ROWS}"
        while found := read(query, *last):
            for path, key, value, checksum in found:
                yield key, self._intact("state", (path, key), value, checksum)
            last = (path, key)
        last = (0, 0, b"")
        query = f"""SELECT height, path, key, value, sum FROM recent
                    WHERE (height, path, key) > (?, ?, ?) AND height <= {height:d} ORDER BY height, path, key LIMIT {_ROWS}"""
        while found := read(query, *last):
            for *last_key, value, checksum in found:
                _, path, key = last_key
                yield key, None if value is None else self._intact("state", (path, key), value, checksum)
            last = tuple(last_key)

    def between(self, read: Read, height: int, first: int, last: int) -> list[tuple[bytes, bytes]]:
        """The rows with these paths as of ``height``, the last whole checkpoint's or that of the held one, by key."""
        found: dict[bytes, tuple[int, Any, Any]] = {}

        def take(source: str, *arguments: int) -> None:
            query = f"SELECT key, path, value, sum FROM {source} AND path BETWEEN ? AND ?"
            found.update((key, row) for key, *row in read(query, *arguments, first, last))

        take("state WHERE TRUE")
        at = 0
        while (at := read("SELECT min(height) FROM recent WHERE height > ?", at)[0][0] or height + 1) <= height:
            take("recent WHERE height = ?", at)
        take(f"kept WHERE held = {height:d}")  # also if it is let go just now: then it is still in what is read
        rows = ((key, row) for key, row in sorted(found.items()) if row[1] is not None)
        return [(key, self._intact("state", (path, key), value, checksum)) for key, (path, value, checksum) in rows]

    def ids(self, read: Read, key: bytes, count: int) -> bytes:
        """The first ``count`` ids of a part of the replay set, one after the other; fewer, if there are no more."""
        query = "SELECT start, ids, sum FROM replay WHERE key = ? AND start < ? ORDER BY start"
        pieces = [self._intact("replay", (key, start), ids, checksum) for start, ids, checksum in read(query, key, count)]
        return b"".join(pieces)[: HASH_BYTES * count]


def path_of(key: bytes) -> int:
    """Where a row lies in the state tree, as far as 64 bits say it; signed, in the same order."""
    return int.from_bytes(sha256(key).digest()[:8], "big") - (1 << 63)


def bounds(place: bytes) -> tuple[int, int]:
    """The least and the greatest path of rows in a subtree."""
    digits = place[:_PATH_DIGITS]
    below = 4 * (_PATH_DIGITS - len(digits))
    first = (int(digits.hex()[1::2] or "0", 16) << below) - (1 << 63)
    return first, first + (1 << below) - 1
