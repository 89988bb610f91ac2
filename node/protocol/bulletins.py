"""What goes over the broker about the change of epochs: bulletins, successions, and who asks for them. All prove themselves."""

from collections.abc import Iterable
from typing import Annotated, Any, Self, cast

from msgspec import Meta, Struct

from node.protocol.block import ShardNumber
from node.protocol.change import Bulletin
from node.protocol.codec import decode, encode
from node.protocol.limits import MAX_ASK_BYTES, MAX_FRAME_BYTES
from node.protocol.succession import Succession

EpochNumber = Annotated[int, Meta(ge=1, le=2**53)]
SuccessionNumber = Annotated[int, Meta(ge=2, le=2**53)]


class Successions(Struct, array_like=True, frozen=True, tag=2):
    """What the epochs from ``first`` on began with, one after the other, each an encoded ``Succession``: who is past one of them
    need not read it."""

    first: SuccessionNumber
    encoded: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_FRAME_BYTES >> 10)]

    @classmethod
    def of(cls, successions: Iterable[Succession], most: int = MAX_FRAME_BYTES) -> Self:
        """Consecutive ones, from the first on: as many as fit into ``most`` bytes, but one at least."""
        encoded, size, first = list[bytes](), 0, 0
        for succession in successions:
            one = encode(succession)
            size += len(one)
            if encoded and size > most:
                break
            first = first or succession.number
            encoded.append(one)
        return cls(first, tuple(encoded))


Message = Bulletin | Successions
"""On the bulletins topic."""


class GetChange(Struct, array_like=True, frozen=True, tag=1):
    """The newest bulletin of the chain (epoch, shard), please; of one that is over, the closing one."""

    epoch: EpochNumber
    shard: ShardNumber


class GetSuccession(Struct, array_like=True, frozen=True, tag=2):
    """The succession with which epoch ``number`` began, please, and those after it."""

    number: SuccessionNumber


Ask = GetChange | GetSuccession
"""On the asks topic."""


def decode_message(body: bytes) -> Message:
    """Raises DecodeError."""
    return cast(Message, decode(cast(Any, Message), body, MAX_FRAME_BYTES))  # a union is no type for mypy


def decode_ask(body: bytes) -> Ask:
    """Raises DecodeError."""
    return cast(Ask, decode(cast(Any, Ask), body, MAX_ASK_BYTES))
