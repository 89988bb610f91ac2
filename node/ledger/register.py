"""The register: what it writes down of an attempt to form the next epoch, and when its phases end.

All of it follows from its chain: entries are checked as they are written, and phases end by block time. The rules are those of
``docs/epochs.md``, section 2.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from operator import attrgetter, itemgetter
from typing import TypeVar

from msgspec import structs

from node.ledger.rules import Rules
from node.protocol.assignment import next_document
from node.protocol.change import Change, Register, RegisterPhase
from node.protocol.channel import Load, Settled
from node.protocol.entries import Call, Disclosure, Enrolment, Entry, Farewell, Ready
from node.protocol.epoch import EpochDocument, InvalidDocument, Registration, commitment_to
from node.protocol.limits import MAX_REGISTRATIONS

MOST_DOUBLINGS, MOST_LENGTHENINGS = 6, 3
"""Of the pause after attempts that were called off, and of the times in which secrets are told and committees get ready."""

MAX_PROSPECTS = 8
_PROSPECTS: dict[tuple[int, ...], tuple[object, EpochDocument]] = {}
"""By the identity of what they are made of, which lives as long: it is asked for in each block of phase handoff, and to compare
registrations by their content would take longer than all else."""

T = TypeVar("T")
_KEY: Callable[[Registration], bytes] = attrgetter("public_key")
_FIRST: Callable[[tuple[bytes, bytes]], bytes] = itemgetter(0)


def register_of(change: Change, rules: Rules) -> Register:
    """What the register has written down. As long as that is nothing: how its first attempt begins."""
    return change.register or Register(RegisterPhase.REGISTRATION, rules.opened, rules.opened + rules.parameters.epoch_pause)


def written(register: Register, entry: Entry, rules: Rules, attempt: int) -> Register | None:
    """The register with the entry in it; None: not admissible. ``attempt``: under way (``Change.attempt``)."""
    match entry:
        case Enrolment(registration):
            return _enrolled(register, registration, rules, attempt)
        case Farewell():
            return _left(register, entry, rules)
        case Disclosure():
            return _told(register, entry, attempt)
        case Ready():
            return _made_ready(register, entry, rules, attempt)
        case Call():
            return _called(register, entry, rules, attempt)


def noted(register: Register, shard: int, record: Load | Settled) -> Register:
    """With what a shard tells; unchanged if that is not asked for, or was told before."""
    if isinstance(record, Load):
        if register.phase is RegisterPhase.REVEAL and shard not in dict(register.loads):
            return structs.replace(register, loads=tuple(sorted([*register.loads, (shard, record.count)])))
    elif register.phase is RegisterPhase.SETTLEMENT and shard not in register.settled:
        return structs.replace(register, settled=tuple(sorted([*register.settled, shard])))
    return register


def advanced(register: Register, rules: Rules, attempt: int, time: int) -> Register:
    """After a block with this time: in the next phase if this one is over, in registration if the attempt is called off."""
    if register.phase is not RegisterPhase.CLOSED and _is_over(register, rules, attempt, time):
        if register.phase is RegisterPhase.REVEAL and not _is_possible(register, rules, attempt):
            return _called_off(register, rules, time)
        return structs.replace(register, phase=RegisterPhase(register.phase + 1), since=time)
    handoff = _grown(rules.parameters.handoff_time, register)
    limits = {RegisterPhase.HANDOFF: handoff, RegisterPhase.SETTLEMENT: rules.parameters.settle_time}
    if register.phase in limits and time >= register.since + limits[register.phase]:
        return _called_off(register, rules, time)
    return register


def prospect(register: Register, rules: Rules, attempt: int) -> EpochDocument:
    """The next document, which is fixed once phase reveal is over. Raises InvalidDocument when there can be none."""
    made_of = rules, register.registrations, register.secrets, register.loads
    key = attempt, *map(id, made_of)
    found = _PROSPECTS.get(key)
    if found is None:
        if len(_PROSPECTS) >= MAX_PROSPECTS:
            _PROSPECTS.clear()
        found = _PROSPECTS[key] = made_of, next_document(_document(rules), register, attempt, rules.parameters)
    return found[1]


def _document(rules: Rules) -> EpochDocument:
    assert rules.document is not None, "who takes part in no change keeps no register"
    return rules.document


# -- entries -------------------------------------------------------------------------------------------------------------


def _enrolled(register: Register, registration: Registration, rules: Rules, attempt: int) -> Register | None:
    """One of a key, and none of who left: were one to take another's place, anybody could put an older one back."""
    document, key = _document(rules), registration.public_key
    if register.phase is not RegisterPhase.REGISTRATION or not _has_room(map(_KEY, register.registrations), key, document):
        return None
    if _find(register.registrations, key, _KEY) is not None or _find(register.farewells, key, _itself) is not None:
        return None
    try:
        registration.check_addresses()
        registration.check(rules.genesis, document.number + 1, attempt, document.hash)
    except InvalidDocument:
        return None
    return structs.replace(register, registrations=_with(register.registrations, registration, _KEY))


def _left(register: Register, farewell: Farewell, rules: Rules) -> Register | None:
    document, key = _document(rules), farewell.public_key
    if register.phase is RegisterPhase.CLOSED or (farewell.network, farewell.epoch) != (document.network, document.number):
        return None
    if _find(register.farewells, key, _itself) is not None or not _has_room(register.farewells, key, document):
        return None
    is_known = _find(register.registrations, key, _KEY) is not None or document.seat_of(key) is not None
    if not is_known or not farewell.is_signed:
        return None
    registrations = register.registrations
    if register.phase is RegisterPhase.REGISTRATION:
        registrations = _without(registrations, key, _KEY)
    return structs.replace(register, registrations=registrations, farewells=_with(register.farewells, key, _itself))


def _has_room(keys: Iterable[bytes], key: bytes, document: EpochDocument) -> bool:
    """For one more key. Nobody can take the members' places away."""
    members = document.members
    return key in members or sum(one not in members for one in keys) < MAX_REGISTRATIONS - len(members)


def _told(register: Register, disclosure: Disclosure, attempt: int) -> Register | None:
    if register.phase is not RegisterPhase.REVEAL or disclosure.attempt != attempt:
        return None
    key, secret = disclosure.public_key, disclosure.secret
    registration = _find(register.registrations, key, _KEY)
    if (
        registration is None
        or registration.commitment != commitment_to(secret)
        or _find(register.secrets, key, _FIRST) is not None
    ):
        return None
    return structs.replace(register, secrets=_with(register.secrets, (key, secret), _FIRST))


def _made_ready(register: Register, ready: Ready, rules: Rules, attempt: int) -> Register | None:
    if register.phase is not RegisterPhase.HANDOFF or _find(register.ready, ready.public_key, _itself) is not None:
        return None
    document = prospect(register, rules, attempt)
    if ready.document != document.hash or document.seat_of(ready.public_key) is None or not ready.is_signed:
        return None
    return structs.replace(register, ready=_with(register.ready, ready.public_key, _itself))


def _called(register: Register, call: Call, rules: Rules, attempt: int) -> Register | None:
    if register.phase is not RegisterPhase.REGISTRATION or register.called:
        return None
    if (call.network, call.epoch, call.attempt) != (rules.genesis.network, rules.chain.epoch, attempt):
        return None
    return structs.replace(register, called=True) if call.is_signed(rules.genesis.coordinator_key) else None


def _itself(key: bytes) -> bytes:
    return key


def _find(rows: tuple[T, ...], key: bytes, key_of: Callable[[T], bytes]) -> T | None:
    """Of rows in the order of their keys."""
    at = bisect_left(rows, key, key=key_of)
    return rows[at] if at < len(rows) and key_of(rows[at]) == key else None


def _with(rows: tuple[T, ...], row: T, key_of: Callable[[T], bytes]) -> tuple[T, ...]:
    """With this one, whose key none of them has."""
    at = bisect_left(rows, key_of(row), key=key_of)
    return (*rows[:at], row, *rows[at:])


def _without(rows: tuple[T, ...], key: bytes, key_of: Callable[[T], bytes]) -> tuple[T, ...]:
    at = bisect_left(rows, key, key=key_of)
    return (*rows[:at], *rows[at + 1 :]) if at < len(rows) and key_of(rows[at]) == key else rows


# -- phases --------------------------------------------------------------------------------------------------------------


def _is_over(register: Register, rules: Rules, attempt: int, time: int) -> bool:
    """Whether all is there that the next phase needs."""
    shards = len(rules.shards.shards)
    match register.phase:
        case RegisterPhase.REGISTRATION:
            return _is_due(register, rules, time) and _are_enough(register, rules)
        case RegisterPhase.REVEAL:
            all_told = len(register.secrets) == len(register.registrations) and len(register.loads) == shards
            return all_told or time >= register.since + _grown(rules.parameters.reveal_time, register)
        case RegisterPhase.HANDOFF:
            return bool(register.ready) and _have_quorums(register.ready, prospect(register, rules, attempt))
        case _:
            return len(register.settled) == shards


def _grown(length: int, register: Register) -> int:
    """How long a phase may be: longer after failures, as it may be delays that they come of."""
    return length << min(register.failures, MOST_LENGTHENINGS)


def _called_off(register: Register, rules: Rules, time: int) -> Register:
    """The next attempt begins. Who said farewell has left for this epoch."""
    failures = register.failures + 1
    pause = rules.parameters.epoch_pause << min(failures, MOST_DOUBLINGS)
    return Register(RegisterPhase.REGISTRATION, time, time + pause, register.called, failures, farewells=register.farewells)


def _is_due(register: Register, rules: Rules, time: int) -> bool:
    is_old = time >= rules.opened + rules.parameters.epoch_time
    return time >= register.not_before and (register.called or is_old)


def _are_enough(register: Register, rules: Rules) -> bool:
    """Whether those who registered fill a committee, and of each committee of this epoch a quorum is heard of."""
    heard_of = [*map(_KEY, register.registrations), *register.farewells]
    return len(register.registrations) >= rules.parameters.committee_size and _have_quorums(heard_of, _document(rules))


def _is_possible(register: Register, rules: Rules, attempt: int) -> bool:
    try:
        prospect(register, rules, attempt)
    except InvalidDocument:
        return False
    return True


def _have_quorums(heard_of: Iterable[bytes], document: EpochDocument) -> bool:
    """Whether of each committee at least a quorum is among these."""
    keys = set(heard_of)
    return all(sum(key in keys for key in e.keys) >= e.quorum for e in document.electorates.values())
