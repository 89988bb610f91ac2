"""The next document: who keeps which range in the next epoch. It follows from this epoch's document and the register.

The rules are those of ``docs/epochs.md``, section 3, in its order. Who there is, is in seat order throughout.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from node.protocol.change import Register
from node.protocol.crypto import digest
from node.protocol.epoch import Committee, EpochDocument, InvalidDocument, Registration, Roll, commitment_to
from node.protocol.genesis import Parameters
from node.protocol.limits import MAX_SHARDS


class _Range(NamedTuple):
    """Of a shard of the next epoch. ``origins``: in the order of their ranges."""

    shard: int
    first: bytes
    origins: tuple[int, ...]


def next_document(previous: EpochDocument, register: Register, attempt: int, parameters: Parameters) -> EpochDocument:
    """The document of the epoch after ``previous``. ``register``: after the block that ended phase reveal, or any later one.

    Registrations are taken for valid (``Registration.check``) if they are for this attempt: the register has checked them.

    Raises:
        InvalidDocument: what is written down is of another attempt or contradicts itself, or too few told their secrets.
    """
    roll, secrets = _roll(previous, register, attempt), dict(register.secrets)
    there = _there(roll, secrets)
    randomness = digest("randomness", previous.hash, roll.hash, *(r.public_key + secrets[r.public_key] for r in there))
    ranges = _ranges(previous, dict(register.loads), len(there), parameters.committee_size)
    seated = sorted(there, key=lambda r: digest("seat", randomness, r.public_key))
    members, standby = _seats(previous, ranges, seated, parameters.committee_size)
    return EpochDocument(
        network=previous.network,
        number=roll.epoch,
        attempt=attempt,
        previous=previous.hash,
        randomness=randomness,
        committees=tuple(Committee(r.shard, r.first, tuple(members[r.shard])) for r in ranges),
        standby=tuple(standby),
        silent=tuple(registration for registration in roll.registrations if registration.public_key not in secrets),
        secrets=tuple(secrets[registration.public_key] for registration in there),
        origins=tuple(r.origins for r in ranges),
        lineage=previous.network_id,
    )


def cut_of(previous: EpochDocument, document: EpochDocument, shard: int) -> bytes:
    """The first address of the upper part of a shard of ``previous`` that ``document`` splits; empty: it does not."""
    first, _ = previous.shards.range_of(shard)
    last = max(document.shards.range_of(child)[0] for child in document.children_of(shard))
    return last if last > first else b""


def _roll(previous: EpochDocument, register: Register, attempt: int) -> Roll:
    roll = Roll(previous.network, previous.number + 1, attempt, tuple(sorted(register.registrations, key=lambda r: r.public_key)))
    for registration in roll.registrations:
        if (registration.network, registration.epoch, registration.attempt) != (roll.network, roll.epoch, roll.attempt):
            raise InvalidDocument(f"{registration.name}: registered for another network, epoch or attempt")
    if len({registration.public_key for registration in roll.registrations}) != len(roll.registrations):
        raise InvalidDocument("a key is registered twice")
    return roll


def _there(roll: Roll, secrets: Mapping[bytes, bytes]) -> list[Registration]:
    """Who told its secret, by public key."""
    there = [registration for registration in roll.registrations if registration.public_key in secrets]
    if len(there) != len(secrets):
        raise InvalidDocument("a secret was told by somebody who is not registered")
    for registration in there:
        if registration.commitment != commitment_to(secrets[registration.public_key]):
            raise InvalidDocument(f"{registration.name}: not the secret it committed to")
    return there


# -- ranges ----------------------------------------------------------------------------------------------------------------


def _ranges(previous: EpochDocument, loads: Mapping[int, int], there: int, size: int) -> list[_Range]:
    """By shard."""
    now = len(previous.committees)
    fewest, wanted = (now + 1) // 2, min(there // size, MAX_SHARDS)
    if there < fewest * size:
        raise InvalidDocument(f"{fewest} committees need {fewest * size} nodes, {there} told their secrets")
    ranges = [_Range(c.shard, c.first, (c.shard,)) for c in sorted(previous.committees, key=lambda c: c.first)]
    return sorted(_merge(ranges, loads, now - wanted) if wanted < now else _split(previous, ranges, loads, wanted - now))


def _split(previous: EpochDocument, ranges: Sequence[_Range], loads: Mapping[int, int], count: int) -> list[_Range]:
    """The shards with the greatest loads in halves: ``count`` of them, or all that can."""
    cuts = {r.shard: _middle(*previous.shards.range_of(r.shard)) for r in ranges}
    divisible = [r.shard for r in ranges if cuts[r.shard] > r.first]
    chosen = sorted(divisible, key=lambda shard: (-loads.get(shard, 0), shard))[:count]
    unused = (number for number in range(MAX_SHARDS) if number not in cuts)
    return [*ranges, *(_Range(next(unused), cuts[shard], (shard,)) for shard in sorted(chosen))]


def _middle(first: bytes, last: bytes) -> bytes:
    """The first address of the upper half of a range; of a range of one address that address."""
    low, end = int.from_bytes(first, "big"), int.from_bytes(last, "big") + 1
    return (low + (end - low) // 2).to_bytes(20, "big")


def _merge(ranges: Sequence[_Range], loads: Mapping[int, int], count: int) -> list[_Range]:
    """Pairs of neighbours with the smallest loads in one. What rules a pair out goes on to: so each is looked at once."""
    pairs = sorted(range(len(ranges) - 1), key=lambda i: sum(loads.get(r.shard, 0) for r in ranges[i : i + 2]))
    free = [True] * len(ranges)
    merged: list[_Range] = []
    for i in pairs:
        rest = [*free[:i], False, False, *free[i + 2 :]]
        if len(merged) < count and free[i] and free[i + 1] and _most_pairs(rest) >= count - len(merged) - 1:
            free = rest
            low, high = ranges[i : i + 2]
            merged.append(_Range(min(low.shard, high.shard), low.first, (low.shard, high.shard)))
    return [*merged, *(r for r, is_free in zip(ranges, free, strict=True) if is_free)]


def _most_pairs(free: Sequence[bool]) -> int:
    """How many pairs of neighbours can be made of those that are free."""
    return sum(len(list(run)) // 2 for is_free, run in groupby(free) if is_free)


# -- seats -----------------------------------------------------------------------------------------------------------------


def _seats(
    previous: EpochDocument, ranges: Sequence[_Range], there: Sequence[Registration], size: int
) -> tuple[dict[int, list[Registration]], list[Registration]]:
    """The members of each shard, and who stands by."""
    homes = {member.public_key: committee.shard for committee in previous.committees for member in committee.members}
    stayers: dict[int, list[Registration]] = {committee.shard: [] for committee in previous.committees}
    for node in there:
        if node.public_key in homes:
            stayers[homes[node.public_key]].append(node)
    halved = {shard for shard in stayers if sum(r.origins == (shard,) for r in ranges) == 2}
    members = {r.shard: _keep_seats(r, stayers, halved, size) for r in ranges}
    kept = {r.shard for r in ranges if r.origins == (r.shard,)} - halved
    seated = {node.public_key for nodes in members.values() for node in nodes}
    pool = [node for node in there if node.public_key not in seated]
    while any(len(nodes) < size for nodes in members.values()):
        for shard, nodes in members.items():
            if len(nodes) < size:
                others = (i for i, node in enumerate(pool) if shard not in kept or homes.get(node.public_key) != shard)
                nodes.append(pool.pop(next(others, 0)))
    order = {node.public_key: place for place, node in enumerate(there)}
    return {shard: sorted(nodes, key=lambda node: order[node.public_key]) for shard, nodes in members.items()}, pool


def _keep_seats(
    following: _Range, stayers: Mapping[int, Sequence[Registration]], halved: set[int], size: int
) -> list[Registration]:
    """Who of the origins' stayers has a seat in what comes of them."""
    if len(following.origins) == 2:
        first, second = (stayers[origin] for origin in following.origins)
        of_second = min(len(second), size - min(len(first), (size + 1) // 2))
        return [*first[: size - of_second], *second[:of_second]]
    (origin,) = following.origins
    if origin in halved:
        return list(stayers[origin][0 if following.shard == origin else 1 :: 2])
    tolerated, gone = (size - 1) // 3, size - len(stayers[origin])
    return list(stayers[origin][min(max(tolerated - gone, 0), size // 4) :])
