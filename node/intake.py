"""What came in and is not handled yet, within bounds: the queue between a node's shell and its mind."""

from collections import deque
from collections.abc import Iterator, Sequence

import trio

from node.events import Asked, Event, Tick, Transactions
from node.protocol.queries import Query

MAX_EVENTS = 2_000
MAX_EVENT_BYTES = 64 << 20
MAX_QUESTIONS = 64
"""Waiting, or being answered from storage."""
MAX_TRANSACTIONS = 20_000
_BATCH = 4_096
"""Transactions handled in one turn."""


class Intake:
    """Answers to effects always find room; frames of peers wait for it; what clients send is dropped without it: they ask, and
    send, again."""

    def __init__(self) -> None:
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._questions = 0
        self._transactions: list[bytes] = []
        self._arrived = trio.Event()
        self._room = trio.Event()

    def put(self, event: Event, size: int = 0) -> None:
        """``size``: bytes of it."""
        self._events.append((event, size))
        self._bytes += size
        self._arrived.set()

    async def put_when_there_is_room(self, event: Event, size: int) -> None:
        """Slows the network down rather than pile events up."""
        while len(self._events) >= MAX_EVENTS or self._bytes >= MAX_EVENT_BYTES:
            if self._room.is_set():  # several may wait for the same room
                self._room = trio.Event()
            await self._room.wait()
        self.put(event, size)

    def offer_transactions(self, batch: Sequence[bytes]) -> None:
        if len(self._transactions) < MAX_TRANSACTIONS:
            self._transactions += batch
            self._arrived.set()

    def offer_question(self, query: Query) -> None:
        if self._questions < MAX_QUESTIONS:
            self._questions += 1
            self.put(Asked(query))

    def question_waits(self) -> None:
        """The answer to a question that was taken has to be read from storage first."""
        self._questions += 1

    def question_answered(self) -> None:
        self._questions -= 1

    def take(self) -> Iterator[Event]:
        """All that is here, of the transactions a bounded part; and that time has passed."""
        while self._events:
            event, size = self._events.popleft()
            self._bytes -= size
            if isinstance(event, Asked):
                self._questions -= 1
            yield event
        self._room.set()
        if self._transactions:
            batch, self._transactions = self._transactions[:_BATCH], self._transactions[_BATCH:]
            yield Transactions(tuple(batch))
        yield Tick()

    async def wait(self, seconds: float) -> None:
        """Until something is here, or so long."""
        if self._events or self._transactions:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(max(0.0, seconds)):
            await self._arrived.wait()
        self._arrived = trio.Event()
