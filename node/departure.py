"""How a node leaves: it says farewell (``renewal``), works on while it has a seat, and ends once others keep what it kept.

Who takes a shard over shows it by a final block of the epoch that began: a quorum of its committee has the state. Pure.
"""

from node.chronicle import Chronicle
from node.protocol.bulletins import GetChange, decode_message
from node.protocol.chain import Chain
from node.protocol.change import Bulletin
from node.protocol.codec import DecodeError, encode


class Departure:
    """``public_key``: of the node. ``chronicle``: what it knows of the epochs.

    Attributes:
        is_wanted: whether the node is to leave.
    """

    def __init__(self, public_key: bytes, chronicle: Chronicle) -> None:
        self._me, self._chronicle = public_key, chronicle
        self.is_wanted = False
        self._taken_over: set[Chain] = set()

    def begin(self) -> None:
        """The node is to leave."""
        self.is_wanted = True

    def hear(self, body: bytes) -> None:
        """A message of the bulletins topic."""
        document = self._chronicle.document
        if not self.is_wanted or document is None:
            return
        try:
            message = decode_message(body)
        except DecodeError:
            return
        if not isinstance(message, Bulletin):
            return
        chain = Chain(message.epoch, message.header.shard)
        if chain in self._awaited() and message.is_valid(document.electorates[chain.shard]):
            self._taken_over = {chain} | {one for one in self._taken_over if one.epoch == chain.epoch}

    def asks(self) -> list[bytes]:
        """What to publish on the asks topic, to know that it is over."""
        return [encode(GetChange(*chain)) for chain in self._awaited()] if self.is_wanted else []

    @property
    def is_over(self) -> bool:
        """Whether the node may end, for good: it has no seat, is not registered for another, and others keep what it kept."""
        document, register = self._chronicle.document, self._chronicle.register
        if not self.is_wanted or document is None or register is None or document.seat_of(self._me) is not None:
            return False
        written = register.change.register
        is_registered = written is not None and any(one.public_key == self._me for one in written.registrations)
        return not is_registered and not self._awaited()

    def _awaited(self) -> list[Chain]:
        """The chains of this epoch that come from the one it kept, and of which nothing was heard."""
        known = self._chronicle.documents[-2:]
        seat = known[0].seat_of(self._me) if len(known) == 2 else None
        if seat is None:
            return []
        heirs = (Chain(known[1].number, shard) for shard in sorted(known[1].children_of(seat[0])))
        return [chain for chain in heirs if chain not in self._taken_over]
