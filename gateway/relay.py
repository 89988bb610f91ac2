"""Sends what users handed in to its home committee, again and again, until a block or the clock has decided on it."""

import asyncio
import heapq
import time
from collections.abc import Iterator, Mapping

import structlog
from sqlalchemy import Connection

from gateway.database import Database
from gateway.problems import Problem
from gateway.projection import Status, Tracked
from gateway.statements import HINT, MARK, WAITS
from node.client.line import BrokerUnavailable, Line
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_BATCH_TRANSACTIONS, MAX_BROKER_BATCH_BYTES
from node.protocol.topics import TransactionBatch, transactions_topic

log = structlog.get_logger()

MAX_PENDING = 100_000
_FIRST_RETRY, _LAST_RETRY = 1.0, 10.0


class Relay(Mapping[bytes, Tracked]):
    """Transactions under way that this process sends, by id. They are in the database, which says when they need it no more."""

    def __init__(self, database: Database, line: Line, network: bytes) -> None:
        self._database = database
        self._line = line
        self._document: EpochDocument | None = None
        self._network = network
        self._pending: dict[bytes, Tracked] = {}
        self._due: list[tuple[float, float, bytes]] = []
        self._wake = asyncio.Event()
        self.sent = 0

    def __len__(self) -> int:
        return len(self._pending)

    def __getitem__(self, transaction_id: bytes) -> Tracked:
        return self._pending[transaction_id]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pending)

    def check_room(self) -> None:
        """Raises Problem (503) when no more can be taken in."""
        if len(self._pending) >= MAX_PENDING:
            raise Problem(503, "overloaded", "too many transfers are under way; try again later", retry_after=5)

    def add(self, tracked: Tracked) -> None:
        """Send a transaction as soon as possible. It is in the database already."""
        if tracked.id not in self._pending:
            self._place(tracked)
            self._pending[tracked.id] = tracked
            heapq.heappush(self._due, (time.monotonic(), _FIRST_RETRY, tracked.id))
            self._wake.set()

    def forget(self, transaction_id: bytes) -> None:
        """A transaction is final."""
        self._pending.pop(transaction_id, None)

    def move(self, document: EpochDocument) -> None:
        """An epoch has begun: what is under way goes to its new home, at once."""
        self._document, now = document, time.monotonic()
        for tracked in self._pending.values():
            self._place(tracked)
        self._due = sorted((now, _FIRST_RETRY, transaction_id) for transaction_id in self._pending)
        self._wake.set()

    def _place(self, tracked: Tracked) -> None:
        if self._document is not None and tracked.home.epoch < self._document.number:
            tracked.settle_in(self._document)
            tracked.hint = Code.OK

    def hint(self, transaction_id: bytes, code: Code, chain: Chain) -> None:
        """f+1 members of a chain's committee refuse a transaction now."""
        if (tracked := self._pending.get(transaction_id)) is not None:
            tracked.refused(code, chain)

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            delay = self._due[0][0] - time.monotonic() if self._due else None
            if delay is None or delay > 0:
                self._wake.clear()
                try:
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            await self._send_due()

    async def _send_due(self) -> None:
        due = self._take_due()
        if again := [one for one, is_first in due if not is_first]:
            await self._look(again)
        by_home: dict[Chain, list[Tracked]] = {}
        for transaction_id, _ in due:
            if (tracked := self._pending.get(transaction_id)) is not None:
                by_home.setdefault(tracked.home, []).append(tracked)
        published = 0
        try:
            for home, transactions in by_home.items():
                for batch in _batches(transactions):
                    body = encode(TransactionBatch(tuple(t.encoded for t in batch)))
                    await self._line.publish(transactions_topic(self._network, home), body)
                    published += len(batch)
                    for tracked in batch:
                        tracked.status = Status.SUBMITTED
        except BrokerUnavailable as error:
            log.warning("broker unavailable; transactions stay queued", pending=len(self._pending), error=str(error))
        self.sent += published

    def _take_due(self) -> list[tuple[bytes, bool]]:
        """Ids, and whether it is the first time."""
        now, due = time.monotonic(), list[tuple[bytes, bool]]()
        while self._due and self._due[0][0] <= now:
            _, pause, transaction_id = heapq.heappop(self._due)
            if transaction_id in self._pending:
                due.append((transaction_id, pause == _FIRST_RETRY))
                heapq.heappush(self._due, (now + pause, min(pause * 2, _LAST_RETRY), transaction_id))
        return due

    async def _look(self, ids: list[bytes]) -> None:
        """Forget what is decided; of the rest keep in the database, too, that it was published, and why members refuse it."""
        found = await self._database.read(lambda c: list(WAITS.run(c, ids)))
        waiting = {bytes(one): (status, hint) for one, status, hint in found}
        marks, hints = list[dict[str, object]](), list[dict[str, object]]()
        for transaction_id in ids:
            tracked = self._pending.get(transaction_id)
            if tracked is None:
                continue
            status, hint = waiting.get(transaction_id, ("", tracked.hint))
            if not status:
                self.forget(transaction_id)
            elif status == Status.QUEUED and tracked.status is Status.SUBMITTED:
                marks.append({"id": transaction_id, "old": status, "new": tracked.status.value})
            if hint != tracked.hint:
                hints.append({"id": transaction_id, "new_hint": tracked.hint.value})

        def save(connection: Connection) -> None:
            MARK.run_all(connection, marks)
            HINT.run_all(connection, hints)

        if marks or hints:
            await self._database.write(save)


def _batches(transactions: list[Tracked]) -> list[list[Tracked]]:
    batches: list[list[Tracked]] = [[]]
    size = 0
    for tracked in transactions:
        if batches[-1] and (size + len(tracked.encoded) > MAX_BROKER_BATCH_BYTES or len(batches[-1]) >= MAX_BATCH_TRANSACTIONS):
            batches.append([])
            size = 0
        batches[-1].append(tracked)
        size += len(tracked.encoded)
    return batches
