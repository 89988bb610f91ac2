"""The bucket tree: one root per set of rows, whatever the way there; layers over it for blocks not final yet."""

import pickle
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


@settings(max_examples=150)
@given(st.lists(st.tuples(STEP, st.booleans()), max_size=8))
def test_incremental_layered_and_absorbed_updates_equal_a_fresh_tree(steps: list[tuple[dict[bytes, int | None], bool]]) -> None:
    base = BucketTree()
    tip, pending = base, list[BucketTree]()
    rows: dict[bytes, int] = {}
    for step, absorb in steps:
        before, below = tip.root, tip
        rows = {key: value for key, value in (rows | step).items() if value is not None}
        tip = tip.updated(step, rows.get)
        sibling = below.updated(step, lambda key: 9)
        assert (sibling.root != below.root) is bool(step)
        assert below.root == before, "layers over one tree leave it, and each other, alone"
        pending.append(tip)
        assert tip.root == tree_of(rows).root
        if absorb:
            for layer in pending:
                base.absorb(layer)
            pending.clear()
            assert base.root == tip.root == tree_of(rows).root


def test_absorbing_keeps_nothing_of_deleted_rows() -> None:
    rows = {bytes(18) + i.to_bytes(2, "big") + b"USD": i for i in range(2_000)}

    def size(tree: BucketTree) -> int:
        return len(pickle.dumps(tree))

    base = BucketTree()
    empty = size(base)
    base.absorb(base.updated(rows, rows.get))
    assert size(base) > 100 * empty
    base.absorb(base.updated(rows, lambda key: None))
    assert base.root == ZERO_HASH
    assert size(base) == empty
