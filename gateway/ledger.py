"""The read model: what the projection derives from blocks, made durable block by block, and those who wait for it told."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from gateway.database import AccountBalance, Cursor, Database, Posting, Transfer, Wallet, insert, insert_new
from gateway.projection import Projection, Sent, Status, Tracked, Update
from node.client.blocks import ProvenBlock
from node.protocol.block import Balance
from node.protocol.shards import ShardTable
from node.protocol.transaction import decode_transaction

MAX_WAITERS = 10_000
_LATENCY_WINDOW = 60.0

_MOVE = (
    update(Transfer)
    .where(Transfer.transaction_id == bindparam("id"))
    .values({name: bindparam(f"new_{name}") for name in ("status", "code", "hint", "height", "committed_in", "finalized_at")})
)
"""A transfer's next state; statements are built once, since building one costs more than running it."""


def now_ms() -> int:
    """Wall clock, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


class Ledger:
    """The projection with its database. What the rest of the gateway asks about transactions under way, it asks here.

    Attributes:
        finished: own transfers that became final since start, by status.
        latencies: (monotonic time, ms from acceptance to commit, whether it crossed shards) of the last minute.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}
        self._begun: dict[bytes, float] = {}
        self._settling: set[bytes] = set()  # final, but not durable yet: nobody is told before
        self._stopping = False
        self.projection = Projection()
        self.on_final: Callable[[bytes], None] = lambda _: None
        self.shards: ShardTable | None = None
        self.cursors: dict[int, tuple[int, bytes]] = {}
        self.finished = {status.value: 0 for status in Status if status.is_final}
        self.latencies: deque[tuple[float, float, bool]] = deque(maxlen=100_000)

    async def load(self) -> list[Tracked]:
        """Take up where the database stands. Returns the transactions handed in here that are not final: to be sent again."""
        final = [status.value for status in Status if status.is_final]
        wallets, cursors, balances, rows = await self._database.read(
            lambda c: (
                c.execute(select(Wallet.address, Wallet.id)).all(),
                c.execute(select(Cursor.shard, Cursor.height, Cursor.hash, Cursor.time)).all(),
                c.execute(select(AccountBalance.__table__)).all(),
                c.execute(select(Transfer.__table__).where(Transfer.status.not_in(final))).mappings().all(),
            )
        )
        projection = self.projection
        projection.wallets = {row.address: row.id for row in wallets}
        projection.balances = {(b.address, b.asset): Balance(b.available, b.held, b.frozen) for b in balances}
        for shard, height, block_hash, block_time in cursors:
            self.cursors[shard] = (height, block_hash)
            projection.heights[shard], projection.times[shard] = height, block_time
        mine = []
        for row in rows:
            tracked = _tracked_row(row)
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

    async def submitted(self, ids: list[bytes]) -> None:
        """Transactions have been published for the first time."""
        active = [tracked for one in ids if (tracked := self.projection.active.get(one)) is not None]
        queued = [tracked for tracked in active if tracked.status == Status.QUEUED]
        for tracked in queued:
            tracked.status = Status.SUBMITTED
        ids = [tracked.id for tracked in queued]
        statement = update(Transfer).where(Transfer.status == Status.QUEUED).values(status=Status.SUBMITTED.value)
        for first in range(0, len(ids), 500):
            chunk = statement.where(Transfer.transaction_id.in_(ids[first : first + 500]))
            await self._database.write(lambda c, chunk=chunk: c.execute(chunk) and None)  # type: ignore[misc]

    async def wait_final(self, transaction_id: bytes, seconds: float) -> None:
        """Return when the transaction is final, durably, or after ``seconds``."""
        under_way = transaction_id in self.projection.active or transaction_id in self._settling
        if not under_way or self._stopping or len(self._waiters) >= MAX_WAITERS:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiters.setdefault(transaction_id, set())
        waiting.add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            waiting.discard(future)
            if not waiting and self._waiters.get(transaction_id) is waiting:
                del self._waiters[transaction_id]

    def stop_waiting(self) -> None:
        """The process ends: whoever waits gets what is known now."""
        self._stopping = True
        for future in [future for waiting in self._waiters.values() for future in waiting]:
            if not future.done():
                future.set_result(None)

    def put_balances(self, connection: Connection, address: bytes, height: int, balances: list[tuple[str, Balance]]) -> None:
        """Write balances of an account as of ``height``, unless newer ones are there."""
        if rows := [_balance_row(address, asset, balance, height) for asset, balance in balances]:
            _put_balances(connection, rows)

    async def _keep(self, change: Update) -> None:
        # Everything is turned into plain rows now: the writer's thread must not see what later blocks make of it.
        found = [_transfer_row(tracked, None, "incoming", now_ms()) for tracked in change.found]
        moves = [_moves(tracked) for tracked in change.changed.values()]
        balances = [_balance_row(c.address, c.asset, c.balance, height) for c, height in change.balances.values()]
        last = change.last
        postings = change.postings
        final = [tracked for tracked in change.changed.values() if tracked.status.is_final]
        self._settling.update(tracked.id for tracked in final)

        def save(connection: Connection) -> None:
            if found:
                connection.execute(insert_new(connection, Transfer), found)
            if moves:
                connection.execute(_MOVE, moves)
            put_postings(connection, postings)
            if balances:
                _put_balances(connection, balances)
            if last is not None:
                header = last.header
                row = {"shard": header.shard, "height": header.height, "hash": last.hash, "time": header.time}
                connection.execute(insert(connection, Cursor).values(row).on_conflict_do_update(["shard"], set_=row))

        await self._database.write(save)
        for tracked in final:
            self._tell(tracked)

    def _tell(self, tracked: Tracked) -> None:
        self._settling.discard(tracked.id)
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
            if not future.done():
                future.set_result(None)


def put_postings(connection: Connection, postings: list[Sent]) -> None:
    """Add history lines; those already there stay as they are."""
    if postings:
        rows = [
            {"wallet_id": p.wallet, "transaction_id": p.transaction_id, "leg": p.leg, "direction": p.direction} for p in postings
        ]
        connection.execute(insert_new(connection, Posting), rows)


def put_transfer(connection: Connection, tracked: Tracked, user_id: str, kind: str, created_at: int) -> bool:
    """Record a transaction handed in here. False when it is recorded already."""
    row = _transfer_row(tracked, user_id, kind, created_at)
    done = connection.execute(insert_new(connection, Transfer), row)
    return bool(done.rowcount)


def _put_balances(connection: Connection, rows: list[dict[str, Any]]) -> None:
    statement = insert(connection, AccountBalance)
    newer = {name: statement.excluded[name] for name in ("available", "held", "frozen", "height")}
    where = AccountBalance.height <= statement.excluded.height
    connection.execute(statement.on_conflict_do_update(["address", "asset"], set_=newer, where=where), rows)


def _balance_row(address: bytes, asset: str, balance: Balance, height: int) -> dict[str, Any]:
    amounts = {"available": balance.available, "held": balance.held, "frozen": balance.frozen}
    return {"address": address, "asset": asset, **amounts, "height": height}


def _moves(tracked: Tracked) -> dict[str, Any]:
    return {
        "id": tracked.id,
        "new_status": tracked.status.value,
        "new_code": tracked.code.value,
        "new_hint": tracked.hint.value,
        "new_height": tracked.height,
        "new_committed_in": json.dumps(sorted(tracked.committed)),
        "new_finalized_at": now_ms() if tracked.status.is_final else None,
    }


def _transfer_row(tracked: Tracked, user_id: str | None, kind: str, created_at: int) -> dict[str, Any]:
    return {
        "transaction_id": tracked.id,
        "user_id": user_id,
        "kind": kind,
        "payload": tracked.encoded,
        "home_shard": tracked.home,
        "shards": json.dumps(sorted(tracked.shards)),
        "status": tracked.status.value,
        "code": tracked.code.value,
        "hint": tracked.hint.value,
        "height": tracked.height,
        "committed_in": json.dumps(sorted(tracked.committed)),
        "valid_until": tracked.valid_until,
        "created_at": created_at,
        "finalized_at": now_ms() if tracked.status.is_final else None,
    }


def _tracked_row(row: Any) -> Tracked:
    order = decode_transaction(row["payload"]).order
    tracked = Tracked(
        row["transaction_id"],
        order.legs,
        row["payload"],
        row["home_shard"],
        frozenset(json.loads(row["shards"])),
        row["valid_until"],
        own=row["user_id"] is not None,
    )
    tracked.status, tracked.height = Status(row["status"]), row["height"]
    tracked.committed = set(json.loads(row["committed_in"]))
    return tracked
