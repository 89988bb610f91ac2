"""Sends what users handed in to its home committee, again and again, until a block or the clock has decided on it."""

import asyncio
import heapq
import time

import structlog

from gateway.ledger import Ledger
from gateway.problems import Problem
from gateway.projection import Tracked
from node.client.line import BrokerUnavailable, Line
from node.protocol.codec import encode
from node.protocol.limits import MAX_BATCH_TRANSACTIONS, MAX_BROKER_BATCH_BYTES
from node.protocol.topics import TransactionBatch, transactions_topic

log = structlog.get_logger()

MAX_PENDING = 100_000
_FIRST_RETRY, _LAST_RETRY = 1.0, 10.0
_GATHER = 0.002
"""Seconds a transaction may wait for others to share its message."""


class Relay:
    """Transactions under way, each with the time of its next sending. The database remembers them; this sends them."""

    def __init__(self, line: Line, ledger: Ledger, network: bytes) -> None:
        self._line = line
        self._ledger = ledger
        self._network = network
        self._pending: dict[bytes, Tracked] = {}
        self._due: list[tuple[float, float, bytes]] = []
        self._wake = asyncio.Event()
        self.sent = 0

    def __len__(self) -> int:
        return len(self._pending)

    def check_room(self) -> None:
        """Raises Problem (503) when no more can be taken in."""
        if len(self._pending) >= MAX_PENDING:
            raise Problem(503, "overloaded", "too many transfers are under way; try again later", retry_after=5)

    def add(self, tracked: Tracked) -> None:
        """Send a transaction as soon as possible. It is in the database already."""
        self._pending[tracked.id] = tracked
        heapq.heappush(self._due, (time.monotonic(), _FIRST_RETRY, tracked.id))
        self._wake.set()

    def forget(self, transaction_id: bytes) -> None:
        """A transaction is final."""
        self._pending.pop(transaction_id, None)

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            delay = self._due[0][0] - time.monotonic() if self._due else None
            if delay is None or delay > 0:
                self._wake.clear()
                try:
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
                    await asyncio.sleep(_GATHER)
                except TimeoutError:
                    pass
            await self._send_due()

    async def _send_due(self) -> None:
        now = time.monotonic()
        by_shard: dict[int, list[Tracked]] = {}
        while self._due and self._due[0][0] <= now:
            _, pause, transaction_id = heapq.heappop(self._due)
            if (tracked := self._pending.get(transaction_id)) is not None:
                by_shard.setdefault(tracked.home, []).append(tracked)
                heapq.heappush(self._due, (now + pause, min(pause * 2, _LAST_RETRY), transaction_id))
        published: list[bytes] = []
        try:
            for shard, transactions in by_shard.items():
                for batch in _batches(transactions):
                    body = encode(TransactionBatch(tuple(t.encoded for t in batch)))
                    await self._line.publish(transactions_topic(self._network, shard), body)
                    published += [t.id for t in batch]
        except BrokerUnavailable as error:
            log.warning("broker unavailable; transactions stay queued", pending=len(self._pending), error=str(error))
        self.sent += len(published)
        self._ledger.submitted(published)


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
