"""How far a shard is with the change to the next epoch. Every header commits to it, so that it can be shown to anybody.

The change is a two-phase commit whose home is the register, the shard with the lowest number. What goes on between it and the
others travels in the channels between them (``channel``).
"""

from enum import IntEnum
from functools import cached_property
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import Header, Height, ShardNumber, Totals
from node.protocol.certificate import Electorate, Finality
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, Hash, PublicKey, digest
from node.protocol.epoch import AttemptNumber, Registration, Secret
from node.protocol.limits import MAX_ASSETS, MAX_REGISTRATIONS, MAX_SHARDS
from node.protocol.transaction import Amount, AssetCode, Milliseconds

Cut = Annotated[bytes, Meta(min_length=0, max_length=20)]
"""The first address of the upper part of a shard that is to be split; empty: it is not."""
Count = Annotated[int, Meta(ge=0, le=2**53)]


class RegisterPhase(IntEnum):
    REGISTRATION = 1
    REVEAL = 2
    HANDOFF = 3
    SETTLEMENT = 4
    CLOSED = 5


class Register(Struct, array_like=True, frozen=True, dict=True):
    """What the register has written down of an attempt to form the next epoch.

    Fields:
        phase: which, since block time ``since``.
        not_before: registration goes on until then at least.
        called: whether the coordinator has called for the change.
        failures: attempts that were called off in a row.
        registrations: by public key. farewells: public keys, ascending.
        secrets: (public key, secret), by public key.
        loads: (shard, transactions it included while it counted), by shard.
        ready: public keys, ascending. settled: shards, ascending.
    """

    phase: RegisterPhase
    since: Milliseconds
    not_before: Milliseconds
    called: bool = False
    failures: Annotated[int, Meta(ge=0, le=2**31)] = 0
    registrations: Annotated[tuple[Registration, ...], Meta(max_length=MAX_REGISTRATIONS)] = ()
    farewells: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_REGISTRATIONS)] = ()
    secrets: Annotated[tuple[tuple[PublicKey, Secret], ...], Meta(max_length=MAX_REGISTRATIONS)] = ()
    loads: Annotated[tuple[tuple[ShardNumber, Count], ...], Meta(max_length=MAX_SHARDS)] = ()
    ready: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_REGISTRATIONS)] = ()
    settled: Annotated[tuple[ShardNumber, ...], Meta(max_length=MAX_SHARDS)] = ()


class Stage(IntEnum):
    """Of any shard, the register's own included."""

    MINING = 1
    """The epoch goes on."""
    SETTLING = 2
    """It begins no payment across shards, and ends those that began."""
    SETTLED = 3
    """None is undecided here, and none can come: it waits for the register's decision."""
    CLOSED = 4
    """This is the closing block, or an empty one after it."""


class Change(Struct, array_like=True, frozen=True, dict=True):
    """One shard's part.

    Fields:
        attempt: the one that the register heard of last, or this shard from the register.
        document: hash of the next document, from SETTLING on; zeros before. cut: whether that splits this shard, and where.
        counting_since, counted: while it counts for the register (0: it does not): since which block time, and how many.
        fences: (shard, attempt), by shard: that shard begins no more payments in this attempt, and has decided all.
        fenced: the last attempt in which this shard told the others so; 0: none.
        closed: the height of the closing block, from there on; 0 before.
        upper: in the closing block of a shard that is split, (asset, units available at ``cut`` and above), by asset.
        totals: in the closing block, the shard's after it.
        register: None in all other shards, and in the register as long as nothing is written down.
    """

    stage: Stage = Stage.MINING
    attempt: AttemptNumber = 1
    document: Hash = ZERO_HASH
    cut: Cut = b""
    counting_since: Milliseconds = 0
    counted: Count = 0
    fences: Annotated[tuple[tuple[ShardNumber, AttemptNumber], ...], Meta(max_length=MAX_SHARDS)] = ()
    fenced: Annotated[int, Meta(ge=0, le=2**53)] = 0
    closed: Height = 0
    upper: Annotated[tuple[tuple[AssetCode, Amount], ...], Meta(max_length=MAX_ASSETS)] = ()
    totals: Totals | None = None
    register: Register | None = None

    @cached_property
    def hash(self) -> bytes:
        return digest("change", encode(self))


class Bulletin(Struct, array_like=True, frozen=True, tag=1):
    """A shard's part in the change after a final block, with what proves it. ``epoch``: of the chain."""

    epoch: Annotated[int, Meta(ge=1, le=2**53)]
    header: Header
    finality: Finality
    change: Change

    @property
    def tells_of_its_header(self) -> bool:
        """Whether the change is the one that the header commits to."""
        return self.header.change_hash == self.change.hash

    def is_valid(self, electorate: Electorate) -> bool:
        """Whether the shard's committee says so."""
        return self.tells_of_its_header and self.finality.proves(self.header, electorate)
