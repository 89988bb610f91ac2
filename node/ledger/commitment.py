"""The commitment to the whole state: a sparse hash tree over 65536 buckets of rows, sixteen children to a node.

    bucket  = digest("bucket", rows)     rows: [[key, value], ...] by key, encoded; the bucket is bytes 18 and 19 of the key
    node    = digest("node", children)   16 hashes; a subtree without rows is all zeros, at any level
    root    = the node four levels up

The work of an update is in the touched buckets only. ``BucketTree.updated`` leaves the tree as it is and returns the new one
as a layer over it, so blocks that are not final can have roots; ``absorb`` merges the layer once its block is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, digest

_FAN_OUT_BITS = 4
_LEVELS = 4
_SIBLINGS = range(1 << _FAN_OUT_BITS)


class BucketTree:
    """A tree, or a layer of changes over ``base``. Level 0 are the buckets, level 4 the root."""

    __slots__ = ("_base", "_hashes", "_keys")

    def __init__(self, base: "BucketTree | None" = None) -> None:
        self._base = base
        self._hashes: tuple[dict[int, bytes], ...] = tuple({} for _ in range(_LEVELS + 1))
        self._keys: dict[int, list[bytes]] = {}

    @property
    def root(self) -> bytes:
        """32 bytes; zeros when there are no rows."""
        return self._hash(_LEVELS, 0)

    def updated(self, touched: Iterable[bytes], value: Callable[[bytes], object | None]) -> "BucketTree":
        """The tree after the rows of the ``touched`` keys took the values that ``value`` gives for them (None: no such row).

        ``value`` is also asked for the other rows in their buckets.
        """
        layer = BucketTree(self)
        buckets = defaultdict(set)
        for key in touched:
            buckets[key[18] << 8 | key[19]].add(key)
        for bucket, keys in buckets.items():
            keys.update(self._keys_of(bucket))
            rows = [(key, found) for key in sorted(keys) if (found := value(key)) is not None]
            layer._keys[bucket] = [key for key, _ in rows]
            layer._hashes[0][bucket] = digest("bucket", encode(rows)) if rows else ZERO_HASH
        for level in range(_LEVELS):
            for parent in {index >> _FAN_OUT_BITS for index in layer._hashes[level]}:
                first = parent << _FAN_OUT_BITS
                children = b"".join([layer._hash(level, first + i) for i in _SIBLINGS])
                layer._hashes[level + 1][parent] = digest("node", children) if any(children) else ZERO_HASH
        return layer

    def absorb(self, layer: "BucketTree") -> None:
        """Make the changes of ``layer`` this tree's. The layer itself, and layers over it, keep working."""
        for own, changed in zip(self._hashes, layer._hashes, strict=True):
            for index, node_hash in changed.items():
                if node_hash == ZERO_HASH:
                    own.pop(index, None)
                else:
                    own[index] = node_hash
            changed.clear()
        for bucket, keys in layer._keys.items():
            if keys:
                self._keys[bucket] = keys
            else:
                self._keys.pop(bucket, None)
        layer._keys.clear()
        layer._base = self

    def _hash(self, level: int, index: int) -> bytes:
        tree: BucketTree | None = self
        while tree is not None:
            found = tree._hashes[level].get(index)
            if found is not None:
                return found
            tree = tree._base
        return ZERO_HASH

    def _keys_of(self, bucket: int) -> list[bytes]:
        tree: BucketTree | None = self
        while tree is not None:
            found = tree._keys.get(bucket)
            if found is not None:
                return found
            tree = tree._base
        return []
