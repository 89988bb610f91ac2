"""What can be asked of the state of one shard's ledger: committed, and as it would be after blocks that are not final yet."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from msgspec import Struct

from node.ledger.rows import (
    CHANGE_KEY,
    CURSOR,
    EMPTY,
    NO_CHANGE,
    NO_FLOW,
    PREPARED,
    SEQUENCE,
    WAITING,
    Flow,
    Prepared,
    Row,
    Waiting,
    carried_key,
    channel_key,
    is_balance,
)
from node.ledger.rules import Rules
from node.protocol.block import Balance, Totals
from node.protocol.change import Change


class Supply(Struct, gc=False):
    """Of one asset in this shard: the sums of all available and of all held balances, and what is reserved to come in."""

    available: int = 0
    held: int = 0
    entering: int = 0


NO_SUPPLY = Supply()


def queue_of(rules: Rules, participants: Sequence[int]) -> int:
    """Under which shard a waiting transaction is counted: its participant, if there is but one, else the own."""
    return participants[0] if len(participants) == 1 else rules.shard


class Reader(ABC):
    """What can be asked of a committed state and of an overlay alike.

    Attributes:
        height, time, state_root: of the last block in it.
        supply: by asset, as in the rows' keys; missing ones are zero.
        waiting_for: number of transactions waiting here, by ``queue_of`` their participants.
        prepared_for: number of transactions prepared here, by home shard.
        uncovered: by home shard, what waits until what it takes in is covered: (deadline, transaction id), sorted.
        checkpoint, next_checkpoint: heights of the last one and of the one after it.
        checkpoint_state_root: the state root of the last one.
    """

    rules: Rules
    height: int
    time: int
    state_root: bytes
    supply: dict[bytes, Supply]
    waiting_for: dict[int, int]
    prepared_for: dict[int, int]
    uncovered: dict[int, list[tuple[int, bytes]]]
    checkpoint: int
    checkpoint_state_root: bytes
    next_checkpoint: int
    _totals: Totals

    @abstractmethod
    def balance(self, key: bytes) -> Balance:
        """The balance in a row (address + asset code)."""

    @abstractmethod
    def record(self, key: bytes) -> Row | None:
        """The value of any other row."""

    @abstractmethod
    def has_seen(self, transaction_id: bytes, valid_until: int) -> bool:
        """Whether a block of the validity window includes the transaction."""

    @abstractmethod
    def alarms_before(self, time: int) -> Iterator[tuple[int, bytes]]:
        """Times and keys of rows to look at once block time passes their time, up to ``time``, in order; some may be gone."""

    def value(self, key: bytes) -> Balance | Row | None:
        """The value of any row; None when there is none."""
        if is_balance(key):
            found = self.balance(key)
            return None if found == EMPTY else found
        return self.record(key)

    def waiting(self, transaction_id: bytes) -> Waiting | None:
        found = self.record(transaction_id + WAITING)
        assert found is None or isinstance(found, Waiting)
        return found

    def prepared(self, transaction_id: bytes) -> Prepared | None:
        found = self.record(transaction_id + PREPARED)
        assert found is None or isinstance(found, Prepared)
        return found

    def flow(self, key: bytes) -> Flow:
        found = self.record(key)
        assert found is None or isinstance(found, Flow)
        return found or NO_FLOW

    def figure(self, key: bytes) -> int:
        """What a row ``rows.figure_key`` says; 0: nothing."""
        found = self.record(key) or 0
        assert isinstance(found, int)
        return found

    def carried(self, suffix: bytes) -> int:
        """Units of an asset that the epoch began with beyond those minted here: a tally."""
        found = self.record(carried_key(suffix)) or 0
        assert isinstance(found, int)
        return found

    @property
    def change(self) -> Change:
        """How far the shard is with the change to the next epoch."""
        found = self.record(CHANGE_KEY)
        assert found is None or isinstance(found, Change)
        return found or NO_CHANGE

    def cursor(self, source_shard: int) -> int:
        """Number of the last bundle taken from that shard; 0: none."""
        return self._position(channel_key(source_shard, CURSOR))

    def sequence(self, destination_shard: int) -> int:
        """Number of the last bundle sent to that shard; 0: none."""
        return self._position(channel_key(destination_shard, SEQUENCE))

    def _position(self, key: bytes) -> int:
        found = self.record(key) or 0
        assert isinstance(found, int)
        return found

    def balances_of(self, address: bytes) -> tuple[tuple[str, Balance], ...]:
        """The account's balances that are not empty, by asset code."""
        found = ((code, self.balance(address + suffix)) for code, suffix in self.rules.suffixes.items())
        return tuple((code, balance) for code, balance in found if balance != EMPTY)

    def totals(self) -> Totals:
        """The shard's totals after the last block."""
        return self._totals
