"""The epoch as the page shows it: a clock, the ranges of the shards as bars, and who moves where with the next document."""

from typing import Any

from node.client.epochs import Epochs
from node.protocol.change import Register, RegisterPhase
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, Parameters, Phase

_SPACE = 1 << 160
"""Addresses."""


def clock(epochs: Epochs, genesis: Genesis) -> dict[str, Any] | None:
    """How old the epoch is and how far the change to the next one; None before the first. Times in ms: ``began`` by block time,
    of the first epoch by the coordinator's clock; ``ends``: when the phase is over at the latest, or, in registration, at the
    earliest."""
    document, bulletin, notice = epochs.document, epochs.chronicle.register, epochs.notice
    if document is None:
        return None
    began = max((epochs.opened(electorate.chain) for electorate in document.electorates.values()), default=0)
    if document.number == 1 and notice is not None and notice.epoch == 1 and notice.phase is Phase.MINING:
        began = notice.since
    told = {"number": document.number, "began": began or None, "length": genesis.parameters.epoch_time}
    seats = sum(len(committee.members) for committee in document.committees)
    register = bulletin.change.register if bulletin is not None else None
    if bulletin is None or register is None:
        return told | {"attempt": 1, "phase": RegisterPhase.REGISTRATION.name.lower(), "seats": seats}
    counts = {name: len(getattr(register, name)) for name in ("registrations", "secrets", "ready", "settled", "farewells")}
    phase = {"attempt": bulletin.change.attempt, "phase": register.phase.name.lower(), "since": register.since}
    return told | phase | {"ends": _end(register, genesis.parameters), "called": register.called, "seats": seats, **counts}


def _end(register: Register, parameters: Parameters) -> int | None:
    if register.phase is RegisterPhase.REGISTRATION:
        return register.not_before
    limits = {
        RegisterPhase.REVEAL: parameters.reveal_time,
        RegisterPhase.HANDOFF: parameters.handoff_time,
        RegisterPhase.SETTLEMENT: parameters.settle_time,
    }
    return register.since + limits[register.phase] if register.phase in limits else None


def ranges(document: EpochDocument | None) -> list[dict[str, Any]]:
    """Which part of all addresses each shard keeps, from 0 to 1, in the order of the addresses."""
    found = []
    for committee in sorted(document.committees, key=lambda one: one.first) if document is not None else ():
        assert document is not None
        first, last = (int.from_bytes(end, "big") for end in document.shards.range_of(committee.shard))
        part = {"from": round(first / _SPACE, 6), "to": round((last + 1) / _SPACE, 6)}
        found.append({"shard": committee.shard, **part, "origins": list(document.origins_of(committee.shard))})
    return found


def moves(before: EpochDocument, after: EpochDocument) -> list[dict[str, Any]]:
    """Who has a seat in another shard, or none any more, or did not before: name, ``from`` and ``to``; null is no seat."""
    seats = [
        {member.public_key: (member.name, committee.shard) for committee in document.committees for member in committee.members}
        for document in (before, after)
    ]
    found = []
    for key in seats[0] | seats[1]:
        (name, left), (new, entered) = (seat.get(key, ("", None)) for seat in seats)
        if left != entered:
            found.append({"name": new or name, "from": left, "to": entered})
    return sorted(found, key=lambda move: (move["name"], str(move["from"])))
