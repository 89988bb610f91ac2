"""What the coordinator must not forget, in SQLite: durable when a write returns, one document per epoch for ever."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Registration, SignedDocument
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_FRAME_BYTES
from signaling.phases import FIRST_EPOCH, Persist, PersistPhase, Saved

_TABLES = """
CREATE TABLE IF NOT EXISTS network (genesis BLOB PRIMARY KEY);
CREATE TABLE IF NOT EXISTS phases (epoch INTEGER PRIMARY KEY, phase TEXT NOT NULL, since INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS registrations (epoch INTEGER, public_key BLOB, body BLOB NOT NULL, PRIMARY KEY (epoch, public_key));
CREATE TABLE IF NOT EXISTS documents (epoch INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


class StorageError(Exception):
    """The database cannot be used; the text says why."""


class Storage:
    """The coordinator's database. Used by one thread at a time; a second process on the same file is refused."""

    def __init__(self, path: Path, genesis_hash: bytes) -> None:
        """Open or make it. Raises StorageError: unreadable, damaged, in use, or of another network."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=0.5, check_same_thread=False)
            # Exclusive: two coordinators on one database could publish two documents.
            self._database.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; BEGIN EXCLUSIVE;"
                + _TABLES
                + "COMMIT;"
            )
            found = self._database.execute("SELECT genesis FROM network").fetchone()
            if found is None:
                self._database.execute("INSERT INTO network VALUES (?)", (genesis_hash,))
            elif found[0] != genesis_hash:
                raise StorageError(f"{path} belongs to another network: its genesis differs")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            raise StorageError(f"{path} is in use by another coordinator" if busy else f"{path}: {error}") from None
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{path}: {error}") from None

    def load(self, now: int) -> Saved:
        """The stored state; the first time, registration for the first epoch begins now. Raises StorageError if damaged."""
        try:
            self._database.execute("INSERT OR IGNORE INTO phases VALUES (?, ?, ?)", (FIRST_EPOCH, Phase.REGISTRATION.value, now))
            epoch, phase, since = self._database.execute("SELECT * FROM phases ORDER BY epoch DESC LIMIT 1").fetchone()
            rows = self._database.execute("SELECT body FROM registrations WHERE epoch = ?", (epoch,))
            registrations = tuple(decode(Registration, body, MAX_FRAME_BYTES) for (body,) in rows)
            row = self._database.execute("SELECT body FROM documents WHERE epoch = ?", (epoch,)).fetchone()
            document = decode(SignedDocument, row[0], MAX_FRAME_BYTES) if row else None
            return Saved(Phase(phase), since, registrations, document)
        except (sqlite3.Error, DecodeError, ValueError) as error:
            raise StorageError(f"the database is damaged: {error}") from None

    def write(self, effects: Sequence[Persist]) -> None:
        """Store all of them durably, or none. Raises sqlite3.IntegrityError on a second document for an epoch."""
        self._database.execute("BEGIN")
        try:
            for effect in effects:
                self._write(effect)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _write(self, effect: Persist) -> None:
        if isinstance(effect, PersistPhase):
            if effect.document is not None:
                self._database.execute("INSERT INTO documents VALUES (?, ?)", (effect.epoch, encode(effect.document)))
            self._database.execute("REPLACE INTO phases VALUES (?, ?, ?)", (effect.epoch, effect.phase.value, effect.since))
        else:
            registration = effect.registration
            row = (registration.epoch, registration.public_key, encode(registration))
            self._database.execute("REPLACE INTO registrations VALUES (?, ?, ?)", row)

    def close(self) -> None:
        self._database.close()
