"""What the coordinator must not forget, in SQLite: durable when a write returns, each phase of an attempt once."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from node.database import is_full
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Content, Registration
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.succession import Succession
from signaling.epochs import PersistSuccession
from signaling.phases import AWAY_ATTEMPTS, FIRST_EPOCH, Persist, PersistAttempt, PersistPhase, PersistRegistration, Saved

_TABLES = """
CREATE TABLE IF NOT EXISTS network (genesis BLOB PRIMARY KEY);
CREATE TABLE IF NOT EXISTS phases (
    epoch INTEGER, attempt INTEGER, phase TEXT, since INTEGER NOT NULL, content BLOB, PRIMARY KEY (epoch, attempt, phase));
CREATE TABLE IF NOT EXISTS registrations (epoch INTEGER, public_key BLOB, body BLOB NOT NULL, PRIMARY KEY (epoch, public_key));
CREATE TABLE IF NOT EXISTS away (epoch INTEGER, public_key BLOB, attempt INTEGER NOT NULL, PRIMARY KEY (epoch, public_key));
CREATE TABLE IF NOT EXISTS successions (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


class StorageError(Exception):
    """The database cannot be used; the text says why."""


class StorageFull(StorageError):
    """No space left: nothing was stored, and nothing is lost."""


class Storage:
    """The coordinator's database. Used by one thread at a time; a second process on the same file is refused."""

    def __init__(self, path: Path, genesis_hash: bytes) -> None:
        """Open or make it. Raises StorageError: unreadable, damaged, in use, or of another network."""
        self._path = path
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
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:  # sqlite3 quotes damaged names in its errors
            raise StorageError(f"{path}: {error}") from None

    def load(self, now: int) -> Saved:
        """The stored state; the first time, registration for the first epoch begins now. Raises StorageError if damaged."""
        try:
            if self._database.execute("SELECT 1 FROM phases").fetchone() is None:
                self._write(PersistAttempt(FIRST_EPOCH, 1, now, ()))
            epoch, attempt, phase, since, body = self._database.execute(
                "SELECT * FROM phases ORDER BY rowid DESC LIMIT 1"
            ).fetchone()
            rows = self._database.execute("SELECT body FROM registrations WHERE epoch = ?", (epoch,))
            registrations = tuple(decode(Registration, row, MAX_FRAME_BYTES) for (row,) in rows)
            away = dict(self._database.execute("SELECT public_key, attempt FROM away WHERE epoch = ?", (epoch,)).fetchall())
            content: Content | None = decode(Content, body, MAX_FRAME_BYTES) if body else None  # type: ignore[arg-type]  # a union
            rows = self._database.execute("SELECT body FROM successions ORDER BY number")
            successions = tuple(decode(Succession, row, MAX_FRAME_BYTES) for (row,) in rows)
            return Saved(attempt, Phase(phase), since, registrations, content, away, successions)
        except (sqlite3.Error, DecodeError, ValueError) as error:
            raise StorageError(f"the database is damaged: {error}") from None

    def write(self, effects: Sequence[Persist]) -> None:
        """Store all of them durably, or none. Raises StorageFull, or sqlite3.IntegrityError on a phase that began before."""
        try:
            with self._database:
                self._database.execute("BEGIN")
                for effect in effects:
                    self._write(effect)
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            raise StorageFull(f"no space left for {self._path}: free some, nothing is lost ({error})") from None

    def _write(self, effect: Persist) -> None:
        match effect:
            case PersistRegistration(registration):
                row = (registration.epoch, registration.public_key, encode(registration))
                self._database.execute("REPLACE INTO registrations VALUES (?, ?, ?)", row)
            case PersistPhase(epoch, attempt, phase, since, content):
                entry = (epoch, attempt, phase.value, since, encode(content))
                self._database.execute("INSERT INTO phases VALUES (?, ?, ?, ?, ?)", entry)
            case PersistAttempt(epoch, attempt, since, away):
                self._database.execute("DELETE FROM registrations WHERE epoch = ?", (epoch,))
                self._database.execute("DELETE FROM phases WHERE epoch = ? AND attempt < ?", (epoch, attempt - 1))
                self._database.execute("DELETE FROM away WHERE epoch = ? AND attempt < ?", (epoch, attempt - AWAY_ATTEMPTS))
                left = ((epoch, public_key, attempt - 1) for public_key in away)
                self._database.executemany("REPLACE INTO away VALUES (?, ?, ?)", left)
                first = (epoch, attempt, Phase.REGISTRATION.value, since)
                self._database.execute("INSERT INTO phases VALUES (?, ?, ?, ?, NULL)", first)
            case PersistSuccession(succession):
                self._database.execute("INSERT INTO successions VALUES (?, ?)", (succession.number, encode(succession)))

    def close(self) -> None:
        self._database.close()
