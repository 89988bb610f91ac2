"""The bucket tree: one root per set of rows, whatever the way there; layers over it for blocks not final yet."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from node.ledger.commitment import BucketTree
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, digest

# few buckets, so that rows share them; some differ in the suffix only
KEYS = st.builds(
    lambda bucket, name, suffix: bytes(17) + bytes([name]) + bucket.to_bytes(2, "big") + suffix,
    st.sampled_from([0, 1, 15, 16, 256, 65535]),
    st.integers(0, 2),
    st.sampled_from([b"USD", b"EUR", b"w"]),
)
STEP = st.dictionaries(KEYS, st.none() | st.integers(0, 3), max_size=8)


def tree_of(rows: Mapping[bytes, object]) -> BucketTree:
    return BucketTree().updated(rows, rows.get)


def test_no_rows() -> None:
    assert BucketTree().root == ZERO_HASH == tree_of({}).root


def test_root_is_the_documented_hash() -> None:
    key = bytes(18) + b"\x12\x34USD"
    node = digest("bucket", encode([[key, 7]]))
    for child in (4, 3, 2, 1):
        node = digest("node", bytes(32 * child) + node + bytes(32 * (15 - child)))
    assert tree_of({key: 7}).root == node


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(STEP, st.booleans()), max_size=8))
def test_incremental_layered_and_absorbed_updates_equal_a_fresh_tree(steps: list[tuple[dict[bytes, int | None], bool]]) -> None:
    base = BucketTree()
    tip, pending = base, list[BucketTree]()
    rows: dict[bytes, int] = {}
    for step, absorb in steps:
        before = tip.root
        for key, value in step.items():
            rows.pop(key, None)
            if value is not None:
                rows[key] = value
        tip_before, tip = tip, tip.updated(step, rows.get)
        assert tip_before.root == before
        pending.append(tip)
        assert tip.root == tree_of(rows).root
        if absorb:
            for layer in pending:
                base.absorb(layer)
            pending.clear()
            assert base.root == tip.root == tree_of(rows).root


def test_two_layers_over_one_tree_do_not_see_each_other() -> None:
    key, other = bytes(20) + b"USD", bytes(20) + b"EUR"
    base = BucketTree()
    base.absorb(tree_of({key: 1}))
    left, right = base.updated([other], {key: 1, other: 2}.get), base.updated([key], {key: 3}.get)
    assert (left.root, right.root) == (tree_of({key: 1, other: 2}).root, tree_of({key: 3}).root)
    assert base.root == tree_of({key: 1}).root


def test_absorbing_keeps_nothing_of_deleted_rows() -> None:
    rows = {bytes(18) + i.to_bytes(2, "big") + b"USD": i for i in range(50)}
    base = BucketTree()
    base.absorb(base.updated(rows, rows.get))
    base.absorb(base.updated(rows, lambda key: None))
    assert base.root == ZERO_HASH
    assert not any(base._hashes)
    assert not base._keys
