"""All that a node has on disk, in one folder: ``node.db`` (``memory``), and a file ``chain-EPOCH-SHARD.db`` for each chain
(``storage``). A damaged file is set aside alone. The files that are written stay open; of those that are only read a few do,
however many epochs there were.

The secret that a seat's registration commits to lies in ``node.db`` until its epoch begins, then with the chain's votes. It is
written to the chain's file first, then deleted from ``node.db``, then the first vote is sent: so it is nowhere without the votes.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from node.database import StorageError, delete
from node.effects import Abandon, Persist, Retire, Row
from node.events import Stored
from node.memory import Memory
from node.protocol.chain import Chain
from node.storage import Storage

MAX_READ = 4
"""Files open that are only read; one of them has two connections, each with 2 MiB of pages at most."""

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
        self._read: dict[Chain, Storage] = {}
        """Files that are only read, that was read last at the end."""
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
        """What is stored of a chain, to be written; nothing yet, if there was no file. One that is open is not waited for while
        others are opened to be read."""
        if (storage := self._open.get(chain)) is not None:
            return storage
        with self._opening:
            if chain not in self._open:
                self._open[chain] = self._take(chain)
            return self._open[chain]

    def find(self, chain: Chain) -> Storage | None:
        """The same, to be read; None if there is no file. Who reads it after ``MAX_READ`` others may get StorageClosed."""
        with self._opening:
            if chain in self._open or not self._path(chain).exists():
                return self._open.get(chain)
            self._read[chain] = self._take(chain)
            if len(self._read) > MAX_READ:
                self._read.pop(next(iter(self._read))).close()
            return self._read[chain]

    def write(self, chain: Chain, rows: Sequence[Row]) -> None:
        """Store all of ``rows`` in order, in one durable transaction."""
        self.open(chain).write(rows)

    def remember(self, records: Sequence[Persist]) -> None:
        """Store what concerns the node itself; forget chains that it abandons, and let go of those that it retires."""
        self._memory.write(records)
        for record in records:
            match record:
                case Abandon(chain):
                    self.drop(chain)
                case Retire(chain):
                    with self._opening:
                        self._close(chain)

    def drop(self, chain: Chain) -> None:
        """Delete a chain's file. Who reads it gets StorageClosed."""
        with self._opening:
            self._close(chain)
            delete(self._path(chain))

    def close(self) -> None:
        """Let go of all. Calls under way end first."""
        with self._opening:
            for chain in (*self._open, *self._read):
                self._close(chain)
            self._memory.close()

    def _take(self, chain: Chain) -> Storage:
        """From among those that are only read, or opened."""
        return self._read.pop(chain) if chain in self._read else Storage(self._path(chain), self._network)

    def _close(self, chain: Chain) -> None:
        for opened in (self._open, self._read):
            if (storage := opened.pop(chain, None)) is not None:
                storage.close()

    def _path(self, chain: Chain) -> Path:
        return self._folder / f"chain-{chain.epoch}-{chain.shard}.db"
