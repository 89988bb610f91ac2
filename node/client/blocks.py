"""A published block, proven and read. Pure functions of bytes: they may run in any thread, and never raise on bad input.

What a quorum has certified is final, whatever it says. A captured committee may certify a payload that is none: what cannot be
read is left out and counted, so that its shard can be followed and all others are not held up.
"""

from functools import cached_property

import msgspec
from msgspec import Struct

from node.protocol.block import Header
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.channel import CertifiedBundle, Prepare
from node.protocol.codec import DecodeError, decode
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.transaction import Transaction, decode_transaction

_bundle = msgspec.msgpack.Decoder(CertifiedBundle)


class Incoming(Struct, frozen=True, gc=False):
    """A transaction that shard ``source`` asked this one to prepare, in its block at ``height``."""

    transaction: Transaction
    source: int
    height: int


class ProvenBlock(Struct, frozen=True, dict=True):
    """A block that its committee made final.

    Fields:
        transactions: those of the payload, in order; ``incoming``: those in its bundles.
        unreadable: parts of the payload that are neither, left out.
    """

    certified: CertifiedBlock
    transactions: tuple[Transaction, ...]
    incoming: tuple[Incoming, ...]
    unreadable: int

    @property
    def header(self) -> Header:
        return self.certified.block.header

    @cached_property
    def hash(self) -> bytes:
        return self.header.hash


def read_block(body: bytes, electorate: Electorate) -> ProvenBlock | None:
    """A message of a blocks topic; None when it is no block that ``electorate`` made final."""
    try:
        return prove_block(decode(CertifiedBlock, body, MAX_BROKER_BODY_BYTES), electorate)
    except DecodeError:
        return None


def prove_block(certified: CertifiedBlock, electorate: Electorate) -> ProvenBlock | None:
    """The block, read; None when ``electorate`` did not make it final, or its payload or effects are not its own."""
    if not certified.is_valid(electorate):
        return None
    transactions: list[Transaction] = []
    incoming: list[Incoming] = []
    unreadable = 0
    for encoded in certified.block.transactions:
        try:
            transactions.append(decode_transaction(encoded))
        except DecodeError:
            unreadable += 1
    for encoded in certified.block.bundles:
        try:
            bundle = _bundle.decode(encoded)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            unreadable += 1
            continue
        for record in bundle.bundle.records:
            if isinstance(record, Prepare):
                try:
                    transaction = decode_transaction(record.transaction)
                    incoming.append(Incoming(transaction, bundle.header.shard, bundle.header.height))
                except DecodeError:
                    unreadable += 1
    return ProvenBlock(certified, tuple(transactions), tuple(incoming), unreadable)
