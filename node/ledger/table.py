"""Containers for millions of entries that never stop to move all of them.

A dict or set that is full is copied to a larger one at once: with five million entries that takes more than a second.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar, overload

T = TypeVar("T")
D = TypeVar("D")

_PARTS = 256
LOW = _PARTS - 1
"""Bits of a key's hash that say in which part of a ``Table`` it is."""
_ID_BYTES = 32
_IDS = 8
"""In a group of a ``IdSet``, on average, before another is made."""


class Table(MutableMapping[bytes, T]):
    """A mapping in dicts, which grow one at a time. Which key is in which of them nobody outside can foresee or choose:
    Python salts the hash of bytes.

    Attributes:
        parts: the dicts; a key is in ``parts[hash(key) & LOW]``, for who does more than one thing with it.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: tuple[dict[bytes, T], ...] = tuple({} for _ in range(_PARTS))

    def __getitem__(self, key: bytes) -> T:
        return self.parts[hash(key) & LOW][key]

    def __setitem__(self, key: bytes, value: T) -> None:
        self.parts[hash(key) & LOW][key] = value

    def __delitem__(self, key: bytes) -> None:
        del self.parts[hash(key) & LOW][key]

    def __contains__(self, key: object) -> bool:
        return key in self.parts[hash(key) & LOW]

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from part

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def get(self, key: bytes) -> T | None: ...
    @overload
    def get(self, key: bytes, default: D) -> T | D: ...
    def get(self, key: bytes, default: Any = None) -> Any:
        return self.parts[hash(key) & LOW].get(key, default)


class IdSet:
    """A set of 32-byte ids in some 39 bytes each, a third of what a ``set`` needs.

    Linear hashing (Litwin, 1980): ids lie in groups, packed one after the other; as they become more, one group after the
    other is split in two.
    """

    __slots__ = ("_groups", "_mask", "_next", "_room")

    def __init__(self) -> None:
        self._groups = [b""]
        self._mask = 0
        """Low bits of an id's hash that say its group; of a group split already, one bit more."""
        self._next = 0
        """The group to be split next."""
        self._room = _IDS
        """How many ids more before the next group is split."""

    def __len__(self) -> int:
        return _IDS * len(self._groups) - self._room

    def __contains__(self, key: bytes) -> bool:
        number = hash(key)
        place = number & self._mask
        if place < self._next:
            place = number & (2 * self._mask + 1)
        group = self._groups[place]
        at = group.find(key)
        while at > 0 and at % _ID_BYTES:  # across two ids
            at = group.find(key, at + 1)
        return at >= 0

    def __iter__(self) -> Iterator[bytes]:
        for group in self._groups:
            for start in range(0, len(group), _ID_BYTES):
                yield group[start : start + _ID_BYTES]

    def add(self, key: bytes) -> None:
        """``key`` must not be in it."""
        number = hash(key)
        place = number & self._mask
        if place < self._next:
            place = number & (2 * self._mask + 1)
        self._groups[place] += key
        self._room -= 1
        if self._room < 0:
            self._split()

    def _split(self) -> None:
        self._room += _IDS
        ids, bit, old = self._groups[self._next], self._mask + 1, self._next
        halves: tuple[list[bytes], list[bytes]] = ([], [])
        for start in range(0, len(ids), _ID_BYTES):
            key = ids[start : start + _ID_BYTES]
            halves[hash(key) & bit != 0].append(key)
        self._groups[old] = b"".join(halves[0])
        self._groups.append(b"".join(halves[1]))
        self._next += 1
        if self._next == bit:
            self._mask, self._next = 2 * self._mask + 1, 0
