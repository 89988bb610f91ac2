"""The bucket tree: per set of rows the root of the second implementation, whatever the way there; layers for blocks not final."""

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from node.ledger.commitment import BucketTree
from node.protocol.crypto import ZERO_HASH
from tests.vectors.reference import tree

# few buckets, so that rows share them; some differ in the suffix only
KEYS = st.builds(
    lambda bucket, name, suffix: bytes(17) + bytes([name]) + bucket.to_bytes(2, "big") + suffix,
    st.sampled_from([0, 1, 15, 16, 256, 65535]),
    st.integers(0, 2),
    st.sampled_from([b"USD", b"EUR", b"w"]),
)
STEP = st.dictionaries(KEYS, st.none() | st.integers(0, 3), max_size=8)


@settings(max_examples=150)
@given(st.lists(st.tuples(STEP, st.booleans()), max_size=8))
def test_updates_layers_and_absorbing_give_the_documented_root(
    steps: list[tuple[dict[bytes, int | None], bool]],
) -> None:
    base = BucketTree()
    assert base.root == ZERO_HASH
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
        assert tip.root == tree(rows)
        if absorb:
            for layer in pending:
                base.absorb(layer)
            pending.clear()
            assert base.root == tip.root == tree(rows)


def test_absorbing_keeps_nothing_of_deleted_rows() -> None:
    rows = {bytes(18) + i.to_bytes(2, "big") + b"USD": i for i in range(2_000)}

    base = BucketTree()
    empty = len(pickle.dumps(base))
    base.absorb(base.updated(rows, rows.get))
    assert len(pickle.dumps(base)) > 100 * empty
    base.absorb(base.updated(rows, lambda key: None))
    assert base.root == ZERO_HASH
    assert len(pickle.dumps(base)) == empty
