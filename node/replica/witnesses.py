"""Witnesses of what other shards prepare here: which this shard checks, and what is known of them when a block is executed.

The checks are made off the loop: of bundles when they come in, of a proposal's with its transactions', of blocks from members
before consensus sees them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from node.ledger.rules import Rules
from node.ledger.two_phase_commit import relied_on
from node.protocol.block import Block
from node.protocol.channel import Bundle, CertifiedBundle, Prepare
from node.protocol.codec import encode
from node.protocol.transaction import Transaction

Verdicts = Mapping[bytes, bool]
"""By digest of a transaction cut down to the witnesses to check: whether all of them sign it."""

_certified = msgspec.msgpack.Decoder(CertifiedBundle)
_transaction = msgspec.msgpack.Decoder(Transaction)


def to_check(rules: Rules, bundles: Iterable[Bundle]) -> tuple[Transaction, ...]:
    """The transactions that ``bundles`` prepare, cut down to the witnesses this shard checks. Most have none."""
    found = []
    for bundle in bundles:
        for record in bundle.records:
            if isinstance(record, Prepare):
                try:
                    relied = relied_on(rules, bundle.source, _transaction.decode(record.transaction))
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    continue  # no transaction: execution refuses it unchecked
                if relied is not None:
                    found.append(relied)
    return tuple(found)


def read_bundles(block: Block) -> Iterator[Bundle]:
    """The bundles in a block that are readable at all; whether they prove themselves is for later."""
    for encoded in block.bundles:
        try:
            yield _certified.decode(encoded).bundle
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue


def record(transactions: Sequence[Transaction], valid: Sequence[bool]) -> Verdicts:
    """What is to be remembered of checks."""
    return {_digest(transaction): verdict for transaction, verdict in zip(transactions, valid, strict=True)}


def join(parts: Iterable[Verdicts | None]) -> Verdicts:
    """All that is known."""
    return {digest: verdict for part in parts if part for digest, verdict in part.items()}


def judge(known: Verdicts) -> Callable[[Transaction], bool]:
    """Whether a transaction's witnesses sign it: as is known, else by checking it."""

    def has_valid_signatures(transaction: Transaction) -> bool:
        verdict = known.get(_digest(transaction)) if known else None
        return transaction.has_valid_signatures() if verdict is None else verdict

    return has_valid_signatures


def _digest(transaction: Transaction) -> bytes:
    return sha256(encode(transaction)).digest()
