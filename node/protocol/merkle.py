"""Binary Merkle trees after RFC 6962 (section 2.1): leaves and inner nodes hash under different prefixes."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.crypto import Hash

EMPTY_ROOT = sha256(b"").digest()


class Branch(Struct, array_like=True, frozen=True):
    """Shows that a leaf stands at ``index`` of a tree of ``size`` leaves; ``path`` runs from the leaf to the root."""

    index: Annotated[int, Meta(ge=0)]
    size: Annotated[int, Meta(ge=1)]
    path: Annotated[tuple[Hash, ...], Meta(max_length=40)]


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def _levels(hashes: Sequence[bytes]) -> list[Sequence[bytes]]:
    level = hashes
    levels = [level]
    while len(level) > 1:
        parents = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            parents.append(level[-1])
        level = parents
        levels.append(level)
    return levels


def root(leaves: Sequence[bytes]) -> bytes:
    """Root (32 bytes) over the leaves' data."""
    return root_above([leaf_hash(leaf) for leaf in leaves])


def root_above(hashes: Sequence[bytes]) -> bytes:
    """The same over leaves whose hashes are known."""
    return _levels(hashes)[-1][0] if hashes else EMPTY_ROOT


def branch(leaves: Sequence[bytes], index: int) -> Branch:
    """The branch of leaf ``index``. Raises IndexError when there is none."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    path, i = [], index
    for level in _levels([leaf_hash(leaf) for leaf in leaves])[:-1]:
        if i ^ 1 < len(level):
            path.append(level[i ^ 1])
        i //= 2
    return Branch(index, len(leaves), tuple(path))


def verify(data: bytes, proof: Branch, expected_root: bytes) -> bool:
    """Whether ``data`` is the leaf that ``proof`` places in the tree with ``expected_root``."""
    if proof.index >= proof.size:
        return False
    node, i, size, path = leaf_hash(data), proof.index, proof.size, iter(proof.path)
    while size > 1:
        if i ^ 1 < size:
            sibling = next(path, None)
            if sibling is None:
                return False
            node = sha256(b"\x01" + (sibling + node if i & 1 else node + sibling)).digest()
        i, size = i // 2, (size + 1) // 2
    return next(path, None) is None and node == expected_root
