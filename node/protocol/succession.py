"""Successions: what puts the next document in force, and shows anybody that it is."""

from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.assignment import next_document
from node.protocol.change import Bulletin, Register, RegisterPhase, Stage
from node.protocol.epoch import EpochDocument, InvalidDocument
from node.protocol.genesis import Parameters
from node.protocol.limits import MAX_SHARDS


class Succession(Struct, array_like=True, frozen=True, tag=2):
    """The closing bulletins of all shards of an epoch, by shard. The first is the register's: from what it wrote down the next
    document follows."""

    closings: Annotated[tuple[Bulletin, ...], Meta(min_length=1, max_length=MAX_SHARDS)]

    @property
    def number(self) -> int:
        """Of the epoch that begins."""
        return self.closings[0].epoch + 1

    def next_document(self, previous: EpochDocument, parameters: Parameters, *, is_known: bool = False) -> EpochDocument:
        """The document that this puts in force. ``previous``: of the epoch that ends. ``is_known``: its certificates were checked
        before it was stored.

        Raises:
            InvalidDocument: it puts none in force.
        """
        if [closing.header.shard for closing in self.closings] != list(previous.shards.shards):
            raise InvalidDocument("there is not one closing bulletin of each shard, by shard")
        for closing in self.closings:
            _check_closing(closing, previous, is_known)
        document = next_document(previous, self._register, self.closings[0].change.attempt, parameters)
        for closing in self.closings:
            if (closing.change.attempt, closing.change.document) != (document.attempt, document.hash):
                raise InvalidDocument(f"shard {closing.header.shard} closed for another attempt or document")
        return document

    @property
    def _register(self) -> Register:
        """As the register's shard closed it."""
        written, *others = (closing.change.register for closing in self.closings)
        if written is None or written.phase != RegisterPhase.CLOSED:
            raise InvalidDocument("the register is not closed")
        if any(other is not None for other in others):
            raise InvalidDocument("another shard than the first tells of a register")
        return written


def _check_closing(bulletin: Bulletin, previous: EpochDocument, is_known: bool) -> None:
    """Raises InvalidDocument unless it is the closing block's, by the shard's committee."""
    shard, change = bulletin.header.shard, bulletin.change
    is_proven = bulletin.tells_of_its_header if is_known else bulletin.is_valid(previous.electorates[shard])
    if bulletin.epoch != previous.number or not is_proven:
        raise InvalidDocument(f"shard {shard}: not by its committee of epoch {previous.number}")
    if change.stage != Stage.CLOSED or change.closed != bulletin.header.height:
        raise InvalidDocument(f"shard {shard}: not its closing block")
    if change.totals is None or change.totals.hash() != bulletin.header.totals_hash:
        raise InvalidDocument(f"shard {shard}: not with the totals of its closing block")
