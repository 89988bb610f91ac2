"""Naming: bundles that others said they have, and that are asked for if nobody brings them.

A bundle is brought to a member by one peer, and only named by others. If that one is silent, those who named it are asked, one
after the other: silence and lies cost ``Pace.patience`` for each faulty peer. A name is kept until all were asked, and only if
its bundle would be (``inbox``).
"""

from msgspec import Struct

from node.effects import Send
from node.ledger.state import State
from node.protocol.messages import BundleWanted
from node.replica.inbox import Inbox
from node.replica.pace import Pace

_FAR_AWAY = 1 << 62


class _Named(Struct):
    """``namers``: those not asked yet, and of which shard they are."""

    due: int
    namers: dict[bytes, int]


class Naming:
    """One member's part."""

    def __init__(self, shard: int, inbox: Inbox, pace: Pace) -> None:
        self._shard, self._inbox, self._pace = shard, inbox, pace
        self._named: dict[tuple[int, int], _Named] = {}
        """By source and number, about in the order in which they are due."""

    @property
    def deadline(self) -> int:
        """When ``poll`` is due, if nothing happens before."""
        return next(iter(self._named.values())).due if self._named else _FAR_AWAY

    def named(self, peer: bytes, shard: int, source: int, sequence: int, now: int) -> None:
        """A peer, a member of ``shard``, says that it has a bundle for which there is room here."""
        self._named.setdefault((source, sequence), _Named(now + self._pace.patience, {})).namers.setdefault(peer, shard)

    def poll(self, state: State, now: int) -> tuple[list[Send], list[tuple[int, int]]]:
        """Ask for what nobody has brought. Also returns what there is no room for, or who named it did not bring."""
        asked, missing = [], []
        while self.deadline <= now:
            (source, sequence), named = key, _ = next(iter(self._named.items()))
            del self._named[key]
            cursor = state.cursor(source)
            if sequence <= cursor or self._inbox.holds(source, sequence):
                continue
            if not named.namers or not self._inbox.has_room(source, sequence, cursor):
                missing.append(key)
                continue
            peer = next(iter(named.namers))
            asked.append(Send(peer, BundleWanted(source, self._shard, sequence), named.namers.pop(peer)))
            self._named[key] = _Named(now + self._pace.patience, named.namers)
        return asked, missing
