"""Transactions that wait for a block: verified once, kept until they are final or can no longer be."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from msgspec import Struct

from node.protocol.codec import DecodeError
from node.protocol.codes import Code
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction, decode_transaction

MAX_TRANSACTIONS = 100_000
MAX_BYTES = 64 << 20
MAX_CHECKING = 20_000
"""Transactions whose signatures are being checked."""


class Entry(Struct, frozen=True, gc=False):
    """A transaction with its id and the bytes it came in."""

    id: bytes
    transaction: Transaction
    encoded: bytes


class Mempool:
    """Entries in order of arrival. At most MAX_TRANSACTIONS or MAX_BYTES: beyond, new ones are dropped and counted; their
    client sends them again."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._by_id: dict[bytes, Entry] = {}
        self._checking: set[bytes] = set()
        self._bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def find(self, encoded: bytes) -> Entry | None:
        """The verified entry with exactly these bytes."""
        return self._entries.get(encoded)

    def screen(self, batch: Sequence[bytes]) -> tuple[list[Entry], list[Refusal]]:
        """Decode what is new in a batch: candidates to check further, and refusals. What is known already is neither."""
        candidates, refusals = [], []
        for encoded in dict.fromkeys(batch):
            if encoded in self._entries or encoded in self._checking:
                continue
            if len(self._entries) >= MAX_TRANSACTIONS or self._bytes >= MAX_BYTES or len(self._checking) >= MAX_CHECKING:
                self.dropped += 1
                continue
            try:
                transaction = decode_transaction(encoded)
            except DecodeError:
                refusals.append(Refusal(sha256(encoded).digest(), Code.MALFORMED))
                continue
            candidates.append(Entry(transaction.id, transaction, encoded))
        return candidates, refusals

    def expect(self, entries: Sequence[Entry]) -> None:
        """Their signatures are being checked: until ``settle``, the same bytes are known."""
        self._checking.update(entry.encoded for entry in entries)

    def settle(self, entries: Sequence[Entry], verdicts: Sequence[bool]) -> list[Refusal]:
        """Take in the entries whose signatures are valid; returns refusals for the others."""
        refusals = []
        for entry, valid in zip(entries, verdicts, strict=True):
            self._checking.discard(entry.encoded)
            if valid:
                self.add(entry)
            else:
                refusals.append(Refusal(entry.id, Code.BAD_SIGNATURE))
        return refusals

    def add(self, entry: Entry) -> None:
        """Take in a verified entry; of two with one id (other witnesses), the first stays."""
        if entry.id not in self._by_id:
            self._by_id[entry.id] = self._entries[entry.encoded] = entry
            self._bytes += len(entry.encoded)

    def remove(self, ids: Sequence[bytes]) -> None:
        """Forget transactions by id."""
        for transaction_id in ids:
            entry = self._by_id.pop(transaction_id, None)
            if entry is not None:
                del self._entries[entry.encoded]
                self._bytes -= len(entry.encoded)
