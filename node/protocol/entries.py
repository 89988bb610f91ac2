"""Entries: what nodes and the coordinator have the register write down about the next epoch. Each proves itself.

They travel like transactions: over the broker, into a pool of the register's members, into a block of the register.
"""

from typing import Annotated, Any, cast

from msgspec import Meta, Struct

from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair, PublicKey, Signature, digest, verify
from node.protocol.epoch import AttemptNumber, EpochNumber, Registration, Secret, readiness_statement
from node.protocol.genesis import NetworkLabel
from node.protocol.limits import MAX_ENTRY_BYTES


class Enrolment(Struct, array_like=True, frozen=True, tag=1):
    """A node wants a seat in the next epoch. The first of a key in an attempt counts."""

    registration: Registration


class Farewell(Struct, array_like=True, frozen=True, tag=2):
    """A node wants no seat in the epoch after ``epoch``, nor later, until it registers again; not before that one."""

    network: NetworkLabel
    epoch: EpochNumber
    public_key: PublicKey
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("farewell", encode([self.network, self.epoch]))

    def signed(self, key: KeyPair) -> "Farewell":
        return Farewell(self.network, self.epoch, key.public, key.sign(self._statement))

    @property
    def is_signed(self) -> bool:
        return verify(self.public_key, self._statement, self.signature)


class Disclosure(Struct, array_like=True, frozen=True, tag=3):
    """The secret that a node's registration of this attempt commits to."""

    attempt: AttemptNumber
    public_key: PublicKey
    secret: Secret


class Ready(Struct, array_like=True, frozen=True, tag=4):
    """A member of a committee of the next document has what it needs to begin. Signed over ``readiness_statement``."""

    document: Annotated[bytes, Meta(min_length=32, max_length=32)]
    public_key: PublicKey
    signature: Signature = bytes(64)

    def signed(self, key: KeyPair) -> "Ready":
        return Ready(self.document, key.public, key.sign(readiness_statement(self.document)))

    @property
    def is_signed(self) -> bool:
        return verify(self.public_key, readiness_statement(self.document), self.signature)


class Call(Struct, array_like=True, frozen=True, tag=5):
    """The coordinator asks for the next epoch now, and not only when this one is over."""

    network: NetworkLabel
    epoch: EpochNumber
    attempt: AttemptNumber
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("call", encode([self.network, self.epoch, self.attempt]))

    def signed(self, key: KeyPair) -> "Call":
        return Call(self.network, self.epoch, self.attempt, key.sign(self._statement))

    def is_signed(self, coordinator_key: bytes) -> bool:
        return verify(coordinator_key, self._statement, self.signature)


Entry = Enrolment | Farewell | Disclosure | Ready | Call


def decode_entry(encoded: bytes) -> Entry:
    """Raises DecodeError."""
    return cast(Entry, decode(cast(Any, Entry), encoded, MAX_ENTRY_BYTES))
