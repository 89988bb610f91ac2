"""The codec over every message type there is, with values drawn from the types themselves: one value, one encoding, and any
damage is refused with ``DecodeError`` or makes another canonical value."""

import string
from random import Random
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from node.ledger.rows import RECORD_KINDS, CheckpointRow
from node.protocol import channel, epoch, messages, queries, reports, topics
from node.protocol.block import Effects, Header, Totals
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.transaction import Transaction, decode_transaction
from tests.unit.test_fuzz import samples

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *messages.PeerMessage.__args__,
        *epoch.ToCoordinator.__args__,
        *epoch.FromCoordinator.__args__,
        *queries.Request.__args__,
        *queries.Answer.__args__,
        *channel.Record.__args__,
        topics.TransactionBatch,
        topics.Refusals,
        queries.Query,
        queries.Reply,
        epoch.Announcement,
        reports.Report,
        epoch.SignedDocument,
        epoch.Registration,
        channel.Bundle,
        channel.CertifiedBundle,
        CertifiedBlock,
        Effects,
        Totals,
        Header,
        Transaction,
        CheckpointRow,
        *(kind for kind in RECORD_KINDS.values() if isinstance(kind, type)),
    )
}
UNIONS = {
    "PeerMessage": messages.PeerMessage,
    "ToCoordinator": epoch.ToCoordinator,
    "FromCoordinator": epoch.FromCoordinator,
    "Record": channel.Record,
}
LIMIT = 1 << 24
quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a message type, from nothing but its declaration: bounds, lengths, patterns, tags."""
    return _drawn(inspect.type_info(kind))


def _drawn(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType():
            return st.builds(info.cls, **{field.name: _drawn(field.type) for field in info.fields})
        case inspect.Metadata():
            return _drawn(info.type)
        case inspect.IntType():
            return _integers(info)
        case inspect.StrType(pattern=str(pattern)):
            letters = {"A-Z": string.ascii_uppercase, "a-z": string.ascii_lowercase, "0-9": string.digits}
            alphabet = "".join(chars for name, chars in letters.items() if name in pattern)
            return st.text(alphabet, min_size=info.min_length or 0, max_size=info.max_length)
        case inspect.StrType():
            return st.text(min_size=info.min_length or 0, max_size=min(info.max_length or 40, 40))
        case inspect.BytesType():
            return st.binary(min_size=info.min_length or 0, max_size=min(info.max_length or 40, max(info.min_length or 0, 40)))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.VarTupleType():
            return st.lists(_drawn(info.item_type), min_size=info.min_length or 0, max_size=max(info.min_length or 0, 3)).map(
                tuple
            )
        case inspect.TupleType():
            return st.tuples(*map(_drawn, info.item_types))
        case inspect.UnionType():
            return st.one_of(*map(_drawn, info.types))
        case inspect.DictType():
            return st.dictionaries(_drawn(info.key_type), _drawn(info.value_type), max_size=4)
        case inspect.AnyType():
            return _plain
    raise NotImplementedError(info)


def _integers(info: inspect.IntType) -> st.SearchStrategy[int]:
    low = info.ge if info.ge is not None else info.gt + 1 if info.gt is not None else -(2**63)
    high = info.le if info.le is not None else info.lt - 1 if info.lt is not None else 2**64 - 1
    return st.integers(low, high) | st.sampled_from([n for n in (low, high, 0, 127, 128, 255, 256, 2**32) if low <= n <= high])


def refused_or_another(kind: Any, damaged: bytes, original: bytes) -> None:
    """Decoding damaged bytes gives ``DecodeError`` or a value whose encoding they are."""
    try:
        value = decode(kind, damaged, LIMIT)
    except DecodeError:
        return
    assert damaged != original
    assert encode(value) == damaged


@pytest.mark.parametrize("name", KINDS)
def test_every_value_survives_the_wire_and_damage_never_passes_for_it(name: str) -> None:
    kind = KINDS[name]

    @quick
    @given(values_of(kind), st.integers(0, 2**32))
    def check(value: Any, seed: int) -> None:
        random = Random(seed)
        encoded = encode(value)
        again = decode(kind, encoded, LIMIT)
        assert again == value
        assert encode(again) == encoded
        assert msgpack.unpackb(encoded, strict_map_key=False) == msgpack.unpackb(
            msgpack.packb(_plain_of(value)), strict_map_key=False
        )
        for _ in range(20):
            length = random.randrange(len(encoded))
            with pytest.raises(DecodeError):
                decode(kind, encoded[:length], LIMIT)
            bit = random.randrange(len(encoded) * 8)
            flipped = (int.from_bytes(encoded, "big") ^ 1 << bit).to_bytes(len(encoded), "big")
            refused_or_another(kind, flipped, encoded)
        with pytest.raises(DecodeError):
            decode(kind, encoded + b"\x00", LIMIT)
        with pytest.raises(DecodeError):
            decode(kind, encoded, len(encoded) - 1)

    check()


def _plain_of(value: Any) -> Any:
    """The value as lists, numbers, strings and bytes, by the documented rule: a struct is the array of its tag, if it has one,
    and its fields in order."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        fields = [_plain_of(getattr(value, name)) for name in value.__struct_fields__]
        return fields if tag is None else [tag, *fields]
    if isinstance(value, tuple | list):
        return [_plain_of(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain_of(item) for key, item in value.items()}
    return value.value if hasattr(value, "value") else value


@pytest.mark.parametrize("name", UNIONS)
def test_a_tag_tells_the_messages_of_a_union_apart(name: str) -> None:
    kind: Any = UNIONS[name]

    @quick
    @given(st.one_of(*(values_of(member) for member in kind.__args__)))
    def check(value: Any) -> None:
        again = decode(kind, encode(value), LIMIT)
        assert type(again) is type(value)
        assert again == value

    check()


@pytest.mark.parametrize(
    "name", ["PeerMessage", "ToCoordinator", "FromCoordinator", "Refusals", "Query", "Reply", "Report", "Transaction"]
)
def test_every_truncation_and_every_single_bit_flip_of_a_real_message(name: str) -> None:
    kind, limit, valid = samples()[name]
    by_tag = {(data[1], data[0]): data for data in sorted(valid, key=len, reverse=True) if len(data) < 3_000}
    assert by_tag
    for data in by_tag.values():
        for length in range(len(data)):
            with pytest.raises(DecodeError):
                decode(kind, data[:length], limit)
        for position in range(len(data)):
            for bit in range(8):
                flipped = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
                refused_or_another(kind, flipped, data)
                if name == "Transaction":
                    _same_rules(flipped)


def _same_rules(data: bytes) -> None:
    try:
        transaction = decode_transaction(data)
    except DecodeError:
        return
    assert encode(transaction) == data
    assert not transaction.has_valid_signatures()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=120))
def test_random_bytes_are_refused_or_canonical(name: str, data: bytes) -> None:
    refused_or_another(KINDS[name], data, b"")
