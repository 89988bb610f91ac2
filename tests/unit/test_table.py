"""The containers for millions of entries: they are mapping and set, and none of their steps is long."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ledger.table import IdSet, Table

IDS = [sha256(bytes([i])).digest() for i in range(200)]


@given(st.lists(st.tuples(st.sampled_from(IDS), st.none() | st.integers())))
def test_a_table_is_a_mapping(steps: list[tuple[bytes, int | None]]) -> None:
    table, model = Table[int](), dict[bytes, int]()
    for key, value in steps:
        if value is None:
            assert table.pop(key, 0) == model.pop(key, 0)
        else:
            table[key] = model[key] = value
        assert (table.get(key), key in table, len(table)) == (model.get(key), key in model, len(model))
    assert dict(table) == model
    with pytest.raises(KeyError):
        del table[b"absent"]


def test_an_id_set_has_what_was_added_and_nothing_else() -> None:
    ids = [sha256(i.to_bytes(4, "big")).digest() for i in range(20_000)]
    found = IdSet()
    for number, added in enumerate(ids):
        assert added not in found
        found.add(added)
        assert added in found
        assert len(found) == number + 1
    assert all(added in found for added in ids)
    assert not any(sha256(added).digest() in found for added in ids)


def test_two_ids_side_by_side_do_not_make_a_third() -> None:
    found = IdSet()
    for added in (bytes(31) + b"a", b"b" * 32):
        found.add(added)
    assert bytes(30) + b"ab" not in found
    assert b"a" + b"b" * 31 not in found
    assert b"b" * 32 in found
