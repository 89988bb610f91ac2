"""Reading payloads: what can be said of a block's content without the ledger."""

from node.protocol.block import Block
from node.protocol.codec import DecodeError
from node.protocol.genesis import Parameters
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES, MAX_BLOCK_RECORDS
from node.protocol.transaction import decode_transaction
from node.replica.drafts import Payload
from node.replica.inbox import Inbox
from node.replica.mempool import Entry, Mempool
from node.replica.witnesses import join


def read_payload(block: Block, mempool: Mempool, inbox: Inbox, parameters: Parameters) -> Payload | None:
    """Decode a payload; transactions the mempool knows are taken from there. None when it breaks a rule: too many or too
    large, a transaction malformed, a bundle that does not prove itself."""
    if len(block.transactions) > parameters.block_transactions:
        return None
    if sum(map(len, block.transactions)) > MAX_BLOCK_PAYLOAD_BYTES:
        return None
    bundles = []
    for encoded in block.bundles:
        certified = inbox.verified(encoded)
        if certified is None:
            return None
        bundles.append(certified)
    if len(bundles) > 1 and not fits(sum(map(len, block.bundles)), sum(len(b.bundle.records) for b in bundles)):
        return None
    try:
        entries = tuple(mempool.find(encoded) or _read_transaction(encoded) for encoded in block.transactions)
    except DecodeError:
        return None
    return Payload(tuple(bundles), entries, join(inbox.verdicts(encoded) for encoded in block.bundles))


def _read_transaction(encoded: bytes) -> Entry:
    transaction = decode_transaction(encoded)
    return Entry(transaction.id, transaction, encoded)


def fits(size: int, records: int) -> bool:
    """Whether several bundles of this size, bytes, and so many records may share a block."""
    return size <= MAX_BLOCK_PAYLOAD_BYTES and records <= MAX_BLOCK_RECORDS
