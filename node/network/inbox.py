"""What peers sent and nobody took yet, in order. Bounded in bytes: whoever puts something in asks for room first."""

from collections import deque
from collections.abc import Callable

import trio

from node.network.events import Inbound, Message

INBOX_BYTES = 8 << 20
"""Beyond it what peers send waits; what one read gave is taken in before it is counted."""
ITEM_BYTES = 128
"""Memory of an item besides its frame."""


class Inbox:
    """For one consumer."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        """``on_room``: called when there is room again."""
        self._items: deque[Inbound] = deque()
        self._bytes = 0
        self._on_room = on_room
        self._arrived = trio.Event()
        self._on_arrival: Callable[[], None] = self._arrived_here
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    def tell(self, on_arrival: Callable[[], None]) -> None:
        """Have this called when something is put in, for a consumer that waits for other things, too, and takes what is here."""
        self._on_arrival = on_arrival

    def _arrived_here(self) -> None:
        self._arrived.set()

    @property
    def has_room(self) -> bool:
        return self._bytes <= INBOX_BYTES

    def put(self, item: Inbound) -> None:
        self._items.append(item)
        self._bytes += _size(item)
        self._on_arrival()

    def close(self) -> None:
        """Nothing more comes."""
        self._is_closed = True
        self._arrived.set()

    async def receive(self) -> Inbound:
        """The next item. Other tasks have a turn only when there is none: a burst costs one.

        Raises:
            trio.EndOfChannel: none is there, and none comes.
        """
        while not self._items:
            if self._is_closed:
                raise trio.EndOfChannel
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self.receive_nowait()

    def receive_nowait(self) -> Inbound:
        """The next item. Raises trio.WouldBlock when there is none."""
        if not self._items:
            raise trio.WouldBlock
        item = self._items.popleft()
        was_full = not self.has_room
        self._bytes -= _size(item)
        if was_full and self.has_room:
            self._on_room()
        return item

    def __aiter__(self) -> "Inbox":
        return self

    async def __anext__(self) -> Inbound:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


def _size(item: Inbound) -> int:
    return len(item.frame) + ITEM_BYTES if isinstance(item, Message) else ITEM_BYTES
