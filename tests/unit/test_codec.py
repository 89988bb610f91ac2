"""The codec over every message type there is, with values drawn from the types themselves: one value, one encoding, and any
damage is refused with ``DecodeError`` or makes another canonical value, of which everything can be asked."""

import string
from random import Random
from typing import Any, cast

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct, inspect

from node.ledger import rows
from node.protocol import block, certificate, channel, epoch, messages, queries, reports, topics, transaction
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.messages import BodyRequest, BundleRequest, PeerMessage
from tests.unit.damage import edited
from tests.vectors.network import DOCUMENT, GENESIS

MODULES = (block, certificate, channel, epoch, messages, queries, reports, topics, transaction, rows)
KINDS: dict[str, Any] = {
    name: kind
    for module in MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Struct) and kind.__struct_config__.array_like
    if not any(word in str(kind.__annotations__) for word in ("Raw", "Stored"))  # with parts that are encoded already
}
UNIONS: list[Any] = [PeerMessage, epoch.ToCoordinator, epoch.FromCoordinator, channel.Record, queries.Request, queries.Answer]
LIMIT = 1 << 24
quick = settings(max_examples=15, suppress_health_check=list(HealthCheck))

plain = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=40) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=30,
)


def drawn(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a message type, from nothing but its declaration: bounds, lengths, patterns, tags."""
    match info:
        case inspect.StructType():
            return st.builds(info.cls, **{field.name: drawn(field.type) for field in info.fields})
        case inspect.Metadata():
            return drawn(info.type)
        case inspect.IntType(ge=ge, lt=lt, le=le):
            low = ge if ge is not None else -(2**63)
            high = le if le is not None else lt - 1 if lt is not None else 2**64 - 1
            edges = [n for n in (low, high, 0, 127, 128, 255, 256, 2**32) if low <= n <= high]
            return st.integers(low, high) | st.sampled_from(edges)
        case inspect.StrType(pattern=str(pattern)):
            letters = {"A-Z": string.ascii_uppercase, "a-z": string.ascii_lowercase, "0-9": string.digits}
            alphabet = "".join(chars for name, chars in letters.items() if name in pattern)
            return st.text(alphabet, min_size=info.min_length or 0, max_size=info.max_length)
        case inspect.StrType() | inspect.BytesType():
            least = info.min_length or 0
            sizes: dict[str, Any] = {"min_size": least, "max_size": min(info.max_length or 40, max(least, 40))}
            return st.text(**sizes) if isinstance(info, inspect.StrType) else st.binary(**sizes)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.VarTupleType():
            least = info.min_length or 0
            return st.lists(drawn(info.item_type), min_size=least, max_size=max(least, 3)).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(drawn, info.item_types))
        case inspect.UnionType():
            return st.one_of(*map(drawn, info.types))
        case inspect.DictType():
            return st.dictionaries(drawn(info.key_type), drawn(info.value_type), max_size=4)
        case inspect.AnyType():
            return plain | st.floats(allow_nan=False) | st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3)
    raise NotImplementedError(info)


def as_lists(value: Any) -> Any:
    """By the documented rule: a struct is the array of its tag, if it has one, and its fields in order."""
    if isinstance(value, Struct):
        tag = value.__struct_config__.tag
        fields = [as_lists(getattr(value, name)) for name in value.__struct_fields__]
        return fields if tag is None else [tag, *fields]
    if isinstance(value, tuple | list):
        return [as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return value.value if hasattr(value, "value") else value


def refused_or_another(kind: Any, damaged: bytes, original: bytes) -> None:
    """Decoding damaged bytes gives ``DecodeError`` or a value whose encoding they are, and which tells whether it holds."""
    try:
        value = decode(kind, damaged, LIMIT)
    except DecodeError:
        return
    assert encode(value) == damaged
    if damaged == original:
        return
    if kind is transaction.Transaction:
        value.has_valid_signatures()
    elif hasattr(value, "is_valid"):
        assert not value.is_valid(GENESIS if kind is epoch.PhaseNotice else DOCUMENT.electorates[1])


@given(plain)
def test_msgpack_reads_what_we_write_and_writes_the_same(value: Any) -> None:
    assert msgpack.unpackb(encode(value), strict_map_key=False) == value
    assert msgpack.packb(value) == encode(value)


@pytest.mark.parametrize("name", KINDS)
def test_every_value_survives_the_wire_and_damage_never_passes_for_it(name: str) -> None:
    kind = KINDS[name]

    @quick
    @given(drawn(inspect.type_info(kind)), st.integers(0, 2**32))
    def check(value: Any, seed: int) -> None:
        random, encoded = Random(seed), encode(value)
        again = decode(kind, encoded, len(encoded))
        assert (again, encode(again)) == (value, encoded)
        assert msgpack.unpackb(encoded, strict_map_key=False) == as_lists(value)
        for _ in range(20):
            bit = random.randrange(len(encoded) * 8)
            flipped = (int.from_bytes(encoded, "big") ^ 1 << bit).to_bytes(len(encoded), "big")
            assert flipped != encoded
            refused_or_another(kind, flipped, encoded)
            refused_or_another(kind, edited(random, encoded, encoded), encoded)
            with pytest.raises(DecodeError):
                decode(kind, encoded[: bit // 8], LIMIT)
        for bad, limit, why in ((encoded + b"\x00", LIMIT, "trailing"), (encoded, len(encoded) - 1, "at most")):
            with pytest.raises(DecodeError, match=why):
                decode(kind, bad, limit)

    check()


@pytest.mark.parametrize("union", UNIONS, ids=lambda union: union.__args__[0].__name__)
def test_a_tag_tells_the_messages_of_a_union_apart(union: Any) -> None:
    @quick
    @given(st.one_of(*(drawn(inspect.type_info(member)) for member in union.__args__)))
    def check(value: Any) -> None:
        again = decode(union, encode(value), LIMIT)
        assert (type(again), again) == (type(value), value)

    check()


@settings(max_examples=300)
@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=120))
def test_random_bytes_are_refused_or_canonical(name: str, data: bytes) -> None:
    refused_or_another(KINDS[name], data, b"")


HASH = bytes(range(32))
NOT_CANONICAL = {
    "long form of a small integer": b"\x94\x0a\xcd\x00\x03\x03\xc2",
    "signed form of a positive integer": b"\x94\x0a\xd0\x03\x03\xc2",
    "long form of the array": b"\xdc\x00\x04\x0a\x03\x03\xc2",
    "long form of a byte string": encode(BodyRequest(1, HASH)).replace(b"\xc4\x20", b"\xc5\x00\x20"),
    "an item that has a default left out": b"\x93\x0a\x03\x03",
    "trailing item": b"\x95\x0a\x03\x03\xc2\x00",
    "below the bound": b"\x94\x0a\x03\xff\xc2",
    "above the bound": b"\x94\x0a\x03\xcf\x00\x20\x00\x00\x00\x00\x00\x01\xc2",
    "a byte too few": msgpack.packb([7, 1, HASH[:-1]]),
    "a byte too many": msgpack.packb([7, 1, HASH + b"x"]),
    "a vote of no kind": msgpack.packb([2, [4, 1, bytes(32), 0, bytes(64)]]),
    "array that promises too much": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_any_other_encoding_is_refused(data: bytes) -> None:
    good = msgpack.packb([10, 3, 3, False])
    assert decode(cast(Any, PeerMessage), good, LIMIT) == BundleRequest(3, 3)
    with pytest.raises(DecodeError):
        decode(cast(Any, PeerMessage), data, LIMIT)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(cast(Any, list[Any]), b"\x91" * 100_000 + b"\xc0", LIMIT)
