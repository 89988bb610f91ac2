"""A SQLite file whose rows are whole: what every database of a node has in common.

What was written in one transaction is on disk, all of it or nothing; ``kill -9`` or a power cut at any instant leaves a prefix of
the transactions. Every row carries a checksum over its key and value: a damaged row raises, it is never believed. Methods block
and may be called from any thread: writes take turns on one connection, reads on another, beside each other.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any
from zlib import crc32

_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB, sum INTEGER);"
_NETWORK, _MADE = ":network", ":tables"  # keys in meta
_SUFFIXES, _LOCK = ("", "-wal", "-shm"), ".lock"
_WRITE_VERSION, _WRITABLE = 18, b"\x02"
"""The byte of a file that says whether SQLite may write it, and the last value with which it does."""
_UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE}


class StorageError(RuntimeError):
    """The database cannot be used; the text says why and what a person can do about it."""


class StorageFull(StorageError):
    """Nothing can be written for now: what was asked is not stored, and may be asked again when there is room."""


class StorageClosed(StorageError):
    """It was closed before."""


class StorageDamaged(StorageError):
    """What is stored at ``path`` is not what was written: it must not be believed; peers have it."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged ({what}): check the disk")
        self.path = path


def is_full(error: sqlite3.Error) -> bool:
    """Whether it says that nothing can be written, while what is there can be read."""
    return getattr(error, "sqlite_errorcode", 0) in _UNWRITABLE


class Database:
    """One file; a second process that opens it is refused. ``path``: of the file.

    Every method raises StorageError: disk full, damaged, unreadable. After a failed write nothing of it counts as stored.
    """

    def __init__(self, path: Path, network: bytes, form: int, tables: str, small: Sequence[str] = ()) -> None:
        """Open ``path``, or make it for the network with this id, with these tables beside ``meta``.

        ``form``: version of the tables, kept in the file. ``small``: tables that are looked over at once.

        Raises:
            StorageError: also when it belongs to another network or program, or another process has it open.
        """
        self.path = path
        self._writing, self._reading = Lock(), Lock()
        self._form = form
        self._is_open = self._is_closed = False
        self._lock_file = self._claim()
        try:
            with self._explained():
                self._writer = self._connect()
                self._prepare(network, tables)
                self._reader = self._connect()
            for table in ("meta", *small):
                self._check(table)
            self._is_open = True
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database. Calls under way end first; later ones raise StorageError."""
        with self._writing, self._reading:
            self._is_closed = True
            for name in ("_reader", "_writer"):
                if connection := getattr(self, name, None):
                    connection.close()
            if self._lock_file >= 0:
                os.close(self._lock_file)
            self._lock_file = -1

    # Opening

    def _claim(self) -> int:
        """Keep a second process away: two replicas that vote with one key from one journal would contradict each other."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path.with_name(self.path.name + _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot make {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise StorageError(f"{self.path} is in use by another process: is this node running already?") from None
        return file

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA page_size = 8192")  # a block spans many pages, a journal record one
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk there
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    def _prepare(self, network: bytes, tables: str) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not self._writer.execute("SELECT 1 FROM sqlite_master").fetchone():
            with self._writer:
                self._writer.executescript(f"BEGIN IMMEDIATE;{_META}{tables}PRAGMA user_version = {self._form};")
                self._upsert("meta", (_NETWORK,), network)
                self._note_tables()
        elif version != self._form:
            with suppress(sqlite3.OperationalError):  # another program's has no such table
                if self._are_tables_as_made():
                    raise self._damaged(f"format {version}, not {self._form}")
            raise StorageError(f"{self.path} was not written by this version (format {version}, not {self._form})")
        elif (as_made := self._are_tables_as_made()) is None:  # it is of before tables were noted
            self._note_tables()
        elif not as_made:
            raise self._damaged("its tables")

        row = self._writer.execute("SELECT value, sum FROM meta WHERE key = ?", (_NETWORK,)).fetchone()
        stored = self._intact("meta", (_NETWORK,), *(row or (None, 0)))
        if stored != network:
            raise StorageError(
                f"{self.path} belongs to network {stored.hex()}, not {network.hex()}: point 'data' or 'genesis' elsewhere"
            )

    def _note_tables(self) -> None:
        """Within the transaction that makes or changes them, if one does."""
        self._upsert("meta", (_MADE,), self._tables())

    def _are_tables_as_made(self) -> bool | None:
        """Whether they are those that were noted last, with this format; None: none were."""
        noted = self._writer.execute("SELECT value, sum FROM meta WHERE key = ?", (_MADE,)).fetchone()
        if noted is None:
            return None
        tables = self._tables()
        return bool(noted == (tables, row_checksum("meta", (_MADE,), tables)))

    def _tables(self) -> bytes:
        """A hash of what SQLite finds rows by and no row's checksum covers: where its table begins, for one."""
        texts = ", ".join(f"hex({column})" for column in ("type", "name", "tbl_name", "sql"))  # damaged ones are no text
        rows = self._writer.execute(f"SELECT rootpage, {texts} FROM sqlite_master ORDER BY rowid").fetchall()
        return sha256(repr((self._form, rows)).encode()).digest()

    def _check(self, table: str) -> None:
        """Look over a table's structure. Blocks and bundles, the bulk, are checked when read."""
        found = self._read(f"PRAGMA quick_check({table})")[0][0]
        if found != "ok":
            raise self._damaged(f"{table}: {found}")

    # Rows

    def _upsert(self, table: str, key: tuple[Any, ...], data: bytes) -> None:
        places = ", ".join("?" * (len(key) + 2))
        self._writer.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", (*key, data, row_checksum(table, key, data)))

    def _fact(self, key: str) -> bytes | None:
        rows = self._read("SELECT value, sum FROM meta WHERE key = ?", key)
        return self._intact("meta", (key,), *rows[0]) if rows else None

    def _read(self, query: str, *arguments: Any) -> list[Any]:
        with self._reading, self._explained():
            return self._reader.execute(query, arguments).fetchall()

    def _intact(self, table: str, key: tuple[Any, ...], data: Any, found: Any) -> bytes:
        if not isinstance(data, bytes) or row_checksum(table, key, data) != found:
            raise self._damaged(f"{table} row {key}")
        return data

    # Errors

    def _damaged(self, what: str) -> StorageDamaged:
        return StorageDamaged(self.path, what)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ones a person can act on."""
        try:
            yield
        except sqlite3.Error as error:
            extended = getattr(error, "sqlite_errorcode", 0)
            code = extended & 0xFF
            if is_full(error):
                raise StorageFull(f"no space left for {self.path}: free some, nothing is lost ({error})") from None
            if self._is_damage(code):
                raise self._damaged(str(error)) from None
            kind = StorageClosed if self._is_closed else StorageError
            raise kind(f"cannot use {self.path}: {error}") from None
        except UnicodeDecodeError:  # sqlite3 quotes a damaged table's name in its errors
            raise self._damaged("its tables") from None

    def _is_damage(self, code: int) -> bool:
        """Whether an error with this code comes of what is stored."""
        match code:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return True
            case sqlite3.SQLITE_ERROR:
                return not self._is_open  # what is asked for then is right, so the tables are not
            case sqlite3.SQLITE_READONLY:
                with suppress(OSError), self.path.open("rb") as file:
                    return file.read(_WRITE_VERSION + 1)[_WRITE_VERSION:] > _WRITABLE
        return False


def row_checksum(table: str, key: tuple[Any, ...], data: bytes) -> int:
    """Over the key too, so that a value cannot turn up under another's."""
    return crc32(data, crc32(repr((table, key)).encode()))


def _files_of(path: Path) -> list[Path]:
    """Those that a database at ``path`` may consist of."""
    return [path.with_name(path.name + suffix) for suffix in _SUFFIXES]


def set_aside(path: Path) -> Path:
    """Rename a damaged database, in place of one set aside before, for somebody to look at. Returns its new path."""
    aside = path.with_name(path.name + ".damaged")
    for part, target in zip(_files_of(path), _files_of(aside), strict=True):
        target.unlink(missing_ok=True)
        if part.exists():
            part.rename(target)
    return aside


def delete(path: Path) -> None:
    """Delete a database that is closed."""
    for part in (*_files_of(path), path.with_name(path.name + _LOCK)):
        part.unlink(missing_ok=True)
