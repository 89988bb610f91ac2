"""What goes over the broker about the change of epochs: bulletins, successions, and who asks for them. All prove themselves."""

from typing import Annotated, Any, cast

from msgspec import Meta, Struct

from node.protocol.block import ShardNumber
from node.protocol.change import Bulletin
from node.protocol.codec import decode
from node.protocol.limits import MAX_ASK_BYTES, MAX_FRAME_BYTES
from node.protocol.succession import Succession

EpochNumber = Annotated[int, Meta(ge=1, le=2**53)]
Message = Bulletin | Succession
"""On the bulletins topic."""


class GetChange(Struct, array_like=True, frozen=True, tag=1):
    """The newest bulletin of the chain (epoch, shard), please; of one that is over, the closing one."""

    epoch: EpochNumber
    shard: ShardNumber


class GetSuccession(Struct, array_like=True, frozen=True, tag=2):
    """The succession with which epoch ``number`` began, please."""

    number: Annotated[int, Meta(ge=2, le=2**53)]


Ask = GetChange | GetSuccession
"""On the asks topic."""


def decode_message(body: bytes) -> Message:
    """Raises DecodeError."""
    return cast(Message, decode(cast(Any, Message), body, MAX_FRAME_BYTES))  # a union is no type for mypy


def decode_ask(body: bytes) -> Ask:
    """Raises DecodeError."""
    return cast(Ask, decode(cast(Any, Ask), body, MAX_ASK_BYTES))
