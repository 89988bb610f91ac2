"""From one epoch to the next: the closing bulletins of all shards."""

from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.change import Bulletin
from node.protocol.limits import MAX_SHARDS


class Succession(Struct, array_like=True, frozen=True):
    """``closings``: of all shards of an epoch, by shard."""

    closings: Annotated[tuple[Bulletin, ...], Meta(min_length=1, max_length=MAX_SHARDS)]

    @property
    def number(self) -> int:
        """Of the epoch that begins."""
        return self.closings[0].epoch + 1
