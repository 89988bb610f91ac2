"""The state of one shard's ledger: committed, and as it would be after blocks that are not final yet.

``State`` is what all final blocks made. ``Overlay`` is a block's changes on top of a state or of other overlays; committing a
block merges its overlay into the state and empties it, so overlays built on it go on reading through to the state.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from heapq import heapify, heappop, heappush, merge
from itertools import chain

from node.ledger import replay
from node.ledger.checkpoint import Checkpointing, Outline, Slice
from node.ledger.reader import Reader, Supply, queue_of
from node.ledger.replay import Piece
from node.ledger.rows import (
    ANSWERED,
    CHANGE_KEY,
    EMPTY,
    NAME_BYTES,
    NO_CHANGE,
    RECORD_KINDS,
    REPLAYED,
    Prepared,
    Replayed,
    Row,
    Stage,
    Waiting,
    is_balance,
    replay_slot,
)
from node.ledger.rules import Rules
from node.ledger.table import LOW, IdSet, Table
from node.ledger.totals import Corrupt, recompute_totals, sum_supply
from node.protocol.block import Balance, Header, Totals
from node.protocol.change import Change
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import HASH_BYTES, ZERO_HASH

_MAX_ROW_BYTES = 1 << 23
"""A register with MAX_REGISTRATIONS of the longest addresses fits."""


class Overlay(Reader):
    """Changes on top of a state or another overlay, which stay as they are. An empty balance or None deletes a row."""

    def __init__(self, parent: "State | Overlay", height: int, time: int) -> None:
        self.rules = parent.rules
        self.height = height
        self.time = time
        self.state_root = parent.state_root
        self.supply = {suffix: copy(supply) for suffix, supply in parent.supply.items()}
        self.waiting_for, self.prepared_for = dict(parent.waiting_for), dict(parent.prepared_for)
        self.uncovered = {home: list(entries) for home, entries in parent.uncovered.items() if entries}
        self.checkpoint, self.next_checkpoint = parent.checkpoint, parent.next_checkpoint
        self.checkpoint_state_root = parent.checkpoint_state_root
        self._totals = parent._totals
        self.balances: dict[bytes, Balance] = {}
        self.records: dict[bytes, Row | None] = {}
        self.seen: dict[bytes, int] = {}
        self.included: tuple[Piece, ...] = ()
        """What the block adds to the replay set, for the disk."""
        self.alarms: list[tuple[int, bytes]] = []
        self.is_committed = False
        self._state: State = parent if isinstance(parent, State) else parent._state
        self._below: tuple[Overlay, ...] = parent.uncommitted() if isinstance(parent, Overlay) else ()

    def uncommitted(self) -> "tuple[Overlay, ...]":
        """This and the overlays it stands on, nearest first, without those that the state has taken in."""
        return tuple(overlay for overlay in (self, *self._below) if not overlay.is_committed)

    def balance(self, key: bytes) -> Balance:
        found = self.balances.get(key)
        if found is None:
            for overlay in self._below:
                found = overlay.balances.get(key)
                if found is not None:
                    return found
            return self._state.balances.parts[hash(key) & LOW].get(key, EMPTY)
        return found

    def record(self, key: bytes) -> Row | None:
        if key in self.records:
            return self.records[key]
        for overlay in self._below:
            if key in overlay.records:
                return overlay.records[key]
        return self._state.records.parts[hash(key) & LOW].get(key)

    def supply_of(self, suffix: bytes) -> Supply:
        """An asset's, to be changed."""
        supply = self.supply.get(suffix)
        if supply is None:
            supply = self.supply[suffix] = Supply()
        return supply

    def has_seen(self, transaction_id: bytes, valid_until: int) -> bool:
        if transaction_id in self.seen:
            return True
        for overlay in self._below:
            if transaction_id in overlay.seen:
                return True
        return self._state.has_seen(transaction_id, valid_until)

    def alarms_before(self, time: int) -> Iterator[tuple[int, bytes]]:
        found = sorted(alarm for overlay in (self, *self._below) for alarm in overlay.alarms if alarm[0] < time)
        return merge(self._state.alarms_before(time), found)

    def rows(self) -> Iterator[tuple[bytes, Balance | Row | None]]:
        """The rows written in this block, with their values after it; None for those deleted."""
        balances = [(key, None if balance == EMPTY else balance) for key, balance in self.balances.items()]
        return chain(balances, self.records.items())

    def checkpoint_root(self) -> bytes:
        """The root of the tree as of the last checkpoint before this block."""
        if self.checkpoint <= self._state.height:
            return self._state.checkpoint_root()
        below = [overlay for overlay in self.uncommitted() if overlay.height <= self.checkpoint]
        return self._state.later_checkpoint_root(row for overlay in reversed(below) for row in overlay.rows())

    def written(self) -> int:
        """How many rows were written since the last checkpoint before this block, its own included."""
        above = (overlay for overlay in self.uncommitted() if overlay.height > self.checkpoint)
        keys = {key for overlay in above for key, _ in overlay.rows()}
        return self._state.written(self.checkpoint, keys)

    def stands_on(self, state: "State") -> bool:
        """Whether this is the next block's overlay on ``state``."""
        return state is self._state and self.uncommitted() == (self,) and self.height == state.height + 1

    def note_included(self) -> None:
        """All transactions are there: bring the rows of the replay set up to date."""
        added = tuple(replay.pieces(self.record, self.rules.shard, self.seen))
        for piece, row in added:
            self.records[piece.key] = row
            if piece.start == 0:
                self.alarms.append((replay.last_moment(piece.key), piece.key))
        self.included = tuple(piece for piece, _ in added)

    @property
    def change(self) -> Change:
        return super().change

    @change.setter
    def change(self, change: Change) -> None:
        self.records[CHANGE_KEY] = change if change != NO_CHANGE else None

    def available_from(self, first: bytes) -> dict[bytes, int]:
        """Sums of the balances available at the address ``first`` and above, by asset, as in the rows' keys. Reads all rows."""
        sums: defaultdict[bytes, int] = defaultdict(int)
        for key, balance in self._state.balances.items():
            if key >= first:
                sums[key[NAME_BYTES:]] += balance.available
        for key in {key for overlay in (self, *self._below) for key in overlay.balances if key >= first}:
            sums[key[NAME_BYTES:]] += self.balance(key).available - self._state.balance(key).available
        return dict(sums)

    def close(self, state_root: bytes, totals: Totals) -> None:
        """The block is executed: nothing changes any more."""
        if self.height == self.next_checkpoint:
            self.next_checkpoint += self.rules.checkpoint_gap(self.height, self.written())
            self.checkpoint, self.checkpoint_state_root = self.height, state_root
        self.state_root, self._totals = state_root, totals

    def put_off(self, home: int, deadline: int, transaction_id: bytes) -> None:
        """What the transaction takes in is not covered: look at it again in later blocks."""
        insort(self.uncovered.setdefault(home, []), (deadline, transaction_id))

    def take_up(self, home: int, deadline: int, transaction_id: bytes) -> None:
        """It need not be looked at again."""
        entries = self.uncovered[home]
        del entries[bisect_left(entries, (deadline, transaction_id))]

    def become_transparent(self) -> None:
        """The state has taken the changes in: read through to it from now on."""
        self.is_committed = True
        self.balances.clear()
        self.records.clear()
        self.seen.clear()
        self.alarms.clear()
        self._below = ()


class State(Reader):
    """The committed state, in memory. Only ``commit`` changes it."""

    def __init__(self, rules: Rules, time: int) -> None:
        self.rules = rules
        self.height = 0
        self.time = time
        self.state_root = ZERO_HASH
        self.supply = {}
        self.waiting_for, self.prepared_for = {}, {}
        self.uncovered = {}
        self._totals = Totals((), 0)
        self.balances: Table[Balance] = Table()
        self.records: Table[Row] = Table()
        self._alarms: list[tuple[int, bytes]] = []
        self._seen: defaultdict[int, IdSet] = defaultdict(IdSet)
        self.checkpoint, self.next_checkpoint = 0, rules.checkpoint_gap(0, 0)
        self.checkpoint_state_root = self.state_root
        self._checkpointing = Checkpointing(self.checkpoint, self.next_checkpoint)

    @classmethod
    def genesis(cls, rules: Rules) -> "State":
        """The empty state that the first block is executed on."""
        return cls(rules, rules.opened)

    def balance(self, key: bytes) -> Balance:
        return self.balances.parts[hash(key) & LOW].get(key, EMPTY)

    def record(self, key: bytes) -> Row | None:
        return self.records.get(key)

    def has_seen(self, transaction_id: bytes, valid_until: int) -> bool:
        slot = self._seen.get(replay.slot_of(valid_until))
        return slot is not None and transaction_id in slot

    def alarms_before(self, time: int) -> Iterator[tuple[int, bytes]]:
        """Walks the heap from its top: what nobody asks for costs nothing."""
        alarms = self._alarms
        reached = [(alarm, 0) for alarm in alarms[:1]]
        while reached and reached[0][0][0] < time:
            alarm, place = heappop(reached)
            yield alarm
            for below in (2 * place + 1, 2 * place + 2):
                if below < len(alarms):
                    heappush(reached, (alarms[below], below))

    def checkpoint_root(self) -> bytes:
        """The root of the tree as of the last checkpoint."""
        return self._checkpointing.root()

    @property
    def certified(self) -> Outline | None:
        """The last checkpoint whose root is certified."""
        return self._checkpointing.certified

    def later_checkpoint_root(self, later: Iterable[tuple[bytes, object | None]]) -> bytes:
        """The root as of a checkpoint that is not final yet. ``later``: the rows of blocks up to it that are not final either,
        in order; none, if these are empty."""
        return self._checkpointing.root([*self._checkpointing.written.items(), *later])

    def written(self, checkpoint: int, keys: set[bytes]) -> int:
        """How many rows were written since a checkpoint, the last one or one not final yet, together with ``keys``."""
        if checkpoint > self.height:
            return len(keys)
        written = self._checkpointing.written
        return len(written) + sum(key not in written for key in keys)

    def commit(self, overlay: Overlay) -> Slice:
        """Take in the next block's changes. Overlays on top of it keep working; those on any other block are void.

        Returns the rows of the last checkpoint whose turn it is to be stored.

        Raises:
            ValueError: the overlay's parent is not this state.
        """
        if not overlay.stands_on(self):
            raise ValueError(f"block {overlay.height} does not stand on this state at {self.height}")
        self.height, self.time, self.state_root = overlay.height, overlay.time, overlay.state_root
        self.supply, self._totals = overlay.supply, overlay.totals()
        self.waiting_for, self.prepared_for = overlay.waiting_for, overlay.prepared_for
        self.uncovered = overlay.uncovered
        self.checkpoint, self.next_checkpoint = overlay.checkpoint, overlay.next_checkpoint
        self.checkpoint_state_root = overlay.checkpoint_state_root
        for transaction_id, valid_until in overlay.seen.items():
            self._seen[replay.slot_of(valid_until)].add(transaction_id)
        stored = self._merge(overlay)
        for alarm in overlay.alarms:
            heappush(self._alarms, alarm)
        while self._alarms and self._alarms[0][0] < self.time and self._alarms[0][1] not in self.records:
            heappop(self._alarms)  # what is still there is left to the next block
        overlay.become_transparent()
        return stored

    def _merge(self, overlay: Overlay) -> Slice:
        self._checkpointing.write(overlay.rows())
        balances, records = self.balances.parts, self.records.parts
        for key, balance in overlay.balances.items():
            if balance == EMPTY:
                balances[hash(key) & LOW].pop(key, None)
            else:
                balances[hash(key) & LOW][key] = balance
        for key, record in overlay.records.items():
            if record is not None:
                records[hash(key) & LOW][key] = record
                continue
            records[hash(key) & LOW].pop(key, None)
            if key.endswith(REPLAYED):
                self._seen.pop(replay_slot(key), None)
        return self._checkpointing.advance(self.height, self.next_checkpoint)

    @classmethod
    def restore(
        cls,
        rules: Rules,
        at: Header,
        next_checkpoint: int,
        rows: Iterable[tuple[bytes, bytes | None]],
        ids: Callable[[bytes, int], bytes],
    ) -> "State":
        """The state after the block with header ``at``, a checkpoint, from the rows stored: of those with one key the last
        counts, None deletes. ``ids``: gives the first so many ids of the part of the replay set with this row.

        The caller compares ``checkpoint_root`` with what the header at ``next_checkpoint`` says.

        Raises:
            Corrupt: the rows are none, or their sums are not those that the header commits to, or the ids not those of the rows.
        """
        state = cls(rules, at.time)
        state.height, state.state_root = at.height, at.state_root
        state.checkpoint, state.next_checkpoint = at.height, next_checkpoint
        state.checkpoint_state_root = at.state_root
        try:
            state._load(rows)
            state._load_derived()
            state._load_ids(ids)
        except ValueError as error:
            raise Corrupt(f"a row is damaged: {error}") from None
        state._load_commitments()
        if state._totals.hash() != at.totals_hash:
            raise Corrupt(f"the balances do not sum up to the totals of block {state.height}")
        return state

    @classmethod
    def opened(
        cls, rules: Rules, time: int, state_root: bytes, rows: Iterable[tuple[bytes, Balance | Row]], included: Iterable[Piece]
    ) -> "State":
        """The state at height 0 of a chain that follows on others. ``included``: the parts of its replay set; their rows are
        made here. Raises Corrupt when the sums of the rows do not go together."""
        state = cls(rules, time)
        state.state_root = state.checkpoint_state_root = state_root
        for key, value in rows:
            if isinstance(value, Balance):
                state.balances[key] = value
            else:
                state.records[key] = value
        for piece in included:
            state.records[piece.key] = replay.row_of(piece)
            state._see(piece.key, piece.ids)
        state._load_derived()
        state._load_commitments()
        return state

    def rows(self) -> Iterator[tuple[bytes, Balance | Row]]:
        """All."""
        return chain(self.balances.items(), self.records.items())

    @property
    def replay_set(self) -> Mapping[int, IdSet]:
        """Ids by slot."""
        return self._seen

    def _load_commitments(self) -> None:
        self._checkpointing = Checkpointing.load(self.height, self.next_checkpoint, self.rows())
        self._totals = recompute_totals(self)

    def _load(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, data in rows:
            if len(key) <= NAME_BYTES:
                raise DecodeError("a key is too short")
            if data is None:
                self.balances.pop(key, None)
                self.records.pop(key, None)
            elif is_balance(key):
                self.balances[key] = decode(Balance, data, _MAX_ROW_BYTES)
            else:
                self.records[key] = decode(RECORD_KINDS[key[-1:]], data, _MAX_ROW_BYTES)

    def _load_derived(self) -> None:
        """What follows from the rows."""
        self.supply = sum_supply(self)
        if not self.supply.keys() <= self.rules.issued_in.keys():
            raise DecodeError("an asset that there is not")
        for key, record in self.records.items():
            if isinstance(record, Waiting):
                self._alarms.append((record.deadline, key))
                queue = queue_of(self.rules, record.participants)
                self.waiting_for[queue] = self.waiting_for.get(queue, 0) + 1
            elif isinstance(record, Prepared):
                self.prepared_for[record.home] = self.prepared_for.get(record.home, 0) + 1
            elif isinstance(record, Replayed):
                self._alarms.append((replay.last_moment(key), key))
            elif key.endswith(ANSWERED):
                assert isinstance(record, int)
                self._alarms.append((record, key))
        heapify(self._alarms)
        self._load_uncovered()

    def _load_ids(self, ids: Callable[[bytes, int], bytes]) -> None:
        for key, record in self.records.items():
            if isinstance(record, Replayed):
                found = ids(key, record.count)
                if not replay.commits_to(record, found):
                    raise DecodeError("ids that a row of the replay set does not commit to")
                self._see(key, found)

    def _see(self, key: bytes, ids: bytes) -> None:
        """A part of the replay set."""
        slot = self._seen[replay_slot(key)]
        for at in range(0, len(ids), HASH_BYTES):
            slot.add(ids[at : at + HASH_BYTES])

    def _load_uncovered(self) -> None:
        for key, record in self.records.items():
            if isinstance(record, Waiting) and not record.awaiting:
                self.uncovered.setdefault(self.rules.shard, []).append((record.deadline, key[:-1]))
            elif isinstance(record, Prepared) and record.stage is not Stage.VOTED:
                self.uncovered.setdefault(record.home, []).append((record.deadline, key[:-1]))
        for entries in self.uncovered.values():
            entries.sort()
