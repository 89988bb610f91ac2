"""What a shard's state is made of: rows, each a key and a value.

A key starts with a name of at least 20 bytes and ends with what the row is: an asset's code (then the name is an address and the
value its balance) or a lower-case letter. So keys of balances sort by address and asset.

    address + code      Balance    an account's balance of one asset; absent when empty
    id + "w"            Waiting    home: a cross-shard transaction not decided yet
    id + "p"            Prepared   participant: holds are taken, not all is done yet
    id + "a"            int        participant: a prepared id whose signatures it checked, refused again until this block time
                                   has passed
    shard + "c"         int        cursor: last bundle taken from that shard
    shard + "s"         int        sequence: last bundle sent to that shard
    boundary + code "f" Flow       units of an asset that came in and went out over one of the shard's boundaries
    shards + code "g"   int        net units of an asset that one other shard says it passed to another; under the own shard: what
                                   that one could have when the epoch began
    0 + code "o"        int        units of an asset that the epoch began with beyond those minted here, a tally
    0 + "t"             Told       which figures this shard last told others, and when
    0 + "u"             Change     how far the shard is with the change to the next epoch
    shard + slot + "r"  Replayed   a part of the ids that this shard's blocks included: see ``replay``
"""

from enum import IntEnum
from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import Balance, ShardNumber, Tally
from node.protocol.change import Change
from node.protocol.channel import Figure, Net
from node.protocol.crypto import Hash
from node.protocol.transaction import Amount, Leg, Milliseconds

NAME_BYTES = 20
"""Length of the name in the keys of balances, channels and flows."""

ISSUER = -1
"""The boundary to the asset's issuer: what comes in is minted, what goes out is burned. All others are peer shards."""

WAITING, PREPARED, ANSWERED, CURSOR, SEQUENCE, FLOW, FIGURE, TOLD = b"w", b"p", b"a", b"c", b"s", b"f", b"g", b"t"
REPLAYED = b"r"
CHANGE = b"u"
CARRIED = b"o"
TOLD_KEY, CHANGE_KEY = bytes(NAME_BYTES) + TOLD, bytes(NAME_BYTES) + CHANGE


class Waiting(Struct, array_like=True, frozen=True, gc=False):
    """Home: own holds are taken, participants are asked. ``awaiting``: those of ``participants`` that have not answered; none
    when the transaction only waits until what it takes in is covered."""

    legs: tuple[Leg, ...]
    deadline: Milliseconds
    participants: tuple[ShardNumber, ...]
    awaiting: tuple[ShardNumber, ...]


class Stage(IntEnum):
    """How far a participant is with a transaction whose holds it has taken."""

    ASKED = 1
    """It has not voted: what it would take in from the home shard is not covered yet."""
    VOTED = 2
    """It has voted yes: the decision is the home shard's."""
    OWED = 3
    """To be committed, and its payments are made; what it takes in is not covered yet."""


class Prepared(Struct, array_like=True, frozen=True, gc=False):
    """Participant: own holds are taken. ``legs``: those still to be done that touch this shard; ``deadline``: for the vote."""

    legs: tuple[Leg, ...]
    home: ShardNumber
    deadline: Milliseconds
    stage: Stage


class Flow(Struct, array_like=True, frozen=True, gc=False):
    """Units of an asset over one boundary: tallies since genesis, and of the issuer's those that are to be minted or burned by
    transactions not decided yet."""

    entered: Tally = 0
    left: Tally = 0
    entering: Amount = 0
    leaving: Amount = 0


class Told(Struct, array_like=True, frozen=True):
    """What other shards were last told of this one's flows, and at what block time."""

    time: Milliseconds
    figures: tuple[Figure, ...]


class Replayed(Struct, array_like=True, frozen=True, gc=False):
    """A part of the replay set: so many ids, and the hash chain over them in the order of their inclusion."""

    count: Annotated[int, Meta(ge=0)]
    hash: Hash


Position = Annotated[int, Meta(ge=0, le=2**54)]
Row = Waiting | Prepared | Flow | Told | Change | Replayed | int
"""The value of any row but a balance's."""

RECORD_KINDS: dict[bytes, type[Row]] = {
    WAITING: Waiting,
    PREPARED: Prepared,
    FLOW: Flow,
    ANSWERED: Position,
    CURSOR: Position,
    SEQUENCE: Position,
    FIGURE: Net,
    CARRIED: Tally,
    TOLD: Told,
    CHANGE: Change,
    REPLAYED: Replayed,
}
EMPTY = Balance()
NO_FLOW = Flow()
NO_CHANGE = Change()


def is_balance(key: bytes) -> bool:
    """Whether the row is a balance: codes have no lower-case letters."""
    return key[-1:] not in RECORD_KINDS


def channel_key(shard: int, kind: bytes) -> bytes:
    """``kind``: CURSOR or SEQUENCE."""
    return shard.to_bytes(NAME_BYTES, "big") + kind


@lru_cache(maxsize=1 << 12)
def flow_key(boundary: int, suffix: bytes) -> bytes:
    """``boundary``: ISSUER or a peer shard; ``suffix``: the asset's code."""
    return (boundary + 1).to_bytes(NAME_BYTES, "big") + suffix + FLOW


def figure_key(teller: int, shard: int, suffix: bytes) -> bytes:
    """Of what ``teller`` says it passed to ``shard``; if that is the own shard, of the credit that it gives it for this epoch."""
    half = NAME_BYTES // 2
    return teller.to_bytes(half, "big") + shard.to_bytes(half, "big") + suffix + FIGURE


def carried_key(suffix: bytes) -> bytes:
    return bytes(NAME_BYTES) + suffix + CARRIED


def parse_flow_key(key: bytes) -> tuple[int, str]:
    """The boundary and the asset's code."""
    return int.from_bytes(key[:NAME_BYTES], "big") - 1, key[NAME_BYTES:-1].decode()


def replay_key(shard: int, slot: int, part: int) -> bytes:
    """Of a part of the ids that ``shard`` included: shards that become one have no key in common."""
    return shard.to_bytes(8, "big") + slot.to_bytes(8, "big") + part.to_bytes(4, "big") + REPLAYED


def replay_slot(key: bytes) -> int:
    return int.from_bytes(key[8:16], "big")
