"""The state of one shard's ledger: committed, and as it would be after blocks that are not final yet.

``State`` is what all final blocks made. ``Overlay`` is a block's changes on top of a state or of other overlays; committing a
block merges its overlay into the state and empties it, so overlays built on it go on reading through to the state.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from heapq import heapify, heappop, heappush, merge
from itertools import chain

from msgspec import Struct

from node.ledger import replay
from node.ledger.checkpoint import Checkpointing, Outline, Slice
from node.ledger.replay import Piece
from node.ledger.rows import (
    ANSWERED,
    CHANGE_KEY,
    CURSOR,
    EMPTY,
    FLOW,
    ISSUER,
    NAME_BYTES,
    NO_CHANGE,
    NO_FLOW,
    PREPARED,
    RECORD_KINDS,
    REPLAYED,
    SEQUENCE,
    WAITING,
    Flow,
    Prepared,
    Replayed,
    Row,
    Stage,
    Waiting,
    carried_key,
    channel_key,
    is_balance,
    parse_flow_key,
    replay_slot,
)
from node.ledger.rules import Rules
from node.ledger.table import LOW, IdSet, Table
from node.protocol.block import AssetTotal, Balance, Header, PeerTotal, Totals
from node.protocol.change import Change
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import HASH_BYTES, ZERO_HASH

_MAX_ROW_BYTES = 1 << 23
"""A register with MAX_REGISTRATIONS of the longest addresses fits."""


class Corrupt(ValueError):
    """The rows are not those of the checkpoint they claim to be."""


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
        self.supply = _sum_supply(self)
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


def _sum_supply(state: State) -> dict[bytes, Supply]:
    sums: defaultdict[bytes, Supply] = defaultdict(Supply)
    for key, balance in state.balances.items():
        supply = sums[key[NAME_BYTES:]]
        supply.available += balance.available
        supply.held += balance.held
    for key, flow in state.records.items():
        if isinstance(flow, Flow):
            sums[key[NAME_BYTES:-1]].entering += flow.entering
    return dict(sums)


def recompute_totals(state: State) -> Totals:
    """The totals, from nothing but the state's rows. Raises Corrupt when an asset's invariant (``AssetTotal``) does not hold."""
    supply = _sum_supply(state)
    pending = sum(isinstance(record, Waiting | Prepared) for record in state.records.values())
    flows = ((key, record) for key, record in state.records.items() if isinstance(record, Flow))
    carried = ((code, state.carried(suffix)) for code, suffix in state.rules.suffixes.items())
    before = Totals(tuple(AssetTotal(code, 0, 0, 0, 0, units, ()) for code, units in carried if units), pending)
    totals = _totals(before, supply, [suffix.decode() for suffix in supply], flows)
    for total in totals.assets:
        if not total.is_balanced:
            raise Corrupt(f"{total.available + total.held} units of {total.asset} are here, but not as many came in: {total}")
    return totals


def totals_after(overlay: Overlay) -> Totals:
    """The totals after the block: those before it, with the figures of the assets it touched anew."""
    before, pending = overlay.totals(), sum(overlay.waiting_for.values()) + sum(overlay.prepared_for.values())
    flows = [(key, overlay.flow(key)) for key in overlay.records if key.endswith(FLOW)]
    touched = {parse_flow_key(key)[1] for key, _ in flows}
    for total in before.assets:
        now = overlay.supply.get(overlay.rules.suffixes[total.asset], NO_SUPPLY)
        if (total.available, total.held) != (now.available, now.held):
            touched.add(total.asset)
    if not touched and pending == before.pending:
        return before
    return _totals(Totals(before.assets, pending), overlay.supply, touched, flows)


def _totals(before: Totals, supply: dict[bytes, Supply], touched: Iterable[str], flows: Iterable[tuple[bytes, Flow]]) -> Totals:
    assets = {total.asset: total for total in before.assets}
    boundaries: dict[str, dict[int, Flow]] = {}
    for key, flow in flows:
        boundary, code = parse_flow_key(key)
        boundaries.setdefault(code, {})[boundary] = flow
    for code in touched:
        known = assets.get(code) or AssetTotal(code, 0, 0, 0, 0, 0, ())
        changed = boundaries.get(code, {})
        issued = changed.pop(ISSUER, Flow(known.minted, known.burned))
        peers = {peer.shard: peer for peer in known.peers}
        peers |= {shard: PeerTotal(shard, flow.left, flow.entered) for shard, flow in changed.items()}
        by_shard = tuple(peers[shard] for shard in sorted(peers) if peers[shard].exported or peers[shard].imported)
        now = supply.get(code.encode(), NO_SUPPLY)
        assets[code] = AssetTotal(code, now.available, now.held, issued.entered, issued.left, known.carried, by_shard)
        if not (now.available or now.held or issued.entered or issued.left or known.carried or by_shard):
            del assets[code]
    return Totals(tuple(assets[code] for code in sorted(assets)), before.pending)
