"""Shards: contiguous ranges of the address space. Splitting or merging shards moves range borders, never rehashes."""

from bisect import bisect_right
from collections.abc import Sequence

ADDRESS_SPACE = 1 << 160


class ShardTable:
    """Maps addresses to shards. Built from (first address, shard) pairs; each range ends where the next begins."""

    __slots__ = ("_firsts", "_shards")

    def __init__(self, ranges: Sequence[tuple[bytes, int]]) -> None:
        """Raises ValueError unless the ranges ascend, start at zero and name distinct shards."""
        self._firsts = [first for first, _ in ranges]
        self._shards = [shard for _, shard in ranges]
        if not ranges or self._firsts[0] != bytes(20) or len(set(self._shards)) != len(ranges):
            raise ValueError("ranges cover the address space from zero, one per shard")
        if any(a >= b for a, b in zip(self._firsts, self._firsts[1:], strict=False)):
            raise ValueError("ranges ascend")

    def shard_of(self, address: bytes) -> int:
        """The shard that keeps the 20-byte ``address``."""
        return self._shards[bisect_right(self._firsts, address) - 1]

    def range_of(self, shard: int) -> tuple[bytes, bytes]:
        """The first and the last address that a shard keeps. Raises ValueError when it is not in the table."""
        place = self._shards.index(shard)
        following = self._firsts[place + 1 :]
        end = int.from_bytes(following[0], "big") if following else ADDRESS_SPACE
        return self._firsts[place], (end - 1).to_bytes(20, "big")

    @property
    def shards(self) -> tuple[int, ...]:
        return tuple(sorted(self._shards))


def equal_ranges(count: int) -> list[tuple[bytes, int]]:
    """``count`` ranges of equal width, shard 0 first."""
    return [((i * ADDRESS_SPACE // count).to_bytes(20, "big"), i) for i in range(count)]
