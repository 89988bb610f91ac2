"""Epoch documents: who keeps which shard. Everything in one can be recomputed, and every node does.

A document comes of an attempt: nodes register, each with the hash of a secret; the coordinator closes the list, the roll, and
signs it; only then do they tell their secrets; and the seats follow from roll and secrets. An attempt in which too many stay
away is called off, and the next one begins. A document is in force once a quorum of each of its committees has signed that
it is ready to work under it.
"""

import re
from collections.abc import Mapping
from enum import IntEnum
from functools import cached_property
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import ShardNumber
from node.protocol.certificate import Electorate
from node.protocol.codec import encode
from node.protocol.crypto import Hash, KeyPair, PublicKey, Signature, digest, verify
from node.protocol.genesis import Genesis, NetworkLabel, Phase
from node.protocol.limits import MAX_COMMITTEE, MAX_REGISTRATIONS, MAX_SHARDS
from node.protocol.puzzle import identity_prefix, is_solution
from node.protocol.shards import ShardTable, equal_ranges
from node.protocol.transaction import Milliseconds

EpochNumber = Annotated[int, Meta(ge=1, le=2**53)]
AttemptNumber = EpochNumber
"""Attempts to form an epoch are counted from 1."""
Secret = Annotated[bytes, Meta(min_length=32, max_length=32)]
Multiaddress = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9._-]+\Z")]
"""Of a process."""


_DIALABLE = re.compile(r"/(ip4/(?!0\.0\.0\.0/)|ip6/(?!::/)|dns[46]?/)[0-9A-Za-z.:-]+/tcp/[1-9][0-9]{0,4}")


class InvalidDocument(ValueError):
    """What was said about an epoch breaks a rule; the text says which."""


def commitment_to(secret: bytes) -> bytes:
    """What a registration says of the secret that its node keeps."""
    return digest("seat secret", secret)


class Registration(Struct, array_like=True, frozen=True):
    """A node's application for a seat, signed by it.

    ``addresses``: multiaddrs to reach it at, without the peer id. ``nonce``: solves its identity puzzle. ``name``: a label.
    ``commitment``: to the secret that only the disk holds which the node will vote from.
    """

    network: NetworkLabel
    epoch: EpochNumber
    attempt: AttemptNumber
    public_key: PublicKey
    name: Name
    addresses: Annotated[tuple[Multiaddress, ...], Meta(min_length=1, max_length=4)]
    nonce: Annotated[bytes, Meta(min_length=8, max_length=8)]
    commitment: Hash
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("registration", encode([*(getattr(self, f) for f in self.__struct_fields__[:-1])]))

    def signed(self, key: KeyPair) -> "Registration":
        fields = {name: getattr(self, name) for name in self.__struct_fields__[:-1]}
        return Registration(**fields, signature=key.sign(self._statement))

    def check(self, genesis: Genesis, epoch: int, attempt: int, challenge: bytes) -> None:
        """Raises InvalidDocument unless it is for this attempt, signed by its key, and its puzzle is solved."""
        if (self.network, self.epoch, self.attempt) != (genesis.network, epoch, attempt):
            raise InvalidDocument(f"{self.name}: registered for another network, epoch or attempt")
        prefix = identity_prefix(self.network, epoch, challenge, self.public_key)
        if not is_solution(prefix, self.nonce, genesis.parameters.puzzle_difficulty_bits):
            raise InvalidDocument(f"{self.name}: identity puzzle not solved")
        if not verify(self.public_key, self._statement, self.signature):
            raise InvalidDocument(f"{self.name}: registration not signed by its key")

    def check_addresses(self) -> None:
        """Raises InvalidDocument unless each of them can be dialed: asked of who registers now."""
        for address in self.addresses:
            if not _DIALABLE.fullmatch(address):
                raise InvalidDocument(f"nobody can dial {address}: advertise /ip4/ADDRESS/tcp/PORT")


class Roll(Struct, array_like=True, frozen=True, dict=True):
    """All registrations of an attempt, by public key: fixed before any secret is told."""

    network: NetworkLabel
    epoch: EpochNumber
    attempt: AttemptNumber
    registrations: Annotated[tuple[Registration, ...], Meta(min_length=1, max_length=MAX_REGISTRATIONS)]

    @cached_property
    def hash(self) -> bytes:
        return digest("roll", encode(self))

    def find(self, public_key: bytes) -> Registration | None:
        return next((r for r in self.registrations if r.public_key == public_key), None)

    def check(self, genesis: Genesis) -> None:
        """Raises InvalidDocument unless it holds valid registrations of one attempt, each key once."""
        keys = [registration.public_key for registration in self.registrations]
        if self.network != genesis.network or keys != sorted(set(keys)):
            raise InvalidDocument("the roll is of another network, or not one registration for each key, by key")
        for registration in self.registrations:
            registration.check(genesis, self.epoch, self.attempt, genesis.hash)


class SignedRoll(Struct, array_like=True, frozen=True, tag=1):
    roll: Roll
    signature: Signature

    def check(self, genesis: Genesis) -> None:
        """Raises InvalidDocument unless the coordinator signed it and it follows the rules."""
        if not verify(genesis.coordinator_key, self.roll.hash, self.signature):
            raise InvalidDocument("the roll is not signed by the coordinator")
        self.roll.check(genesis)


class Committee(Struct, array_like=True, frozen=True):
    """A shard, the first address of its range, and its members in member order."""

    shard: ShardNumber
    first: Annotated[bytes, Meta(min_length=20, max_length=20)]
    members: Annotated[tuple[Registration, ...], Meta(min_length=1, max_length=MAX_COMMITTEE)]


class EpochDocument(Struct, array_like=True, frozen=True, dict=True):
    """Number, attempt, the previous document's hash (the genesis hash for epoch 1), randomness, and the committees by shard.

    ``standby`` found no seat; ``silent`` did not tell their secrets in time, and have none. ``secrets``: those of all others, by
    public key. ``origins``: for each committee the shards of the epoch before whose accounts it takes over: one, or two that are
    merged, in the order of their ranges; none in epoch 1. ``lineage``: the network id, as the first document gave it; empty in
    that one.
    """

    network: NetworkLabel
    number: EpochNumber
    attempt: AttemptNumber
    previous: Hash
    randomness: Hash
    committees: Annotated[tuple[Committee, ...], Meta(min_length=1, max_length=MAX_SHARDS)]
    standby: Annotated[tuple[Registration, ...], Meta(max_length=MAX_REGISTRATIONS)]
    silent: Annotated[tuple[Registration, ...], Meta(max_length=MAX_REGISTRATIONS)]
    secrets: Annotated[tuple[Secret, ...], Meta(max_length=MAX_REGISTRATIONS)]
    origins: Annotated[tuple[tuple[ShardNumber, ...], ...], Meta(max_length=MAX_SHARDS)] = ()
    lineage: Annotated[bytes, Meta(max_length=16)] = b""

    @cached_property
    def hash(self) -> bytes:
        return digest("epoch document", encode(self))

    @cached_property
    def network_id(self) -> bytes:
        """What transactions name as their network, in all epochs: 16 bytes that bind the genesis and the first document."""
        return self.lineage or digest("network", self.previous, self.hash)[:16]

    @property
    def register(self) -> int:
        """The shard that is the network's register."""
        return min(self.electorates)

    def origins_of(self, shard: int) -> tuple[int, ...]:
        """The shards of the epoch before from which this one comes; none in epoch 1. Raises KeyError for no shard."""
        return (
            dict(zip((committee.shard for committee in self.committees), self.origins, strict=True))[shard]
            if self.origins
            else ()
        )

    def children_of(self, shard: int) -> tuple[int, ...]:
        """The shards that come from this one of the epoch before, in no order: one, or two if it was split."""
        return tuple(c.shard for c, origins in zip(self.committees, self.origins, strict=True) if shard in origins)

    @cached_property
    def roll(self) -> Roll:
        """The roll it was made of."""
        registrations = sorted([*self._who_told, *self.silent], key=lambda r: r.public_key)
        return Roll(self.network, self.number, self.attempt, tuple(registrations))

    @property
    def _who_told(self) -> list[Registration]:
        return [member for committee in self.committees for member in committee.members] + list(self.standby)

    @cached_property
    def shards(self) -> ShardTable:
        return ShardTable([(c.first, c.shard) for c in sorted(self.committees, key=lambda c: c.first)])

    @cached_property
    def electorates(self) -> dict[int, Electorate]:
        """Who may sign, by shard."""
        return {
            c.shard: Electorate(self.network, self.hash, c.shard, tuple(m.public_key for m in c.members), self.number)
            for c in self.committees
        }

    @cached_property
    def members(self) -> frozenset[bytes]:
        """The public keys of all who have a seat."""
        return frozenset(member.public_key for committee in self.committees for member in committee.members)

    @cached_property
    def _seats(self) -> dict[bytes, tuple[int, int]]:
        return {m.public_key: (c.shard, index) for c in self.committees for index, m in enumerate(c.members)}

    def seat_of(self, public_key: bytes) -> tuple[int, int] | None:
        """(shard, member index) of a node, or None."""
        return self._seats.get(public_key)

    def check_first(self, genesis: Genesis) -> None:
        """Recompute epoch 1 from roll and secrets. Raises InvalidDocument where the coordinator departed from the rules."""
        self.roll.check(genesis)
        keys = sorted(registration.public_key for registration in self._who_told)
        if len(keys) != len(self.secrets):
            raise InvalidDocument("there is not one secret for each who told one")
        if self != first_document(genesis, self.roll, dict(zip(keys, self.secrets, strict=True))):
            raise InvalidDocument("the assignment does not follow from roll and secrets")


def first_document(genesis: Genesis, roll: Roll, secrets: Mapping[bytes, bytes]) -> EpochDocument:
    """The document of epoch 1, fully determined by the roll and the secrets told, by public key.

    Raises:
        InvalidDocument: a secret is not the one committed to, or too few were told for one committee.
    """
    told = [registration for registration in roll.registrations if registration.public_key in secrets]
    for registration in told:
        if registration.commitment != commitment_to(secrets[registration.public_key]):
            raise InvalidDocument(f"{registration.name}: not the secret it committed to")
    size = genesis.parameters.committee_size
    count = min(genesis.parameters.committees, len(told) // size)
    if count < 1:
        raise InvalidDocument(f"a committee needs {size} nodes, {len(told)} told their secrets")
    randomness = digest("randomness", roll.hash, *(r.public_key + secrets[r.public_key] for r in told))
    seated = sorted(told, key=lambda r: digest("seat", randomness, r.public_key))
    return EpochDocument(
        network=genesis.network,
        number=roll.epoch,
        attempt=roll.attempt,
        previous=genesis.hash,
        randomness=randomness,
        committees=tuple(
            Committee(shard, first, tuple(seated[i * size : (i + 1) * size]))
            for i, (first, shard) in enumerate(equal_ranges(count))
        ),
        standby=tuple(seated[count * size :]),
        silent=tuple(registration for registration in roll.registrations if registration.public_key not in secrets),
        secrets=tuple(secrets[registration.public_key] for registration in told),
    )


class SignedDocument(Struct, array_like=True, frozen=True, tag=2):
    document: EpochDocument
    signature: Signature

    def check(self, genesis: Genesis) -> None:
        """Raises InvalidDocument unless the coordinator signed it and it follows the rules."""
        if not verify(genesis.coordinator_key, self.document.hash, self.signature):
            raise InvalidDocument("the epoch document is not signed by the coordinator")
        if self.document.number != 1:
            raise InvalidDocument("not the first epoch's document")
        self.document.check_first(genesis)


def readiness_statement(document_hash: bytes) -> bytes:
    """What a member signs when it is ready to work under a document."""
    return digest("readiness", document_hash)


class ReadyQuorum(Struct, array_like=True, frozen=True):
    """Signed readiness of a quorum of one committee: member indices, ascending, and their signatures."""

    signers: Annotated[tuple[Annotated[int, Meta(ge=0, lt=MAX_COMMITTEE)], ...], Meta(max_length=MAX_COMMITTEE)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_COMMITTEE)]


class Opening(Struct, array_like=True, frozen=True, tag=3):
    """A document in force: with it the readiness of a quorum of each of its committees, in their order."""

    signed: SignedDocument
    quorums: Annotated[tuple[ReadyQuorum, ...], Meta(min_length=1, max_length=MAX_SHARDS)]

    @property
    def document(self) -> EpochDocument:
        return self.signed.document

    def check(self, genesis: Genesis) -> None:
        """Raises InvalidDocument unless the document is valid, and each committee is ready."""
        self.signed.check(genesis)
        self.check_quorums()

    def check_quorums(self) -> None:
        """Raises InvalidDocument unless a quorum of each committee signed that it is ready, whatever the document."""
        electorates, statement = list(self.document.electorates.values()), readiness_statement(self.document.hash)
        if len(self.quorums) != len(electorates):
            raise InvalidDocument("there is not one quorum for each committee")
        for quorum, electorate in zip(self.quorums, electorates, strict=True):
            signers = quorum.signers
            if list(signers) != sorted(set(signers)) or not len(signers) == len(quorum.signatures) == electorate.quorum:
                raise InvalidDocument(f"committee {electorate.shard}: no quorum is ready")
            for signer, signature in zip(signers, quorum.signatures, strict=True):
                if signer >= len(electorate.keys) or not verify(electorate.keys[signer], statement, signature):
                    raise InvalidDocument(f"committee {electorate.shard}: readiness not signed by member {signer}")


class PhaseNotice(Struct, array_like=True, frozen=True):
    """The coordinator's word on where the epoch stands. ``registered``: nodes known so far."""

    network: NetworkLabel
    epoch: EpochNumber
    attempt: AttemptNumber
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


class Application(Struct, array_like=True, frozen=True, tag=1):
    """Node to coordinator: register me."""

    registration: Registration


class Acknowledgement(Struct, array_like=True, frozen=True, tag=2):
    """Member to coordinator: I checked this document and accept it. Said again during handoff: I am still there."""

    document_hash: Hash


class Readiness(Struct, array_like=True, frozen=True, tag=3):
    """Member to coordinator: I reach a quorum of my committee. Signed over ``readiness_statement``."""

    document_hash: Hash
    signature: Signature


class Reveal(Struct, array_like=True, frozen=True, tag=4):
    """Node to coordinator: the secret that my registration of this attempt commits to."""

    attempt: AttemptNumber
    secret: Secret


class Want(IntEnum):
    JOIN = 1
    """It has no seat, and would take one."""
    LEAVE = 2
    """It has one, and would give it up."""
    SIT_OUT = 3
    """It has one, and may not vote: its disk was lost."""


class Wish(Struct, array_like=True, frozen=True, tag=5):
    """Node to coordinator: why I should like the epoch to end. Said again and again; ``epoch``: the one that mines."""

    epoch: EpochNumber
    want: Want


Content = SignedRoll | SignedDocument | Opening
CONTENTS: dict[Phase, type[Content] | None] = {
    Phase.REGISTRATION: None,
    Phase.REVEAL: SignedRoll,
    Phase.ASSIGNMENT: SignedDocument,
    Phase.HANDOFF: SignedDocument,
    Phase.MINING: Opening,
}
"""What an announcement of each phase carries in the first epoch. In all later ones it is the first one's opening."""


class Announcement(Struct, array_like=True, frozen=True, tag=1):
    """Coordinator to node: on connecting, whenever something changes, and every second. ``content``: see ``CONTENTS``.

    The notice is of the epoch that forms, or else of the one that mines."""

    notice: PhaseNotice
    content: Content | None

    def check(self, genesis: Genesis) -> None:
        """Raises InvalidDocument unless the notice is signed, and the content goes with it. The content itself is not checked."""
        notice, content = self.notice, self.content
        if not notice.is_valid(genesis):
            raise InvalidDocument("announcement not signed by the coordinator of this network")
        if notice.epoch > 1:
            if not isinstance(content, Opening):
                raise InvalidDocument("announcement of a later epoch without the first one's opening")
            return
        if notice.phase not in CONTENTS:
            raise InvalidDocument("announcement of settlement in the first epoch")
        expected = CONTENTS[notice.phase]
        if (content is None) != (expected is None) or not (content is None or expected is type(content)):
            raise InvalidDocument(f"announcement of {notice.phase} with the wrong content, or without any")
        attempt = (
            content.roll.attempt if isinstance(content, SignedRoll) else content.document.attempt if content else notice.attempt
        )
        if attempt != notice.attempt:
            raise InvalidDocument(f"announcement of attempt {notice.attempt} with the content of attempt {attempt}")


class ApplicationRefused(Struct, array_like=True, frozen=True, tag=2):
    """Coordinator to node: your registration breaks a rule."""

    reason: Annotated[str, Meta(max_length=256)]


ToCoordinator = Application | Acknowledgement | Readiness | Reveal | Wish
FromCoordinator = Announcement | ApplicationRefused
