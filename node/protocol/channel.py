"""Channels between shards: ordered bundles of records - of two-phase commits, and figures - proven by the source's chain.

Each block of a shard appends at most one bundle to the channel to each other shard. The destination takes them in sequence,
exactly once: its cursor for the source is all the de-duplication there is. Anyone may carry a bundle; it proves itself.
"""

from typing import Annotated

from msgspec import Meta, Struct

from node.protocol import merkle
from node.protocol.block import Header, ShardNumber
from node.protocol.certificate import Electorate, Finality
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import Hash
from node.protocol.limits import MAX_ASSETS, MAX_SHARDS
from node.protocol.transaction import AssetCode, Milliseconds

AttemptNumber = Annotated[int, Meta(ge=1, le=2**53)]
SequenceNumber = Annotated[int, Meta(ge=1, le=2**53)]


class Prepare(Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Home to participant: hold what your payers owe and say whether you can. ``deadline``: home block time, ms."""

    transaction: bytes
    deadline: Milliseconds


class PrepareVote(Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Participant to home: yes (``code`` OK) or no, and why."""

    transaction_id: Hash
    code: Code


class Decision(Struct, array_like=True, frozen=True, gc=False, tag=3):
    """Home to participant: apply, or release."""

    transaction_id: Hash
    commit: bool


Net = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Units passed to somebody less units taken from there."""


class Figure(Struct, array_like=True, frozen=True):
    """Units of ``asset`` that the teller passed to ``shard``, less those it took in from there, since genesis."""

    shard: ShardNumber
    asset: AssetCode
    net: Net


class Figures(Struct, array_like=True, frozen=True, tag=4):
    """To a shard, about third ones: the teller's figures that changed. By them the receiver knows what each of them can have."""

    figures: Annotated[tuple[Figure, ...], Meta(min_length=1, max_length=MAX_SHARDS * MAX_ASSETS)]


class CountRequest(Struct, array_like=True, frozen=True, gc=False, tag=5):
    """The register to all others: count what you include for a while, and tell."""

    attempt: AttemptNumber


class Load(Struct, array_like=True, frozen=True, gc=False, tag=6):
    """To the register: transactions included while it counted."""

    attempt: AttemptNumber
    count: Annotated[int, Meta(ge=0, le=2**53)]


class Settle(Struct, array_like=True, frozen=True, gc=False, tag=7):
    """The register to all others: begin no more payments across shards, end those that began, and tell when it is done.
    ``document``: hash of the next one. ``cut``: where the receiver is to be split; empty: not."""

    attempt: AttemptNumber
    document: Hash
    cut: Annotated[bytes, Meta(max_length=20)] = b""


class Fence(Struct, array_like=True, frozen=True, gc=False, tag=8):
    """To all others: in this attempt the sender begins no more payments, and has decided all of which it is the home."""

    attempt: AttemptNumber


class Settled(Struct, array_like=True, frozen=True, gc=False, tag=9):
    """To the register: nothing is undecided here, all others' fences are here, and so is nothing to come."""

    attempt: AttemptNumber


class Resolution(Struct, array_like=True, frozen=True, gc=False, tag=10):
    """The register's decision, to all others: close, or go on."""

    attempt: AttemptNumber
    close: bool


Record = Prepare | PrepareVote | Decision | Figures | CountRequest | Load | Settle | Fence | Settled | Resolution


class Bundle(Struct, array_like=True, frozen=True):
    """The records one block of ``source`` sends to ``destination``: number ``sequence`` (from 1) of that channel."""

    source: ShardNumber
    destination: ShardNumber
    sequence: SequenceNumber
    records: Annotated[tuple[Record, ...], Meta(min_length=1, max_length=1 << 18)]


class CertifiedBundle(Struct, array_like=True, frozen=True):
    """A bundle with its proof: the source's header, that it is final, and the branch from the bundle to its outbox root."""

    bundle: Bundle
    header: Header
    finality: Finality
    branch: merkle.Branch

    def is_valid(self, source: Electorate) -> bool:
        """Whether the source's committee sent this bundle."""
        return (
            self.bundle.source == self.header.shard
            and self.finality.proves(self.header, source)
            and merkle.verify(encode(self.bundle), self.branch, self.header.outbox_root)
        )
