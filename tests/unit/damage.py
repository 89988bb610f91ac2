"""Damage to encoded messages: careless edits of the bytes, and of the values inside, which often leave a message."""

from random import Random
from typing import Any, TypeVar, cast

import msgpack  # type: ignore[import-untyped]

from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import MAX_BROKER_BODY_BYTES

T = TypeVar("T")
_PARTS = "00 7f 80 90 a0 c0 c1 c2 c400 c700ff ca cf d40500 d6ff00000000 ff dcffff ddffffffff dfffffffff"
INTERESTING = [bytes.fromhex(part) for part in _PARTS.split()]
PLAIN: tuple[Any, ...] = (0, 1, -1, 255, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, None, True, 1.5)
PLAIN += ("", "USD\n", "é" * 80, b"", (), {})


def edited_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    """One to three edits: a bit flipped, something put in or over, a part left out, repeated, or taken from ``other``."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        at, cut = random.randrange(len(out) + 1), random.randrange(len(other) + 1)
        end = min(len(out), at + random.choice((1, 1, 2, 8, 64)))
        flipped, junk = bytes(byte ^ 1 << random.randrange(8) for byte in out[at : at + 1]), random.choice(INTERESTING)
        edits = [(at + 1, flipped), (at, junk), (end, junk), (end, b""), (at, out[at:end]), (end, other[cut : cut + end - at])]
        stop, new = random.choice([*edits, (len(out), b"")])
        out[at:stop] = new
    return bytes(out)


def edited_values(random: Random, data: bytes, other: bytes) -> bytes:
    """The same with the values inside: replaced, repeated, dropped, moved."""
    tree = msgpack.unpackb(data, strict_map_key=False)
    lists = [node for node in _lists(tree) if node]
    if random.random() < 0.2:  # what is moved between lists of one parent often stays a message, with the same parts in it
        lists = [node for node in lists if sum(isinstance(child, list) for child in node) >= 2] or lists
    for _ in range(random.choice((1, 1, 2, 3)) if lists else 0):
        into = random.choice(lists)
        if not into:
            continue
        kind, at = random.random(), random.randrange(len(into))
        if kind < 0.2:
            _move_between(random, [node for node in into if isinstance(node, list)])
        elif kind < 0.3:
            random.shuffle(into)
        else:
            old, taken = into[at], random.choice(_lists(msgpack.unpackb(other, strict_map_key=False)) or [[]])
            into[at : at + 1] = random.choice(([random.choice(PLAIN)], [_near(random, old)], [], [old, old], [taken]))
    try:
        return cast(bytes, msgpack.packb(tree))
    except (ValueError, OverflowError, RecursionError):  # a number stepped out of 64 bits, or a list was put into itself
        return data


def edited(random: Random, data: bytes, other: bytes) -> bytes:
    return (edited_values if random.random() < 0.6 else edited_bytes)(random, data, other)


def another(random: Random, value: T) -> T:
    """A value of the type that differs, in a few attempts; else the value itself."""
    data = encode(value)
    for _ in range(20):
        try:
            return decode(type(value), edited_values(random, data, data), MAX_BROKER_BODY_BYTES)
        except DecodeError:
            continue
    return value


def _near(random: Random, old: Any) -> Any:
    if isinstance(old, int):
        return old + random.choice((-2, -1, 1, 2, 256))
    if not isinstance(old, bytes) or not old:
        return random.choice(PLAIN)
    return (int.from_bytes(old, "big") ^ 1 << random.randrange(8 * len(old))).to_bytes(len(old), "big")


def _move_between(random: Random, lists: list[list[Any]]) -> None:
    """From the bundles to the transactions, say."""
    if len(lists) >= 2:
        giving, taking = random.sample(lists, 2)
        if giving:
            taking.insert(0 if giving is lists[0] else len(taking), giving.pop(-1 if giving is lists[0] else 0))


def _lists(tree: Any) -> list[list[Any]]:
    if isinstance(tree, dict):
        return [found for value in tree.values() for found in _lists(value)]
    return [tree, *(found for value in tree for found in _lists(value))] if isinstance(tree, list) else []
