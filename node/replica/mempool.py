"""Transactions that wait for a block: verified once, kept until they are final or can no longer be.

Payers share it fairly, an order counting for its first payer. They take turns at going into blocks, one transaction each, so
who has thousands waiting delays nobody else. While there is room everybody may fill it; once it is full, who has little waiting
pushes out the latest of who has much.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from msgspec import Struct

from node.protocol.codec import DecodeError
from node.protocol.codes import Code
from node.protocol.merkle import leaf_hash
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction, decode_transaction

MAX_TRANSACTIONS = 100_000
MAX_BYTES = 16 << 20
MAX_CHECKING = 20_000
"""Transactions whose signatures are being checked."""
MAX_CHECKING_BYTES = 4 << 20

_LITTLE = 512
"""Bytes; who has less waiting than this cannot be pushed out."""


class Pooled(Struct, frozen=True, gc=False):
    """A transaction with its id, the bytes it came in, and their ``leaf_hash``: what a proposal names it by."""

    id: bytes
    transaction: Transaction
    encoded: bytes
    leaf: bytes

    @property
    def payer(self) -> bytes:
        """The first one."""
        return self.transaction.order.legs[0].payer


def read_pooled(encoded: bytes, leaf: bytes | None = None) -> Pooled:
    """``leaf``: if it is known. Raises DecodeError when it is no transaction."""
    transaction = decode_transaction(encoded)
    return Pooled(transaction.id, transaction, encoded, leaf or leaf_hash(encoded))


class Mempool:
    """At most MAX_TRANSACTIONS and MAX_BYTES. ``is_inside``: whether a transaction touches this shard alone.

    Attributes:
        dropped: transactions that found no room or were pushed out; their client sends them again.
        crossing: ids of those that touch other shards, too.
    """

    def __init__(self, is_inside: Callable[[Transaction], bool] = lambda _: True) -> None:
        self._is_inside = is_inside
        self.crossing: set[bytes] = set()
        self._pooled: dict[bytes, Pooled] = {}
        """By leaf."""
        self._by_id: dict[bytes, Pooled] = {}
        self._payers: dict[bytes, dict[bytes, Pooled]] = {}
        """In the order of their turns; each one's by id, in order of arrival."""
        self._sizes: dict[bytes, int] = {}
        """How many bytes each payer's are."""
        self._levels: list[dict[bytes, None]] = [{} for _ in range(64)]
        """The payers by the bit length of their bytes: who has most is found at once, within a factor of two. Without those who
        have so little that nobody can push them out."""
        self._bytes = 0
        self._checking: dict[bytes, Pooled] = {}
        self._checking_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._pooled)

    def __iter__(self) -> Iterator[Pooled]:
        """In order of arrival."""
        return iter(self._pooled.values())

    def in_turn(self, fits: Callable[[Pooled], bool]) -> Iterator[Pooled]:
        """In rounds: of each payer, in turn, its next one that ``fits``; what does not fit costs no turn."""
        later: list[Iterator[Pooled]] = []
        for waiting in self._payers.values():
            transactions: Iterator[Pooled] = filter(fits, waiting.values())
            if (pooled := next(transactions, None)) is not None:
                yield pooled
                later.append(transactions)
        while later:
            turn, later = later, []
            for transactions in turn:
                if (pooled := next(transactions, None)) is not None:
                    yield pooled
                    later.append(transactions)

    def find(self, leaf: bytes) -> Pooled | None:
        """The verified one with exactly these bytes, by their hash."""
        return self._pooled.get(leaf)

    def seen(self, leaf: bytes) -> Pooled | None:
        """The same, be its signatures verified or under check."""
        return self._pooled.get(leaf) or self._checking.get(leaf)

    def screen(self, batch: Sequence[bytes]) -> tuple[list[Pooled], list[Refusal]]:
        """Decode what is new in a batch: candidates to check further, and refusals. What is known already is neither."""
        candidates, refusals = [], []
        is_tight = self._is_full(len(batch), sum(map(len, batch)))
        for encoded in dict.fromkeys(batch):
            leaf = leaf_hash(encoded)
            if leaf in self._pooled or leaf in self._checking:
                continue
            if len(self._checking) >= MAX_CHECKING or self._checking_bytes >= MAX_CHECKING_BYTES:
                self.dropped += 1
                continue
            try:
                pooled = read_pooled(encoded, leaf)
            except DecodeError:
                refusals.append(Refusal(sha256(encoded).digest(), Code.MALFORMED))
                continue
            if is_tight and self._is_full(1, len(encoded)) and not self._may_push_out(pooled):
                self.dropped += 1
                refusals.append(Refusal(pooled.id, Code.LIMIT_EXCEEDED))
                continue
            candidates.append(pooled)
        return candidates, refusals

    def expect(self, transactions: Sequence[Pooled]) -> None:
        """Their signatures are being checked: until ``settle``, the same bytes are known."""
        for pooled in transactions:
            if pooled.leaf not in self._checking:
                self._checking[pooled.leaf] = pooled
                self._checking_bytes += len(pooled.encoded)

    def settle(self, transactions: Sequence[Pooled], verdicts: Sequence[bool], *, may_push_out: bool) -> list[Refusal]:
        """Take in the transactions whose signatures are valid; returns refusals for the others, and for those pushed out."""
        refusals = []
        is_tight = self._is_full(len(transactions), sum([len(pooled.encoded) for pooled in transactions]))
        for pooled, valid in zip(transactions, verdicts, strict=True):
            size = len(pooled.encoded)
            if self._checking.pop(pooled.leaf, None) is not None:
                self._checking_bytes -= size
            if not valid:
                refusals.append(Refusal(pooled.id, Code.BAD_SIGNATURE))
                continue
            while is_tight and may_push_out and self._is_full(1, size) and self._may_push_out(pooled):
                refusals.append(Refusal(self._push_out(), Code.LIMIT_EXCEEDED))
            if is_tight and self._is_full(1, size):
                self.dropped += 1
                refusals.append(Refusal(pooled.id, Code.LIMIT_EXCEEDED))
            else:
                self.add(pooled)
        return refusals

    def add(self, pooled: Pooled) -> None:
        """Take in a verified one; of two with one id (other witnesses), the first stays."""
        if pooled.id not in self._by_id:
            self._by_id[pooled.id] = self._pooled[pooled.leaf] = pooled
            if not self._is_inside(pooled.transaction):
                self.crossing.add(pooled.id)
            payer = pooled.payer
            waiting = self._payers.get(payer)
            if waiting is None:
                self._payers[payer] = {pooled.id: pooled}
            else:
                waiting[pooled.id] = pooled
            self._resize(payer, len(pooled.encoded))

    def remove(self, ids: Sequence[bytes]) -> None:
        """Forget transactions by id: each payer of one has had its turn."""
        for transaction_id in ids:
            pooled = self._by_id.pop(transaction_id, None)
            if pooled is not None:
                self.crossing.discard(transaction_id)
                payer = pooled.payer
                waiting = self._payers.pop(payer)
                del waiting[transaction_id], self._pooled[pooled.leaf]
                if waiting:
                    self._payers[payer] = waiting
                self._resize(payer, -len(pooled.encoded))

    def _is_full(self, more: int, size: int) -> bool:
        """Whether there is no room for so many transactions more, of so many bytes."""
        return len(self._pooled) + more > MAX_TRANSACTIONS or self._bytes + size > MAX_BYTES

    def _may_push_out(self, pooled: Pooled) -> bool:
        """Whether somebody has at least twice as much waiting as its payer would have."""
        size = len(pooled.encoded) + self._sizes.get(pooled.payer, 0)
        return any(self._levels[size.bit_length() + 2 :])

    def _push_out(self) -> bytes:
        """Drop the latest of who has most waiting; its id."""
        most = next(level for level in reversed(self._levels) if level)
        waiting = self._payers[next(iter(most))]
        transaction_id = next(reversed(waiting))
        self.remove([transaction_id])
        self.dropped += 1
        return transaction_id

    def _resize(self, payer: bytes, by: int) -> None:
        before = self._sizes.get(payer, 0)
        after = before + by
        self._bytes += by
        if after:
            self._sizes[payer] = after
        else:
            del self._sizes[payer]
        if before < _LITTLE and after < _LITTLE:
            return
        if before.bit_length() != after.bit_length():
            self._levels[before.bit_length()].pop(payer, None)
            if after >= _LITTLE:
                self._levels[after.bit_length()][payer] = None
