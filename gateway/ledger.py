"""The read model: what follows from blocks, made durable with the cursor in one database transaction, and told then.

What blocks speak of is read in that same transaction, so that whatever any process has made durable before is seen.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from gateway.database import Cursor, Database, insert, now_ms
from gateway.events.outbox import Outbox
from gateway.owners import Owners
from gateway.projection import Facts, Moves, Seen, Status, Tracked, Update, addresses_of, project, settle, transactions_of
from gateway.receipts import forget_receipts, receipts_rows, seen_after, seen_since
from gateway.rows import (
    balance_row,
    change_row,
    known_rows,
    move_row,
    owed_rows,
    put_postings,
    rows_left,
    tracked_row,
    transfer_row,
)
from gateway.statements import (
    ADD_BALANCE_CHANGE,
    ADD_RECEIPTS,
    ADD_TRANSFER,
    MOVE,
    OVERDUE,
    OWE,
    PLACES,
    PUT_BALANCE,
    PUT_CURSOR,
    SIGNED_ELSEWHERE,
    TRANSFER_COLUMNS,
)
from node.client.blocks import ProvenBlock
from node.protocol.block import Balance
from node.protocol.chain import Chain
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_AMOUNT

_REMEMBERED = 20_000
_LATENCY_WINDOW = 60.0
_MAX_LATENCIES = 4000
"""Sorted every second for the report: enough for a 99th percentile, and a millisecond or two."""

_MOST_OVERDUE = 1000
"""Transfers that expire with one block; others with the next."""
_MOST_MOVED = 1000
"""Transfers that get another home, or are settled, in one database transaction."""
_LOOK_BACK_AFTER_MS = 2000
"""What was signed elsewhere and ends sooner is not looked for in earlier blocks."""


class Place(NamedTuple):
    """The last block of a chain whose effects are in the database. ``time``: its block time, ms."""

    height: int
    hash: bytes
    time: int


_NOWHERE = Place(0, b"", 0)


class Superseded(RuntimeError):
    """Blocks follow another one than the last in the database: somebody else has followed the chain meanwhile."""


class _Run:
    """Consecutive blocks of one chain on their way into the database."""

    def __init__(self, chain: Chain, blocks: list[ProvenBlock]) -> None:
        self.chain, self.blocks = chain, blocks
        self.error: Exception | None = None
        self.done = False


class Ledger:
    """Attributes:
    documents: of all epochs known, from the first.
    on_final: called with each transaction that became final, once that is durable.
    finished: own transfers that became final since start, by status.
    latencies: (monotonic time, ms from acceptance to commit, whether it crossed shards) of the last minute, the latest
        few thousand.
    """

    def __init__(self, database: Database, outbox: Outbox, owners: Owners, window: int) -> None:
        """``window``: the validity window, ms."""
        self._database, self._outbox, self._owners, self._window = database, outbox, owners, window
        self._places: dict[Chain, Place] = {}
        self._under_way: OrderedDict[bytes, Tracked] = OrderedDict()
        self._looked_for = frozenset[bytes]()
        self._leads = False
        self._runs: deque[_Run] = deque()
        self._turn = asyncio.Lock()
        self.on_final: Callable[[Tracked], None] = lambda _: None
        self.documents: Sequence[EpochDocument] = ()
        self.finished = {status.value: 0 for status in Status if status.is_final}
        self.latencies: deque[tuple[float, float, bool]] = deque(maxlen=_MAX_LATENCIES)

    def place(self, chain: Chain) -> Place:
        """How far a chain has been followed, as far as this process knows."""
        return self._places.get(chain, _NOWHERE)

    def has_begun(self, chain: Chain) -> bool:
        """Whether all that a chain comes from is in the database, as far as this process knows."""
        return chain in self._places

    def time_of(self, address: bytes) -> int:
        """Block time of the shard that keeps an account, ms, as far as that has been followed; 0 before its first block."""
        chains = (Chain(document.number, document.shards.shard_of(address)) for document in reversed(self.documents))
        return next((self._places[chain].time for chain in chains if chain in self._places), 0)

    async def look(self) -> None:
        """Read how far the chains of the latest epochs have been followed."""
        await self._look(max((chain.epoch for chain in self._places), default=1) - 1)

    async def _look(self, since: int) -> None:
        for chain, place in (await self._database.read(lambda c: _read_places(c, since))).items():
            if place.height >= self.place(chain).height:
                self._places[chain] = place

    async def begin(self, chain: Chain, time: int) -> None:
        """All that a chain comes from is in the database. ``time``: block time at its height 0, ms."""
        row = {"epoch": chain.epoch, "shard": chain.shard, "height": 0, "hash": b"", "time": time}
        await self._database.write(lambda c: c.execute(insert(c, Cursor).values(row).on_conflict_do_nothing()) and None)
        await self.look()

    async def leave(self, chain: Chain) -> None:
        """A chain has been followed to its end: what it has not taken in has its home in the next epoch."""

        def write(connection: Connection) -> int:
            rows = rows_left(connection, chain, _MOST_MOVED)
            for tracked in rows:
                tracked.settle_in(self.documents[chain.epoch])
            MOVE.run_all(connection, [move_row(tracked) for tracked in rows])
            return len(rows)

        while await self._database.write(write) == _MOST_MOVED:
            pass

    def remember(self, tracked: Tracked) -> None:
        """Keep in mind what has been taken in, so that it need not be read again with its block; not while another process may
        move it."""
        if not self._leads:
            return
        self._under_way[tracked.id] = tracked
        if len(self._under_way) > _REMEMBERED:
            self._under_way.popitem(last=False)

    async def lead(self) -> None:
        """This process alone applies blocks from now on."""
        self._runs.clear()  # of whoever was cancelled when it last did
        self._under_way.clear()
        self._looked_for = frozenset()
        await self._look(1)
        self._leads = True

    def follow(self) -> None:
        """Another process may apply blocks."""
        self._leads = False
        self._under_way.clear()

    async def apply(self, chain: Chain, blocks: list[ProvenBlock]) -> None:
        """Take in consecutive verified blocks of one chain: their effects and the cursor in one database transaction. What waits
        of several shards is one transaction, too.

        Raises:
            Superseded: they do not follow the block at which the database stands.
        """
        run = _Run(chain, blocks)
        self._runs.append(run)
        async with self._turn:
            if not run.done:
                await self._take_in()
        if run.error is not None:
            raise run.error

    async def _take_in(self) -> None:
        """All that waits once the database's turn has come."""
        runs = list[_Run]()

        def write(connection: Connection) -> list[Update]:
            if not runs:
                self._take(runs)
            return self._write(connection, runs)

        try:
            updates = await self._database.write(write)
        except Exception as error:
            if not runs:  # its turn did not come
                self._take(runs)
            for run in runs:
                run.error = error
            return
        for update in updates:
            self._tell(update)

    def _take(self, runs: list[_Run]) -> None:
        """Move what waits; in whichever thread: nobody else takes, and who adds does so at the other end."""
        runs.extend(self._runs.popleft() for _ in range(len(self._runs)))
        for run in runs:
            run.done = True

    def _write(self, connection: Connection, runs: Sequence[_Run]) -> list[Update]:
        updates, now, places = list[Update](), now_ms(), _read_places(connection, min(run.chain.epoch for run in runs))
        moved: dict[bytes, Tracked] = {}  # in this transaction
        for run in runs:
            chain, first, last = run.chain, run.blocks[0].header, run.blocks[-1]
            if (place := places.get(chain)) is not None and place.height != first.height - 1:
                raise Superseded(f"shard {chain.shard} of epoch {chain.epoch} is at {place.height}, not before {first.height}")
            heights = {one.shard: place.height for one, place in places.items() if one.epoch == chain.epoch}
            facts = self._facts(connection, run, moved, heights)
            update = project(run.blocks, self.documents[chain.epoch - 1], facts)
            _save(connection, self._outbox, update, now)
            ADD_RECEIPTS.run_all(connection, receipts_rows(chain, run.blocks))
            moved.update(update.changed)
            moved.update((tracked.id, tracked) for tracked in update.found)
            places[chain] = Place(last.header.height, last.hash, last.header.time)
            updates.append(update)
        return updates

    def _facts(self, connection: Connection, run: _Run, moved: dict[bytes, Tracked], heights: dict[int, int]) -> Facts:
        blocks, asked = run.blocks, addresses_of(run.blocks)
        wallets = self._owners.of(connection, asked)
        known, unknown = dict[bytes, Tracked](), list[bytes]()
        for one in transactions_of(blocks, wallets):
            tracked = moved.get(one) or self._under_way.get(one)
            if tracked is None:
                unknown.append(one)
            else:
                known[one] = tracked
        known |= known_rows(connection, unknown)
        wallets |= self._owners.of(connection, _parties(known) - asked)
        when = {"epoch": run.chain.epoch, "shard": run.chain.shard, "time": blocks[-1].header.time}
        late = OVERDUE.run(connection, when).fetchmany(_MOST_OVERDUE)
        overdue = [tracked_row(dict(zip(TRANSFER_COLUMNS, row, strict=True))) for row in late]
        sure = [tracked for tracked in overdue if tracked.kind != "raw" or tracked.id in self._looked_for]
        return Facts(wallets, known, sure, heights)

    async def look_back(self) -> None:
        """Settle what was signed elsewhere and is under way by the receipts of blocks that were taken in before it was handed in;
        forget those that nobody asks about any more. Each transfer is looked for once, all of them in one pass: later blocks
        find it here. Until then it does not expire."""
        before = {"before": now_ms() - _LOOK_BACK_AFTER_MS}
        found = await self._database.read(lambda c: SIGNED_ELSEWHERE.run(c, before).fetchall())
        ids = frozenset(bytes(one) for (one,) in found)
        if missing := ids - self._looked_for:
            await self._look_for(missing)
        self._looked_for = ids
        front = [(chain, self.place(chain).time - 2 * self._window) for chain in self._front()]
        while front:
            if not await self._database.write(partial(forget_receipts, front=front)):
                break

    async def _look_for(self, ids: frozenset[bytes]) -> None:
        """In short steps: there may be the receipts of a million payments."""
        seen, last, before = list[Seen](), 0, -1
        while last > before:
            before = last
            more, last = await self._database.read(partial(seen_after, last=last, ids=ids))
            seen += more
        found = sorted({one.receipt.transaction_id for one in seen})
        for first in range(0, len(found), _MOST_MOVED):
            await self._settle(found[first : first + _MOST_MOVED], seen, last)

    async def _settle(self, ids: list[bytes], seen: list[Seen], last: int) -> None:
        """``seen``: what rows up to ``last`` say."""
        asked = frozenset(ids)
        about = [one for one in seen if one.receipt.transaction_id in asked]

        def write(connection: Connection) -> Moves:
            transfers = known_rows(connection, ids)
            wallets = self._owners.of(connection, _parties(transfers))
            moves = settle(transfers.values(), about + seen_since(connection, last, asked), self.documents, wallets)
            _move(connection, self._outbox, moves, now_ms())
            return moves

        async with self._turn:  # so that no block is taken in by what was known before
            self._tell_of(await self._database.write(write))

    def _front(self) -> set[Chain]:
        """The chains that are being followed, and those whose turn has not come because of what they come from."""
        front = set[Chain]()
        if self.documents:
            front |= {Chain(self.documents[-1].number, shard) for shard in self.documents[-1].electorates}
        while behind := {chain for chain in front if chain.epoch > 1 and not self.has_begun(chain)}:
            origins = ((chain.epoch - 1, self.documents[chain.epoch - 1].origins_of(chain.shard)) for chain in behind)
            front = front - behind | {Chain(epoch, shard) for epoch, shards in origins for shard in shards}
        return front

    def rejected(self, tracked: Tracked) -> None:
        """What was handed in here could not be paid, and never left."""
        self._count(tracked)
        self._outbox.wake()

    def put_balances(
        self, connection: Connection, address: bytes, epoch: int, height: int, balances: list[tuple[str, Balance]]
    ) -> None:
        """Write balances that an account had before it was followed, as of ``height``, unless newer ones are there."""
        PUT_BALANCE.run_all(connection, [balance_row(address, asset, one, epoch, height) for asset, one in balances])
        ADD_BALANCE_CHANGE.run_all(connection, [change_row(address, asset, one, epoch, height, 0) for asset, one in balances])

    def _tell(self, update: Update) -> None:
        header = update.last.header
        self._places[update.chain] = Place(header.height, update.last.hash, header.time)
        self._tell_of(update)

    def _tell_of(self, moves: Moves) -> None:
        for tracked in moves.changed.values():
            if tracked.status.is_final:
                self._under_way.pop(tracked.id, None)
                self._count(tracked)
                self.on_final(tracked)
            else:
                self.remember(tracked)
        if any(tracked.status.is_final for tracked in moves.changed.values()):
            self._outbox.wake()

    def _count(self, tracked: Tracked) -> None:
        if not tracked.own or tracked.finalized_at is None:
            return
        self.finished[tracked.status] += 1
        now = time.monotonic()
        if tracked.status is Status.COMMITTED:
            self.latencies.append((now, float(tracked.finalized_at - tracked.created_at), len(tracked.shards) > 1))
        while self.latencies and self.latencies[0][0] < now - _LATENCY_WINDOW:
            self.latencies.popleft()


def _read_places(connection: Connection, since: int) -> dict[Chain, Place]:
    """``since``: an epoch."""
    rows = PLACES.run(connection, {"since": since})
    return {Chain(epoch, shard): Place(height, bytes(block_hash), at) for epoch, shard, height, block_hash, at in rows}


def _parties(transfers: Mapping[bytes, Tracked]) -> set[bytes]:
    return {address for tracked in transfers.values() for leg in tracked.legs for address in (leg.payer, leg.payee)}


def _parts(units: int) -> list[int]:
    """As numbers that a database can take: payers could owe more once."""
    return [min(MAX_AMOUNT, units - done) for done in range(0, units, MAX_AMOUNT)]


def _save(connection: Connection, outbox: Outbox, update: Update, now: int) -> None:
    for tracked in update.found:
        tracked.created_at = now
    ADD_TRANSFER.run_all(connection, [transfer_row(tracked, None) for tracked in update.found])
    _move(connection, outbox, update, now)
    epoch, header = update.chain.epoch, update.last.header
    rows = [balance_row(c.address, c.asset, c.balance, epoch, height) for c, height in update.balances.values()]
    PUT_BALANCE.run_all(connection, rows)
    changes = [change_row(c.address, c.asset, c.balance, epoch, height, at) for c, height, at in update.changes]
    ADD_BALANCE_CHANGE.run_all(connection, changes)
    cursor = {"epoch": epoch, "shard": update.chain.shard, "height": header.height, "hash": update.last.hash, "time": header.time}
    PUT_CURSOR.run(connection, cursor)


def _move(connection: Connection, outbox: Outbox, moves: Moves, now: int) -> None:
    changed = list(moves.changed.values())
    final = [tracked for tracked in changed if tracked.status.is_final]
    for tracked in final:
        tracked.finalized_at = now
    MOVE.run_all(connection, [move_row(tracked) for tracked in changed])
    OWE.run_all(connection, owed_rows((account, -part) for account, units in moves.paid_off.items() for part in _parts(units)))
    put_postings(connection, moves.postings, now)
    outbox.emit_ends(connection, [(tracked.id, tracked.status.value) for tracked in final], now)
