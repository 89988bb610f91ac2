"""What came in and is not handled yet, within bounds: the queue between a node's shell and its mind."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence

import trio

from node.alarm import Alarm
from node.events import Asked, AskedAbout, Bulletined, Entries, Event, For, Tick, Transactions
from node.network.inbox import Inbox
from node.protocol.chain import Chain
from node.protocol.queries import Query

MAX_FRAMES = 2_000
"""Of peers, handled in one turn."""
_FRAMES_SECONDS = 0.02
"""In which no further frame is begun in the same turn: what the first ones led to, votes for one, waits for the last."""
MAX_QUESTIONS = 64
"""Waiting, or being answered from storage."""
MAX_NEWS_BYTES = 4 << 20
"""Of each kind - bulletins, what is asked about them, entries - that wait; one is taken in before it is counted."""
MAX_NEWS = 256
MAX_TRANSACTION_BYTES = 4 << 20
"""Transactions waiting."""
_BATCH_BYTES = 128 << 10
"""Transactions handled in one turn: some five hundred, so that votes need not wait for long."""


class Intake:
    """Answers to effects always find room; frames of peers wait in the transport's inbox, and no task passes them on: each would
    cost a turn of trio's loop. What clients send is dropped without room: they ask, and send, again."""

    def __init__(self, peers: Inbox) -> None:
        """``peers``: what comes of them."""
        self._peers = peers
        peers.tell(self.wake)
        self._events: deque[tuple[Event, int]] = deque()
        self._questions = 0
        self._news: Counter[type] = Counter()
        self._news_bytes: Counter[type] = Counter()
        """By kind: who floods one topic does not shut the others out."""
        self._transactions: deque[tuple[Chain, bytes]] = deque()
        self._transaction_bytes = 0
        self._arrived = trio.Event()
        self._alarm = Alarm(self.wake)

    async def run(self) -> None:
        """Until cancelled: without it, nobody is woken by time."""
        await self._alarm.run()

    def wake(self) -> None:
        """Whoever waits has something to do."""
        self._arrived.set()

    def put(self, event: Event, size: int = 0) -> None:
        """``size``: bytes of it."""
        self._events.append((event, size))
        self.wake()

    def offer_transactions(self, chain: Chain, batch: Sequence[bytes]) -> bool:
        """Whether there was room for them."""
        size = sum(map(len, batch))
        if self._transaction_bytes + size > MAX_TRANSACTION_BYTES:
            return False
        self._transactions += ((chain, encoded) for encoded in batch)
        self._transaction_bytes += size
        self.wake()
        return True

    def offer_question(self, chain: Chain, query: Query) -> None:
        if self._questions < MAX_QUESTIONS:
            self._questions += 1
            self.put(For(chain, Asked(query)))

    def offer(self, event: Bulletined | AskedAbout | For, size: int) -> None:
        """What comes for all, of so many bytes."""
        kind = type(event)
        if self._news[kind] < MAX_NEWS and self._news_bytes[kind] < MAX_NEWS_BYTES:
            self._news[kind] += 1
            self._news_bytes[kind] += size
            self.put(event, size)

    def question_waits(self) -> None:
        """The answer to a question that was taken has to be read from storage first."""
        self._questions += 1

    def question_answered(self) -> None:
        self._questions -= 1

    def take(self, transactions: bool = True) -> Iterator[Event]:
        """All that is here, of frames, and of ``transactions`` if they are wanted now, a bounded part; without any, that time has
        passed."""
        is_idle = not self._events and not self._peers
        while self._events:
            event, size = self._events.popleft()
            match event:
                case For(_, Asked()):
                    self._questions -= 1
                case Bulletined() | AskedAbout() | For(_, Entries()):
                    self._news[type(event)] -= 1
                    self._news_bytes[type(event)] -= size
            yield event
        until = trio.current_time() + _FRAMES_SECONDS
        for _ in range(min(len(self._peers), MAX_FRAMES)):
            yield self._peers.receive_nowait()
            if trio.current_time() > until:
                break
        if self._transactions and transactions:
            chain = self._transactions[0][0]
            yield For(chain, Transactions(tuple(self._next_batch(chain))))
        elif is_idle:
            yield Tick()

    def _next_batch(self, chain: Chain) -> Iterator[bytes]:
        size = 0
        while self._transactions and self._transactions[0][0] == chain and size < _BATCH_BYTES:
            _, encoded = self._transactions.popleft()
            size += len(encoded)
            yield encoded
        self._transaction_bytes -= size

    async def wait(self, until: float, transactions: bool = True) -> None:
        """Until something is here, ``transactions`` if they are wanted, or that time, trio's seconds. Others have a turn,
        unless what is here answers what was just done: to take that costs less than a turn. Not while transactions wait: each
        of very many could have its own answer."""
        if self._events and not self._transactions:
            pass
        elif self._events or self._peers or (self._transactions and transactions):
            await trio.lowlevel.checkpoint()
        else:
            self._alarm.set(until)
            await self._arrived.wait()
        self._arrived = trio.Event()  # what is here is taken next, and need not wake anybody once more
