"""The tree of the state: per set of rows the root of the second implementation, whatever the way there."""

from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ledger import commitment
from node.ledger.commitment import EMPTY_TREE, LEAF_ROWS, Tree, updated
from node.protocol import crypto
from node.protocol.crypto import ZERO_HASH
from tests.vectors.reference import tree

KEYS = [bytes([i % 3]) * 18 + i.to_bytes(2, "big") + b"USD" for i in range(400)]
STEPS = st.lists(
    st.tuples(st.integers(0, 2**32), st.sampled_from([0, 1, 5, 70, 300]), st.sampled_from([0.0, 0.3, 1.0])), max_size=6
)


@settings(max_examples=100)
@given(STEPS)
def test_any_updates_give_the_documented_root_and_leave_earlier_trees_alone(steps: list[tuple[int, int, float]]) -> None:
    """``steps``: seed, rows written, share of them deleted."""
    rows, now, kept = dict[bytes, int](), EMPTY_TREE, list[tuple[Tree, bytes]]()
    for seed, count, deleted in steps:
        random = Random(seed)
        written = {key: None if random.random() < deleted else random.randrange(3) for key in random.sample(KEYS, count)}
        rows = {key: value for key, value in (rows | written).items() if value is not None}
        kept.append((now, now.root))
        now = updated(now, written.items())
        assert now.root == tree(rows)
        assert now.count == len(rows)
    assert all(before.root == root == updated(before, ()).root for before, root in kept)


def test_a_tree_that_has_lost_its_rows_is_the_empty_one() -> None:
    full = updated(EMPTY_TREE, ((key, 1) for key in KEYS))
    assert updated(full, ((key, None) for key in KEYS)) == EMPTY_TREE
    assert EMPTY_TREE.root == ZERO_HASH


def test_no_choice_of_keys_makes_a_row_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of payees are free to choose; the first eight bits of a path take a moment to grind."""
    hashed = list[int]()

    def counting(domain: str, *parts: bytes) -> bytes:
        hashed.append(sum(map(len, parts)))
        return crypto.digest(domain, *parts)

    monkeypatch.setattr(commitment, "digest", counting)
    chosen = [bytes(16) + i.to_bytes(4, "big") + b"USD" for i in range(20_000)]
    ground = [key for i in range(1 << 18) if sha256(key := i.to_bytes(20, "big") + b"USD").digest()[0] == 7]
    assert len(ground) > 10 * LEAF_ROWS
    for keys in (chosen, ground):
        full = updated(EMPTY_TREE, ((key, 1) for key in keys))
        for key in keys[::100]:
            hashed.clear()
            updated(full, [(key, 2)])
            assert sum(hashed) <= 32 * (LEAF_ROWS + 5 * 16), "a leaf, and a few nodes above"
