"""Reading payloads: what can be said of a block's content without the ledger."""

from collections.abc import Sequence

from node.protocol.block import Block
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError
from node.protocol.entries import Entry, decode_entry
from node.protocol.genesis import Parameters
from node.protocol.limits import MAX_BLOCK_ENTRIES, MAX_BLOCK_PAYLOAD_BYTES, MAX_BLOCK_RECORDS
from node.protocol.merkle import leaf_hash
from node.replica.drafts import Payload
from node.replica.inbox import Inbox
from node.replica.mempool import Mempool, read_pooled
from node.replica.witnesses import join


def read_payload(block: Block, mempool: Mempool, inbox: Inbox, parameters: Parameters) -> Payload | None:
    """Decode a payload; transactions the mempool knows are taken from there. None when it breaks a rule: too many or too
    large, a transaction or an entry malformed, a bundle that does not prove itself."""
    if not may_fill(block.transactions, parameters):
        return None
    bundles, entries = read_bundles(block.bundles, inbox), read_entries(block.entries)
    if bundles is None or entries is None:
        return None
    try:
        pairs = zip(map(leaf_hash, block.transactions), block.transactions, strict=True)
        transactions = tuple(mempool.find(leaf) or read_pooled(encoded, leaf) for leaf, encoded in pairs)
    except DecodeError:
        return None
    return Payload(bundles, transactions, join(map(inbox.verdicts, block.bundles)), entries)


def may_fill(transactions: Sequence[bytes], parameters: Parameters) -> bool:
    """Whether a block may have so many encoded transactions, and so large ones."""
    return len(transactions) <= parameters.block_transactions and sum(map(len, transactions)) <= MAX_BLOCK_PAYLOAD_BYTES


def read_bundles(encoded: Sequence[bytes], inbox: Inbox) -> tuple[CertifiedBundle, ...] | None:
    """The bundles of a block. None when one is there twice, they are too large together, or one does not prove itself: that is
    looked at last, for it costs the most."""
    bundles = [certified for one in encoded if (certified := inbox.read(one)) is not None]
    if len(bundles) < len(encoded) or len(set(encoded)) < len(encoded):
        return None
    if len(bundles) > 1 and not fits(sum(map(len, encoded)), sum(len(certified.bundle.records) for certified in bundles)):
        return None
    return tuple(bundles) if all(map(inbox.proves, encoded, bundles)) else None


def read_entries(encoded: Sequence[bytes]) -> tuple[Entry, ...] | None:
    """The entries of a block. None when there are too many, or one is malformed; what they say is not looked at."""
    if len(encoded) > MAX_BLOCK_ENTRIES:
        return None
    try:
        return tuple(map(decode_entry, encoded))
    except DecodeError:
        return None


def fits(size: int, records: int) -> bool:
    """Whether several bundles of this size, bytes, and so many records may share a block."""
    return size <= MAX_BLOCK_PAYLOAD_BYTES and records <= MAX_BLOCK_RECORDS
