"""Canonical MessagePack: every value has exactly one encoding, and a decoder refuses any other.

Messages are array-like msgspec structs: a plain MessagePack array of the fields in order, which any
MessagePack implementation reads. Decoding checks types and bounds, then encodes the result again and compares:
what is not byte for byte what ``encode`` would have written (long integer forms, trailing fields, ...) is refused.
"""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


class DecodeError(ValueError):
    """The bytes are not the canonical encoding of a value of the expected type."""


def encode(value: object) -> bytes:
    """The canonical encoding of a message struct or of plain lists, integers, strings and bytes."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes | memoryview, limit: int) -> T:
    """Decode ``data`` as ``kind`` (a struct type or a union of tagged ones).

    Raises:
        DecodeError: longer than ``limit`` bytes, malformed, out of bounds, or not canonical.
    """
    if len(data) > limit:
        raise DecodeError(f"{len(data)} bytes, at most {limit} allowed")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value: T = decoder.decode(data)
        canonical = _encoder.encode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise DecodeError(str(error)) from None
    if canonical != data:
        raise DecodeError("not canonical")
    return value
