"""All that a node has on disk, in one folder: ``node.db`` (``memory``), and a file ``chain-EPOCH-SHARD.db`` for each chain
(``storage``). A damaged file is set aside alone.

The secret that a seat's registration commits to lies in ``node.db`` until its epoch begins, then with the chain's votes. It is
written to the chain's file first, then deleted from ``node.db``, then the first vote is sent: so it is nowhere without the votes.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from node.database import StorageError, delete
from node.effects import Abandon, Persist, Row
from node.events import Stored
from node.memory import Memory
from node.protocol.chain import Chain
from node.storage import Storage

_NAME = re.compile(r"chain-(\d+)-(\d+)\.db")


class Stores:
    """A node's databases; a second process that opens the folder is refused.

    Methods block, may be called from any thread, and raise StorageError.
    """

    def __init__(self, folder: Path, network: bytes) -> None:
        """Open the folder, or make it for the network with this id.

        Raises:
            StorageError: also when it belongs to another network, or another process has it open.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {folder}: {error.strerror}") from None
        self._folder, self._network = folder, network
        self._memory = Memory(folder, network)
        self._open: dict[Chain, Storage] = {}
        self._opening = Lock()

    def stored(self) -> Stored:
        """What the node starts with."""
        memory = self._memory
        return Stored(os.urandom(32), memory.accepted(), memory.pledges(), memory.begun(), self.chains)

    @property
    def chains(self) -> frozenset[Chain]:
        """Those of which there is a file."""
        found = map(_NAME.fullmatch, (path.name for path in self._folder.iterdir()))
        return frozenset(Chain(int(match[1]), int(match[2])) for match in found if match)

    def open(self, chain: Chain) -> Storage:
        """What is stored of a chain; nothing yet, if there was no file."""
        with self._opening:
            if chain not in self._open:
                self._open[chain] = Storage(self._path(chain), self._network)
            return self._open[chain]

    def find(self, chain: Chain) -> Storage | None:
        """The same; None if there is no file."""
        return self.open(chain) if chain in self._open or self._path(chain).exists() else None

    def write(self, chain: Chain, rows: Sequence[Row]) -> None:
        """Store all of ``rows`` in order, in one durable transaction."""
        self.open(chain).write(rows)

    def remember(self, records: Sequence[Persist]) -> None:
        """Store what concerns the node itself; forget chains that it abandons."""
        self._memory.write(records)
        for record in records:
            if isinstance(record, Abandon):
                self.drop(record.chain)

    def drop(self, chain: Chain) -> None:
        """Delete a chain's file. Who reads it gets StorageClosed."""
        with self._opening:
            if (storage := self._open.pop(chain, None)) is not None:
                storage.close()
            delete(self._path(chain))

    def close(self) -> None:
        """Let go of all. Calls under way end first."""
        with self._opening:
            for storage in self._open.values():
                storage.close()
            self._memory.close()

    def _path(self, chain: Chain) -> Path:
        return self._folder / f"chain-{chain.epoch}-{chain.shard}.db"
