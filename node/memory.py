"""What a node remembers of its part in the network, whatever its chains: pledges, and the epochs that have begun, in ``node.db``;
the first epoch's document in a file of its own, which proves itself and outlives a damaged database."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never, cast

from node.database import Database, StorageFull
from node.effects import Abandon, AcceptDocument, Begin, Persist, Pledge, Retire
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Opening, SignedDocument
from node.protocol.limits import MAX_FRAME_BYTES, MAX_STORED_BYTES
from node.protocol.succession import Succession

FORMAT = 2
"""Version of the tables; 1 was of a database that had a chain's, too."""

_TABLES = """
CREATE TABLE pledges (epoch INTEGER PRIMARY KEY, data BLOB, sum INTEGER);
CREATE TABLE begun (epoch INTEGER PRIMARY KEY, data BLOB, sum INTEGER);
"""
_ACCEPTED = cast(Any, SignedDocument | Opening)  # a union is no type for mypy


class Memory(Database):
    """``node.db``, and ``epoch-document`` beside it."""

    def __init__(self, folder: Path, network: bytes) -> None:
        """Raises StorageError."""
        super().__init__(folder / "node.db", network, FORMAT, _TABLES, ("pledges", "begun"))
        self._document = folder / "epoch-document"

    def write(self, records: Sequence[Persist]) -> None:
        """Store all of ``records``: in the database in one transaction, then the document."""
        with self._writing, self._explained(), self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            for record in records:
                match record:
                    case Pledge(epoch=epoch):
                        self._upsert("pledges", (epoch,), encode(record))
                    case AcceptDocument(Opening() as opening):
                        self._begin(opening.document.number)
                    case Begin(succession):
                        self._upsert("begun", (succession.number,), encode(succession))
                        self._begin(succession.number)
                    case AcceptDocument() | Abandon() | Retire():
                        pass
                    case _:
                        assert_never(record)
        for record in records:
            if isinstance(record, AcceptDocument):
                _write_document(self._document, record.accepted)

    def _begin(self, epoch: int) -> None:
        """Its pledge is where the votes are by now, or has lost its use. It must not be taken there again: if that database is
        lost, the votes are."""
        self._writer.execute("DELETE FROM pledges WHERE epoch <= ?", (epoch,))

    def pledges(self) -> tuple[Pledge, ...]:
        """Of epochs that have not begun, by epoch."""
        return tuple(decode(Pledge, data, len(data)) for data in self._all("pledges"))

    def begun(self) -> tuple[Succession, ...]:
        """All that were written, by epoch."""
        return tuple(decode(Succession, data, MAX_STORED_BYTES) for data in self._all("begun"))

    def accepted(self) -> SignedDocument | Opening | None:
        """The first epoch's document, if it is there and whole."""
        try:
            accepted: SignedDocument | Opening = decode(_ACCEPTED, self._document.read_bytes(), MAX_FRAME_BYTES)
            return accepted
        except (OSError, DecodeError):
            return None

    def _all(self, table: str) -> list[bytes]:
        rows = self._read(f"SELECT epoch, data, sum FROM {table} ORDER BY epoch")
        return [self._intact(table, (epoch,), data, found) for epoch, data, found in rows]


def _write_document(path: Path, accepted: SignedDocument | Opening) -> None:
    """Durably, whole or not at all. Raises StorageFull, or another OSError."""
    draft = path.with_name(path.name + ".draft")
    try:
        with draft.open("wb") as file:
            file.write(encode(accepted))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for {path}: free some, nothing is lost") from None
        raise
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
