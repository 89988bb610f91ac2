"""The read model: what the projection derives from blocks, made durable block by block, and those who wait for it told."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from gateway.database import UNDER_WAY, AccountBalance, Cursor, Database, ReceivingAddress, Transfer, Wallet, now_ms
from gateway.events.outbox import Outbox
from gateway.projection import Projection, Sent, Status, Tracked, Update
from gateway.statements import ADD_BALANCE_CHANGE, ADD_POSTING, ADD_TRANSFER, MARK, MOVE, PUT_BALANCE, PUT_CURSOR
from node.client.blocks import ProvenBlock
from node.protocol.block import Balance
from node.protocol.codes import Code
from node.protocol.shards import ShardTable
from node.protocol.transaction import decode_transaction

MAX_WAITERS = 10_000
_LATENCY_WINDOW = 60.0
_MAX_LATENCIES = 4000
"""Sorted every second for the report: enough for a 99th percentile, and a millisecond or two."""


read_heights = msgspec.json.Decoder(dict[int, int]).decode
"""``Transfer.committed_in``."""


class Ledger:
    """The projection with its database. What the rest of the gateway asks about transactions under way, it asks here.

    Attributes:
        finished: own transfers that became final since start, by status.
        latencies: (monotonic time, ms from acceptance to commit, whether it crossed shards) of the last minute, the latest
            few thousand.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database, self.outbox = database, outbox
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._begun: dict[bytes, float] = {}
        self._settling: dict[bytes, Tracked] = {}  # final, but not durable yet: nobody is told before
        self._published: list[Tracked] = []
        self._stopping = False
        self.projection = Projection()
        self.on_final: Callable[[bytes], None] = lambda _: None
        self.shards: ShardTable | None = None
        self.cursors: dict[int, tuple[int, bytes]] = {}
        self.finished = {status.value: 0 for status in Status if status.is_final}
        self.latencies: deque[tuple[float, float, bool]] = deque(maxlen=_MAX_LATENCIES)

    async def load(self) -> list[Tracked]:
        """Take up where the database stands. Returns the transactions handed in here that are not final: to be sent again."""
        wallets, receiving, cursors, balances, rows = await self._database.read(
            lambda c: (
                c.execute(select(Wallet.address, Wallet.id)).all(),
                c.execute(select(ReceivingAddress.address, ReceivingAddress.wallet_id)).all(),
                c.execute(select(Cursor.shard, Cursor.height, Cursor.hash, Cursor.time)).all(),
                c.execute(select(AccountBalance.__table__)).all(),
                c.execute(select(Transfer.__table__).where(UNDER_WAY)).mappings().all(),
            )
        )
        projection = self.projection
        projection.wallets = {row.address: row.id for row in wallets}
        projection.wallets.update((row.address, row.wallet_id or "") for row in receiving)
        projection.balances = {(b.address, b.asset): Balance(b.available, b.held, b.frozen) for b in balances}
        for shard, height, block_hash, block_time in cursors:
            self.cursors[shard] = (height, block_hash)
            projection.heights[shard], projection.times[shard] = height, block_time
        mine = []
        for row in rows:
            tracked = tracked_row(row)
            if tracked.own:
                projection.track(tracked)
                mine.append(tracked)
            else:
                projection.active[tracked.id] = tracked
        return mine

    def track(self, tracked: Tracked) -> None:
        self.projection.track(tracked)
        self._begun[tracked.id] = time.monotonic()

    def untrack(self, tracked: Tracked) -> None:
        """Forget a transaction that was not recorded after all."""
        self.projection.untrack(tracked)
        self._begun.pop(tracked.id, None)

    async def apply(self, blocks: list[ProvenBlock]) -> None:
        """Take in consecutive verified blocks of one shard: their effects and the cursor in one database transaction."""
        assert self.shards is not None
        await self._keep(self.projection.apply(blocks, self.shards))

    def under_way(self, transaction_id: bytes) -> Tracked | None:
        """A transaction that is not final, or not durably."""
        return self.projection.active.get(transaction_id) or self._settling.get(transaction_id)

    def submitted(self, ids: list[bytes]) -> None:
        """Transactions have been published."""
        for one in ids:
            tracked = self.projection.active.get(one)
            if tracked is not None and tracked.status is Status.QUEUED:
                tracked.status = tracked.shown = Status.SUBMITTED
                self._published.append(tracked)

    async def mark_submitted(self, every: float = 1.0) -> None:
        """Keep in the database, too, what is published and still waits for its block; most are final before. Until cancelled."""
        while True:
            await asyncio.sleep(every)
            waiting, self._published = [tracked for tracked in self._published if tracked.status is Status.SUBMITTED], []
            marks = [{"id": tracked.id, "old": Status.QUEUED.value, "new": Status.SUBMITTED.value} for tracked in waiting]
            for first in range(0, len(marks), 500):
                await self._database.write(partial(MARK.run_all, rows=marks[first : first + 500]))

    async def wait_final(self, transaction_id: bytes, seconds: float) -> None:
        """Return when the transaction is final, durably, or after ``seconds``."""
        if self.under_way(transaction_id) is None or self._stopping or self._waiting >= MAX_WAITERS:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _release, future)
        waiting = self._waiters.setdefault(transaction_id, set())
        waiting.add(future)
        self._waiting += 1
        try:
            await future
        finally:
            timer.cancel()
            self._waiting -= 1
            waiting.discard(future)
            if not waiting and self._waiters.get(transaction_id) is waiting:
                del self._waiters[transaction_id]

    def stop_waiting(self) -> None:
        """The process ends: whoever waits gets what is known now."""
        self._stopping = True
        for waiting in self._waiters.values():
            for future in waiting:
                _release(future)

    def put_balances(self, connection: Connection, address: bytes, height: int, balances: list[tuple[str, Balance]]) -> None:
        """Write balances that an account had before it was followed, as of ``height``, unless newer ones are there."""
        PUT_BALANCE.run_all(connection, [_balance_row(address, asset, balance, height) for asset, balance in balances])
        ADD_BALANCE_CHANGE.run_all(connection, [_change_row(address, asset, one, height, 0) for asset, one in balances])

    async def _keep(self, change: Update) -> None:
        # Everything is turned into plain rows now: the writer's thread must not see what later blocks make of it.
        now = now_ms()
        for tracked in change.found:
            tracked.created_at = now
        changed = list(change.changed.values())
        final = [tracked for tracked in changed if tracked.status.is_final]
        for tracked in final:
            tracked.finalized_at = now
            self._settling[tracked.id] = tracked
        told = [(tracked, tracked.status) for tracked in changed]
        found = [transfer_row(tracked, None) for tracked in change.found]
        moves = [_moves(tracked) for tracked in changed]
        balances = [_balance_row(c.address, c.asset, c.balance, height) for c, height in change.balances.values()]
        changes = [_change_row(c.address, c.asset, c.balance, height, time) for c, height, time in change.changes]
        last, postings = change.last, change.postings
        ends = [(tracked.id, tracked.status.value) for tracked in final]

        def save(connection: Connection) -> None:
            ADD_TRANSFER.run_all(connection, found)
            MOVE.run_all(connection, moves)
            put_postings(connection, postings, now)
            PUT_BALANCE.run_all(connection, balances)
            ADD_BALANCE_CHANGE.run_all(connection, changes)
            if last is not None:
                header = last.header
                row = {"shard": header.shard, "height": header.height, "hash": last.hash, "time": header.time}
                PUT_CURSOR.run(connection, row)
            self.outbox.emit_ends(connection, ends, now)

        await self._database.write(save)
        for tracked, status in told:
            tracked.shown = status
        for tracked in final:
            self._tell(tracked)
        if final:
            self.outbox.wake()

    def _tell(self, tracked: Tracked) -> None:
        self._settling.pop(tracked.id, None)
        self.on_final(tracked.id)
        begun = self._begun.pop(tracked.id, None)
        if tracked.own:
            self.finished[tracked.status] += 1
            now = time.monotonic()
            if begun is not None and tracked.status == Status.COMMITTED:
                self.latencies.append((now, (now - begun) * 1000, len(tracked.shards) > 1))
            while self.latencies and self.latencies[0][0] < now - _LATENCY_WINDOW:
                self.latencies.popleft()
        for future in self._waiters.pop(tracked.id, ()):
            _release(future)


def _release(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def put_postings(connection: Connection, postings: list[Sent], at: int) -> None:
    """Add history lines; those already there stay as they are."""
    ADD_POSTING.run_all(
        connection,
        [
            {
                "wallet_id": posting.wallet,
                "transaction_id": posting.transaction_id,
                "leg": posting.leg,
                "direction": posting.direction,
                "asset": posting.asset,
                "counterparty": posting.counterparty,
                "at": at,
            }
            for posting in postings
        ],
    )


def _balance_row(address: bytes, asset: str, balance: Balance, height: int) -> dict[str, Any]:
    amounts = {"available": balance.available, "held": balance.held, "frozen": balance.frozen}
    return {"address": address, "asset": asset, **amounts, "height": height}


def _change_row(address: bytes, asset: str, balance: Balance, height: int, time: int) -> dict[str, Any]:
    amounts = {"available": balance.available, "held": balance.held}
    return {"address": address, "asset": asset, "height": height, "time": time, **amounts}


def _moves(tracked: Tracked) -> dict[str, Any]:
    return {
        "id": tracked.id,
        "new_status": tracked.status.value,
        "new_code": tracked.code.value,
        "new_hint": tracked.hint.value,
        "new_height": tracked.height,
        "new_committed_in": _heights(tracked.committed),
        "new_finalized_at": tracked.finalized_at,
    }


def transfer_row(tracked: Tracked, user_id: str | None) -> dict[str, Any]:
    """The row of ``Transfer``, as things stand."""
    return {
        "transaction_id": tracked.id,
        "user_id": user_id,
        "kind": tracked.kind,
        "payload": tracked.encoded,
        "home_shard": tracked.home,
        "shards": _listed(tracked.shards),
        "status": tracked.status.value,
        "code": tracked.code.value,
        "hint": tracked.hint.value,
        "height": tracked.height,
        "committed_in": _heights(tracked.committed),
        "text": searched(tracked.memo),
        "valid_until": tracked.valid_until,
        "created_at": tracked.created_at,
        "finalized_at": tracked.finalized_at,
    }


def searched(text: str) -> str:
    """A text as it is compared: whatever the case of its letters. PostgreSQL keeps no zeros in texts."""
    return text.casefold().replace("\0", "")


@lru_cache(maxsize=1024)
def _listed(shards: frozenset[int]) -> str:
    """As JSON."""
    return json.dumps(sorted(shards))


def _heights(committed: dict[int, int]) -> str:
    """As JSON."""
    return msgspec.json.encode(committed).decode()


def tracked_row(row: Any) -> Tracked:
    """What ``transfer_row`` wrote."""
    order = decode_transaction(row["payload"]).order
    tracked = Tracked(
        row["transaction_id"],
        order.legs,
        order.memo,
        row["payload"],
        row["home_shard"],
        frozenset(json.loads(row["shards"])),
        row["valid_until"],
        row["user_id"] is not None,
        row["kind"],
        row["created_at"],
        row["finalized_at"],
    )
    tracked.status = tracked.shown = Status(row["status"])
    tracked.code, tracked.hint, tracked.height = Code(row["code"]), Code(row["hint"]), row["height"]
    tracked.committed = read_heights(row["committed_in"])
    return tracked
