"""Epoch documents: who keeps which shard. Everything in one can be recomputed, and every node does.

The coordinator signs the chain of documents. It decides when an epoch begins and can leave a registration out, visibly;
it cannot choose who sits where: seats follow from the randomness, and the randomness from the registrations themselves.
"""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import Height, ShardNumber
from node.protocol.certificate import Electorate
from node.protocol.codec import encode
from node.protocol.crypto import Hash, KeyPair, PublicKey, Signature, digest, verify
from node.protocol.genesis import Genesis, NetworkLabel, Phase
from node.protocol.limits import MAX_COMMITTEE, MAX_SHARDS
from node.protocol.puzzle import identity_prefix, is_solution
from node.protocol.shards import ShardTable, equal_ranges
from node.protocol.transaction import Milliseconds

EpochNumber = Annotated[int, Meta(ge=1, le=2**53)]
Multiaddress = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9._-]+\Z")]
"""Of a process."""


class InvalidDocument(ValueError):
    """An epoch document or registration breaks a rule; the text says which."""


class Registration(Struct, array_like=True, frozen=True):
    """A node's application for an epoch, signed by it.

    ``addresses``: multiaddrs to reach it at, without the peer id. ``nonce``: solves its identity puzzle. ``name``: a label.
    """

    network: NetworkLabel
    epoch: EpochNumber
    public_key: PublicKey
    name: Name
    addresses: Annotated[tuple[Multiaddress, ...], Meta(min_length=1, max_length=4)]
    nonce: Annotated[bytes, Meta(min_length=8, max_length=8)]
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("registration", encode([*(getattr(self, f) for f in self.__struct_fields__[:-1])]))

    def signed(self, key: KeyPair) -> "Registration":
        fields = {name: getattr(self, name) for name in self.__struct_fields__[:-1]}
        return Registration(**fields, signature=key.sign(self._statement))

    def check(self, genesis: Genesis, epoch: int, challenge: bytes) -> None:
        """Raises InvalidDocument unless it is for this epoch, signed by its key, and its puzzle is solved."""
        if self.network != genesis.network or self.epoch != epoch:
            raise InvalidDocument(f"{self.name}: registered for another network or epoch")
        prefix = identity_prefix(self.network, epoch, challenge, self.public_key)
        if not is_solution(prefix, self.nonce, genesis.parameters.puzzle_difficulty_bits):
            raise InvalidDocument(f"{self.name}: identity puzzle not solved")
        if not verify(self.public_key, self._statement, self.signature):
            raise InvalidDocument(f"{self.name}: registration not signed by its key")


class Committee(Struct, array_like=True, frozen=True):
    """A shard, the first address of its range, and its members in member order."""

    shard: ShardNumber
    first: Annotated[bytes, Meta(min_length=20, max_length=20)]
    members: Annotated[tuple[Registration, ...], Meta(min_length=1, max_length=MAX_COMMITTEE)]


class EpochDocument(Struct, array_like=True, frozen=True, dict=True):
    """Number, the previous document's hash (the genesis hash for epoch 1), randomness, and the committees by shard.

    ``standby`` registrations are part of the randomness but found no seat.
    """

    network: NetworkLabel
    number: EpochNumber
    previous: Hash
    randomness: Hash
    committees: Annotated[tuple[Committee, ...], Meta(min_length=1, max_length=MAX_SHARDS)]
    standby: Annotated[tuple[Registration, ...], Meta(max_length=MAX_SHARDS)]

    @cached_property
    def hash(self) -> bytes:
        return digest("epoch document", encode(self))

    @cached_property
    def network_id(self) -> bytes:
        """What transactions name as their network: 16 bytes that bind the genesis and this document."""
        return digest("network", self.previous, self.hash)[:16]

    @cached_property
    def shards(self) -> ShardTable:
        return ShardTable([(c.first, c.shard) for c in sorted(self.committees, key=lambda c: c.first)])

    @cached_property
    def electorates(self) -> dict[int, Electorate]:
        """Who may sign, by shard."""
        return {
            c.shard: Electorate(self.network, self.hash, c.shard, tuple(m.public_key for m in c.members)) for c in self.committees
        }

    def seat_of(self, public_key: bytes) -> tuple[int, int] | None:
        """(shard, member index) of a node, or None."""
        for committee in self.committees:
            for index, member in enumerate(committee.members):
                if member.public_key == public_key:
                    return committee.shard, index
        return None

    def check_first(self, genesis: Genesis) -> None:
        """Recompute epoch 1 from its registrations. Raises InvalidDocument where the coordinator departed from the rules."""
        registrations = [m for c in self.committees for m in c.members] + list(self.standby)
        for registration in registrations:
            registration.check(genesis, self.number, genesis.hash)
        if self != first_document(genesis, registrations):
            raise InvalidDocument("the assignment does not follow from the registrations")


def first_document(genesis: Genesis, registrations: Sequence[Registration]) -> EpochDocument:
    """The document of epoch 1, fully determined by who registered.

    Raises:
        InvalidDocument: a key registered twice, or too few for one committee.
    """
    if len({r.public_key for r in registrations}) != len(registrations):
        raise InvalidDocument("a key is registered twice")
    if len({r.name for r in registrations}) != len(registrations):
        raise InvalidDocument("a name is registered twice")
    size = genesis.parameters.committee_size
    count = min(genesis.parameters.committees, len(registrations) // size)
    if count < 1:
        raise InvalidDocument(f"a committee needs {size} nodes, {len(registrations)} registered")
    randomness = digest("randomness", genesis.hash, *sorted(sha256(encode(r)).digest() for r in registrations))
    seated = sorted(registrations, key=lambda r: digest("seat", randomness, r.public_key))
    committees = tuple(
        Committee(shard, first, tuple(seated[i * size : (i + 1) * size])) for i, (first, shard) in enumerate(equal_ranges(count))
    )
    return EpochDocument(genesis.network, 1, genesis.hash, randomness, committees, tuple(seated[count * size :]))


class SignedDocument(Struct, array_like=True, frozen=True):
    document: EpochDocument
    signature: Signature

    def check(self, genesis: Genesis) -> None:
        """Raises InvalidDocument unless the coordinator signed it and it follows the rules."""
        if not verify(genesis.coordinator_key, self.document.hash, self.signature):
            raise InvalidDocument("the epoch document is not signed by the coordinator")
        if self.document.number != 1:
            raise InvalidDocument("this version knows one epoch")
        self.document.check_first(genesis)


class PhaseNotice(Struct, array_like=True, frozen=True):
    """The coordinator's word on where the epoch stands. ``registered``: nodes known so far."""

    network: NetworkLabel
    epoch: EpochNumber
    phase: Phase
    since: Milliseconds
    registered: Annotated[int, Meta(ge=0)]
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("phase", encode([*(getattr(self, f) for f in self.__struct_fields__[:-1])]))

    def signed(self, key: KeyPair) -> "PhaseNotice":
        fields = {name: getattr(self, name) for name in self.__struct_fields__[:-1]}
        return PhaseNotice(**fields, signature=key.sign(self._statement))

    def is_valid(self, genesis: Genesis) -> bool:
        return self.network == genesis.network and verify(genesis.coordinator_key, self._statement, self.signature)


class Acknowledgement(Struct, array_like=True, frozen=True, tag=2):
    """Node to coordinator: I checked this document and accept it."""

    epoch: EpochNumber
    document_hash: Hash


class Readiness(Struct, array_like=True, frozen=True, tag=3):
    """Node to coordinator: I hold my shard's state at ``height`` and reach a quorum of my committee."""

    epoch: EpochNumber
    height: Height


class Application(Struct, array_like=True, frozen=True, tag=1):
    """Node to coordinator: register me."""

    registration: Registration


class Announcement(Struct, array_like=True, frozen=True, tag=1):
    """Coordinator to node: on connecting, whenever something changes, and every second. ``document``: None before assignment."""

    notice: PhaseNotice
    document: SignedDocument | None


class ApplicationRefused(Struct, array_like=True, frozen=True, tag=2):
    """Coordinator to node: your registration breaks a rule."""

    reason: Annotated[str, Meta(max_length=256)]


ToCoordinator = Application | Acknowledgement | Readiness
FromCoordinator = Announcement | ApplicationRefused
