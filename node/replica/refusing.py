"""Refusing: telling clients which of their transactions were not admitted, and why. Hints: one member's word, said once.

At most MAX_REFUSALS are said every INTERVAL, in one message, so that a flood of transactions does not become a flood of
refusals; about what is beyond nothing is said.
"""

from collections.abc import Iterable

from node.consensus.round import Seat
from node.effects import Publish
from node.protocol.codec import encode
from node.protocol.topics import Refusal, Refusals, refusals_topic

MAX_REFUSALS = 500
INTERVAL = 250
"""ms."""
_NEVER = 1 << 62


class Refusing:
    """Refusals of one member that are not said yet, by transaction id."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._topic = refusals_topic(seat.electorate.network, seat.electorate.chain)
        self._waiting: dict[bytes, Refusal] = {}
        self._next = 0

    @property
    def deadline(self) -> int:
        """When ``publish`` has something to say (ms, monotonic)."""
        return self._next if self._waiting else _NEVER

    def add(self, refusals: Iterable[Refusal]) -> None:
        """To be said, if there is room."""
        for refusal in refusals:
            if len(self._waiting) < MAX_REFUSALS:
                self._waiting[refusal.transaction_id] = refusal

    def publish(self, now: int) -> list[Publish]:
        """The message that is due, if one is."""
        if not self._waiting or now < self._next:
            return []
        items, self._waiting, self._next = tuple(self._waiting.values()), {}, now + INTERVAL
        seat = self._seat
        body = Refusals(seat.electorate.shard, seat.member, items).signed(seat.key, seat.electorate)
        return [Publish(self._topic, encode(body))]
