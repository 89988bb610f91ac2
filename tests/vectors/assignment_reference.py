"""The second implementation of the next document, from ``docs/epochs.md``, section 3, on ``hashlib`` and ``msgpack`` alone.

It knows nothing of the code under test: documents, registrations and the register are the plain lists that travel.
"""

import itertools
from hashlib import sha256
from typing import Any

import msgpack  # type: ignore[import-untyped]

SPACE = 2**160
MOST = 1024
NETWORK, EPOCH, ATTEMPT, KEY, COMMITMENT = 0, 1, 2, 3, 7
"""Fields of a registration."""
REGISTRATIONS, SECRETS, LOADS = 5, 7, 8
"""Fields of the register."""


class NoDocument(Exception):
    pass


def digest(domain: str, *parts: bytes) -> bytes:
    return sha256(sha256(b"shardpay/" + domain.encode()).digest() + b"".join(parts)).digest()


def document_hash(document: list[Any]) -> bytes:
    return digest("epoch document", msgpack.packb(document))


def next_document(previous: list[Any], register: list[Any], attempt: int, size: int) -> list[Any]:
    """From a document and a register, as unpacked, with committees of ``size``. Raises NoDocument."""
    network, epoch, _, before_that, _, committees, *_, lineage = previous
    parent = document_hash(previous)
    rows = sorted(register[REGISTRATIONS], key=lambda row: row[KEY])
    told = dict(register[SECRETS])
    if any(row[:3] != [network, epoch + 1, attempt] for row in rows) or len({row[KEY] for row in rows}) < len(rows):
        raise NoDocument
    commitments = {row[KEY]: row[COMMITMENT] for row in rows}
    if any(commitments.get(key) != digest("seat secret", secret) for key, secret in told.items()):
        raise NoDocument
    roll = digest("roll", msgpack.packb([network, epoch + 1, attempt, rows]))
    randomness = digest("randomness", parent, roll, *(key + told[key] for key in sorted(told)))
    order = sorted(told, key=lambda key: digest("seat", randomness, key))

    borders = sorted((int.from_bytes(first, "big"), shard) for shard, first, _ in committees)
    shards = carve(borders, dict(register[LOADS]), len(told) // size)
    homes = {row[KEY]: shard for shard, _, members in committees for row in members}
    seats = place(shards, homes, order, size)
    by_key = {row[KEY]: row for row in rows}
    taken = {key for keys in seats.values() for key in keys}
    return [
        network,
        epoch + 1,
        attempt,
        parent,
        randomness,
        [
            [shard, shards[shard][0].to_bytes(20, "big"), [by_key[key] for key in order if key in seats[shard]]]
            for shard in sorted(shards)
        ],
        [by_key[key] for key in order if key not in taken],
        [row for row in rows if row[KEY] not in told],
        [told[key] for key in sorted(told)],
        [shards[shard][1] for shard in sorted(shards)],
        lineage or digest("network", before_that, parent)[:16],
    ]


def carve(borders: list[tuple[int, int]], loads: dict[int, int], filled: int) -> dict[int, tuple[int, list[int]]]:
    """The first address and the origins of each shard. ``borders``: first addresses and shards, ascending."""
    count = len(borders)
    if 2 * filled < count:
        raise NoDocument
    wanted = min(filled, 2 * count, MOST)
    shards = {shard: (first, [shard]) for first, shard in borders}
    ends = [first for first, _ in borders[1:]] + [SPACE]
    if wanted > count:
        wide = [
            (-loads.get(shard, 0), shard, first, end)
            for (first, shard), end in zip(borders, ends, strict=True)
            if end - first > 1
        ]
        for _, shard, first, end in sorted(sorted(wide)[: wanted - count], key=lambda row: row[1]):
            number = next(n for n in range(MOST) if n not in shards)
            shards[number] = (first + (end - first) // 2, [shard])
    pairs = [(loads.get(a, 0) + loads.get(b, 0), i) for i, ((_, a), (_, b)) in enumerate(itertools.pairwise(borders))]
    free = set(range(count))
    for _, i in sorted(pairs):
        missing = len(shards) - wanted
        if missing > 0 and {i, i + 1} <= free and pairable(free - {i, i + 1}) >= missing - 1:
            free -= {i, i + 1}
            (first, a), (_, b) = borders[i], borders[i + 1]
            del shards[max(a, b)]
            shards[min(a, b)] = (first, [a, b])
    return shards


def pairable(free: set[int]) -> int:
    """Pairs of neighbours, taken from the left as they come."""
    pairs, last = 0, -2
    for i in sorted(free):
        if i == last + 1:
            pairs, last = pairs + 1, -2
        else:
            last = i
    return pairs


def place(
    shards: dict[int, tuple[int, list[int]]], homes: dict[bytes, int], order: list[bytes], size: int
) -> dict[int, list[bytes]]:
    """The members of each shard. ``homes``: where each member of this epoch is. ``order``: of the seats."""
    there = {shard: [key for key in order if homes.get(key) == shard] for shard in homes.values()}
    children: dict[int, list[int]] = {}
    for shard in sorted(shards):
        for origin in shards[shard][1]:
            children.setdefault(origin, []).append(shard)
    seats: dict[int, list[bytes]] = {}
    moved: dict[bytes, int] = {}
    for shard, (_, origins) in sorted(shards.items()):
        if len(origins) == 2:
            one, two = (there[origin] for origin in origins)
            half = (size + 1) // 2
            mine, theirs = one[:half], two[: size - half]
            mine += one[half : size - len(theirs)]
            theirs += two[size - half : size - len(mine)]
            seats[shard] = mine + theirs
        elif len(children[origins[0]]) == 2:
            seats[shard] = [key for i, key in enumerate(there[origins[0]]) if (i % 2 == 0) == (shard == origins[0])]
        else:
            most = max(0, (size - 1) // 3 - (size - len(there[shard])))
            movers = there[shard][: min(most, size // 4)]
            moved |= dict.fromkeys(movers, shard)
            seats[shard] = [key for key in there[shard] if key not in movers]
    seated = {key for keys in seats.values() for key in keys}
    pool = [key for key in order if key not in seated]
    while True:
        open_shards = [shard for shard in sorted(seats) if len(seats[shard]) < size]
        if not open_shards:
            return seats
        for shard in open_shards:
            chosen = ([key for key in pool if moved.get(key) != shard] or pool)[0]
            pool.remove(chosen)
            seats[shard].append(chosen)
