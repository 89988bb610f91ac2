"""What a shard's state is made of: rows, each a key and a value.

A key starts with a name of at least 20 bytes and ends with what the row is: an asset's code (then the name is an address and the
value its balance) or a lower-case letter. So keys of balances sort by address and asset.

    address + code      Balance    an account's balance of one asset; absent when empty
    id + "w"            Waiting    home: a cross-shard transaction not decided yet
    id + "p"            Prepared   participant: voted yes, no decision yet
    id + "a"            int        participant: a prepared id with own payers, refused again until this block time has passed
    shard + "c"         int        cursor: last bundle taken from that shard
    shard + "s"         int        sequence: last bundle sent to that shard
    boundary + code "f" Flow       units of an asset that came in and went out over one of the shard's boundaries
"""

from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import Balance, ShardNumber, Tally
from node.protocol.transaction import Amount, Leg, Milliseconds

NAME_BYTES = 20
"""Length of the name in the keys of balances, channels and flows."""

ISSUER = -1
"""The boundary to the asset's issuer: what comes in is minted, what goes out is burned. All others are peer shards."""

WAITING, PREPARED, ANSWERED, CURSOR, SEQUENCE, FLOW = b"w", b"p", b"a", b"c", b"s", b"f"


class Waiting(Struct, array_like=True, frozen=True):
    """Home: own holds are taken, participants are asked. ``awaiting``: those of ``participants`` that have not answered."""

    legs: tuple[Leg, ...]
    deadline: Milliseconds
    participants: tuple[ShardNumber, ...]
    awaiting: tuple[ShardNumber, ...]


class Prepared(Struct, array_like=True, frozen=True):
    """Participant: own holds are taken, the decision is ``home``'s. Only ``legs`` that touch this shard are kept."""

    legs: tuple[Leg, ...]
    home: ShardNumber


class Flow(Struct, array_like=True, frozen=True, gc=False):
    """Units of an asset over one boundary: tallies since genesis, and those reserved by transactions not decided yet."""

    entered: Tally = 0
    left: Tally = 0
    entering: Amount = 0
    leaving: Amount = 0


Position = Annotated[int, Meta(ge=0, le=2**54)]
Row = Waiting | Prepared | Flow | int
"""The value of any row but a balance's."""

RECORD_KINDS: dict[bytes, type[Row]] = {
    WAITING: Waiting,
    PREPARED: Prepared,
    FLOW: Flow,
    ANSWERED: Position,
    CURSOR: Position,
    SEQUENCE: Position,
}
EMPTY = Balance()
NO_FLOW = Flow()


def is_balance(key: bytes) -> bool:
    """Whether the row is a balance: codes have no lower-case letters."""
    return key[-1:] not in RECORD_KINDS


def channel_key(shard: int, kind: bytes) -> bytes:
    """``kind``: CURSOR or SEQUENCE."""
    return shard.to_bytes(NAME_BYTES, "big") + kind


def flow_key(boundary: int, suffix: bytes) -> bytes:
    """``boundary``: ISSUER or a peer shard; ``suffix``: the asset's code."""
    return (boundary + 1).to_bytes(NAME_BYTES, "big") + suffix + FLOW


def parse_flow_key(key: bytes) -> tuple[int, str]:
    """The boundary and the asset's code."""
    return int.from_bytes(key[:NAME_BYTES], "big") - 1, key[NAME_BYTES:-1].decode()
