"""The commitment to the whole state: a hash tree whose shape follows from the rows, so that no choice of keys makes it uneven.

    row hash = digest("row", [key, value])
    path     = SHA-256(key), 64 digits in base 16: from the root down, which child

    subtree  = zeros                            without rows
             = digest("leaf", row hashes)       with at most 64 rows, by key
             = digest("node", 16 subtrees)      with more

A tree never changes: ``updated`` returns another one, which shares what is the same.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import pairwise

from msgspec import Raw, Struct

from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, digest, domain_prefix

LEAF_ROWS = 64
_SIZE = len(ZERO_HASH)
_ROW = domain_prefix("row")


class Leaf(Struct, frozen=True, gc=False):
    """``hashes``: of the rows, one after the other, by key."""

    keys: tuple[bytes, ...]
    hashes: bytes
    root: bytes

    @property
    def count(self) -> int:
        return len(self.keys)


class Node(Struct, frozen=True, gc=False):
    """``count``: rows below; always more than fit a leaf."""

    children: tuple["Leaf | Node", ...]
    count: int
    root: bytes


Tree = Leaf | Node
EMPTY_TREE: Tree = Leaf((), b"", ZERO_HASH)


_Change = tuple[bytes, bytes, bytes]
"""(path, key, row hash; empty if there is no such row any more)."""


def updated(tree: Tree, rows: Iterable[tuple[bytes, object | None]]) -> Tree:
    """The tree with the rows (key, value) added or changed; without those whose value is None."""
    changes = [
        (sha256(key).digest(), key, b"" if value is None else sha256(_ROW + encode((key, value))).digest()) for key, value in rows
    ]
    return _updated(tree, 0, changes) if changes else tree


def branches(tree: Tree, most: int) -> dict[bytes, bytes]:
    """The hashes of the 16 children, one after the other, of each subtree with more than ``most`` rows, by the digits that lead
    to it, a byte each."""
    found: dict[bytes, bytes] = {}
    waiting: list[tuple[bytes, Tree]] = [(b"", tree)]
    while waiting:
        place, subtree = waiting.pop()
        if isinstance(subtree, Node) and subtree.count > most:
            found[place] = b"".join([child.root for child in subtree.children])
            waiting += [(place + bytes([digit]), child) for digit, child in enumerate(subtree.children)]
    return found


def branch_root(children: bytes) -> bytes:
    """The hash of a subtree with these 16 children, from their hashes, one after the other."""
    return digest("node", children)


def subtree_root(rows: Sequence[tuple[bytes, bytes]], depth: int) -> bytes:
    """The hash of a subtree, so many digits below the root, with all of these rows: key and encoded value. Zeros, if they are not
    in the order of their keys."""
    if any(first >= second for (first, _), (second, _) in pairwise(rows)):
        return ZERO_HASH
    changes = [(sha256(key).digest(), key, sha256(_ROW + encode((key, Raw(value)))).digest()) for key, value in rows]
    return _updated(EMPTY_TREE, depth, changes).root


def _updated(tree: Tree, depth: int, changes: list[_Change]) -> Tree:
    children: list[Tree]
    if isinstance(tree, Leaf):
        if len(changes) <= LEAF_ROWS:
            keys, hashes = _merged(tree, changes)
            if len(keys) <= LEAF_ROWS:
                return _leaf(keys, hashes)
            changes = _changes(keys, hashes)
        else:
            changes = _changes(tree.keys, tree.hashes) + changes  # of one row the later counts
        children, count = [EMPTY_TREE] * 16, 0
    else:
        children, count = list(tree.children), tree.count
    for child, part in _by_child(changes, depth).items():
        before = children[child]
        after = children[child] = _updated(before, depth + 1, part)
        count += after.count - before.count
    if count <= LEAF_ROWS:
        return _gathered(children)
    return Node(tuple(children), count, digest("node", b"".join([child.root for child in children])))


def _merged(leaf: Leaf, changes: list[_Change]) -> tuple[list[bytes], bytearray]:
    keys, hashes = list(leaf.keys), bytearray(leaf.hashes)
    for _, key, row_hash in changes:
        at = bisect_left(keys, key)
        known = at < len(keys) and keys[at] == key
        keys[at : at + known] = [key] if row_hash else []
        hashes[_SIZE * at : _SIZE * (at + known)] = row_hash
    return keys, hashes


def _leaf(keys: list[bytes], hashes: bytearray) -> Tree:
    return Leaf(tuple(keys), bytes(hashes), digest("leaf", bytes(hashes))) if keys else EMPTY_TREE


def _changes(keys: Sequence[bytes], hashes: bytes | bytearray) -> list[_Change]:
    """A leaf's rows, as if they were added."""
    return [(sha256(key).digest(), key, bytes(hashes[_SIZE * i : _SIZE * (i + 1)])) for i, key in enumerate(keys)]


def _by_child(changes: list[_Change], depth: int) -> dict[int, list[_Change]]:
    at, shift = depth >> 1, 0 if depth & 1 else 4
    found: defaultdict[int, list[_Change]] = defaultdict(list)
    for change in changes:
        found[change[0][at] >> shift & 15].append(change)
    return found


def _gathered(children: list[Tree]) -> Tree:
    """One leaf of all rows below. They are few, so the children are leaves."""
    leaves = [child for child in children if isinstance(child, Leaf)]
    return _leaf(*_merged(Leaf((), b"", b""), [change for leaf in leaves for change in _changes(leaf.keys, leaf.hashes)]))
