"""What clients and other nodes publish on the broker, taken in as far as there is room, and as answering it may cost."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio

from node.allowance import Allowance
from node.effects import Subscribe
from node.events import AskedAbout, Bulletined, Entries, For
from node.intake import Intake
from node.metrics import Metrics
from node.network.broker import MESSAGE_COST, Broker
from node.network.broker import Message as Published
from node.network.pacing import Bucket
from node.node import Node
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode
from node.protocol.limits import MAX_BATCH_BODY_BYTES, MAX_ENTRY_BYTES, MAX_FRAME_BYTES, MAX_LISTED_BYTES, MAX_QUERY_BYTES
from node.protocol.queries import EVERYONE, GetBlocks, GetPending, Query
from node.protocol.topics import (
    TransactionBatch,
    asks_topic,
    bulletins_topic,
    entries_topic,
    queries_topic,
    transactions_topic,
)
from node.reading import SERVE_BYTES

SMALL_ANSWERS, SMALL_ANSWER_BYTES = 500, 1 << 10
"""How many of them a second; what each counts for."""
NEWS_RATE = 16 << 20
"""Bytes a second of bulletins that are looked at, a message counting for ``MESSAGE_COST`` more; and of asks. That all are forged
takes some 0.2 s to find out."""
LARGE_ANSWER_RATE = 4 << 20
"""Bytes a second."""
_BLOCK_BYTES = 64 << 10
"""What a block asked for is expected to have, until it has been read."""
_LEAST_READ = 8 << 10
"""What an answer from storage counts for at least: a file may have to be opened for it."""
_RUN = 100
"""Messages of the broker looked at before others have their turn."""


class Listening:
    """``payments`` brings transactions, ``line`` all else: a line of its own, so that a flood on it holds up no payment."""

    def __init__(self, network: bytes, node: Node, payments: Broker, line: Broker, intake: Intake, metrics: Metrics) -> None:
        self._network, self._node = network, node
        self._payments, self._line = payments, line
        self._intake, self._metrics = intake, metrics
        self._small = Allowance(SMALL_ANSWERS * SMALL_ANSWER_BYTES)
        self._large = Allowance(LARGE_ANSWER_RATE)
        self._news = {kind: Bucket(NEWS_RATE, NEWS_RATE) for kind in (Bulletined, AskedAbout)}
        self._registers: set[Chain] = set()
        bulletins, asks, self._entries = bulletins_topic(network), asks_topic(network), entries_topic(network)
        self._take: dict[str, Callable[[bytes], None]] = {
            bulletins: lambda body: self._on_news(Bulletined(body), len(body)),
            asks: lambda body: self._on_news(AskedAbout(body), len(body)),
            self._entries: self._on_entry,
        }
        """What to do with a message, by topic."""
        line.subscribe({bulletins: MAX_FRAME_BYTES, asks: MAX_QUERY_BYTES})

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, self._payments.inbox)
            nursery.start_soon(self._receive, self._line.inbox)

    def subscribe(self, wanted: Subscribe) -> None:
        chain = wanted.chain
        transactions, queries = transactions_topic(self._network, chain), queries_topic(self._network, chain)
        self._take |= {transactions: partial(self._on_batch, chain), queries: partial(self._on_query, chain)}
        self._payments.subscribe({transactions: MAX_BATCH_BODY_BYTES})
        self._line.subscribe({queries: MAX_QUERY_BYTES})
        if wanted.entries:
            self._registers.add(chain)
            self._line.subscribe({self._entries: MAX_ENTRY_BYTES})

    def retire(self, chain: Chain) -> None:
        """Take in questions for its blocks, and nothing else."""
        queries = queries_topic(self._network, chain)
        self._take[queries] = partial(self._on_query, chain)
        self._line.subscribe({queries: MAX_QUERY_BYTES})

    def unsubscribe(self, chain: Chain) -> None:
        transactions, queries = transactions_topic(self._network, chain), queries_topic(self._network, chain)
        for topic in (transactions, queries):
            self._take.pop(topic, None)
        self._payments.unsubscribe([transactions])
        self._line.unsubscribe([queries])
        if self._registers == {chain}:
            self._line.unsubscribe([self._entries])
        self._registers.discard(chain)

    def answered(self, query: Query, size: int) -> None:
        """The answer had so many bytes."""
        self._large.correct(query.client, max(size, _LEAST_READ) - _expected(query), trio.current_time())

    async def _receive(self, inbox: trio.MemoryReceiveChannel[Published]) -> None:
        async for message in inbox:
            self._take_in(message)
            with suppress(trio.WouldBlock):  # waiting for each of many would cost more than most of them do
                for _ in range(_RUN):
                    self._take_in(inbox.receive_nowait())

    def _take_in(self, message: Published) -> None:
        topic, body = message
        take = self._take.get(topic)
        try:
            if take is not None:
                take(body)
        except DecodeError:
            self._metrics.bad_broker_message()

    def _on_batch(self, chain: Chain, body: bytes) -> None:
        self._intake.offer_transactions(chain, decode(TransactionBatch, body, MAX_BATCH_BODY_BYTES).transactions)

    def _on_query(self, chain: Chain, body: bytes) -> None:
        """Pass on what this member is to answer, as far as it may cost so much."""
        query, seat = decode(Query, body, MAX_QUERY_BYTES), self._node.seat_in(chain)
        if seat is None:  # another ledger is being brought back
            return
        if query.member == seat.member or (query.member == EVERYONE and query.is_small):
            allowance = self._small if query.is_small else self._large
            if allowance.admit(query.client, _expected(query), trio.current_time()):
                self._intake.offer_question(chain, query)

    def _on_news(self, news: Bulletined | AskedAbout, size: int) -> None:
        """What is dropped here is asked for again."""
        budget, now = self._news[type(news)], trio.current_time()
        if budget.has_any(now):
            budget.take(size + MESSAGE_COST, now)
            self._intake.offer(news, size)

    def _on_entry(self, body: bytes) -> None:
        for chain in self._registers:
            self._intake.offer(For(chain, Entries((body,))), len(body))


def _expected(query: Query) -> int:
    """What an answer is expected to have, bytes."""
    match query.request:
        case GetBlocks(_, count):
            return min(count * _BLOCK_BYTES, SERVE_BYTES)
        case GetPending():
            return MAX_LISTED_BYTES
        case _:
            return SMALL_ANSWER_BYTES
