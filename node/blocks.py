"""Payloads of blocks: reading those of proposals, and filling own ones."""

from collections.abc import Sequence

from msgspec import Struct

from node.consensus.simplex import Turn
from node.inbox import Inbox
from node.ledger.execution import Execution, admit, execute
from node.ledger.rules import Rules
from node.ledger.state import State
from node.mempool import Entry, Mempool
from node.protocol import merkle
from node.protocol.block import Block, Header, payload_root
from node.protocol.certificate import Electorate
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError
from node.protocol.codes import Code
from node.protocol.genesis import Genesis, Parameters
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES, MAX_BLOCK_RECORDS, MAX_SHARDS
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction, decode_transaction


class BodyError(ValueError):
    """A payload breaks a rule that does not depend on the ledger."""


class Body(Struct, frozen=True):
    """A payload, decoded; its bundles have proven themselves, its transactions' signatures are checked apart."""

    height: int
    parent: bytes
    bundles: tuple[CertifiedBundle, ...]
    entries: tuple[Entry, ...]


class Candidate(Struct, frozen=True):
    """A block all but for its nonce, and what executing it gives."""

    block: Block
    body: Body
    execution: Execution


def read_body(block: Block, mempool: Mempool, inbox: Inbox, parameters: Parameters) -> Body:
    """Decode a payload; transactions the mempool knows are taken from there.

    Raises:
        BodyError: too many or too large, a transaction malformed, a bundle that does not prove itself.
    """
    if len(block.transactions) > parameters.block_transactions:
        raise BodyError("too many transactions")
    if sum(map(len, block.transactions)) > MAX_BLOCK_PAYLOAD_BYTES:
        raise BodyError("transactions too large")
    bundles = []
    for encoded in block.bundles:
        certified = inbox.verified(encoded)
        if certified is None:
            raise BodyError("a bundle does not prove itself")
        bundles.append(certified)
    if len(bundles) > 1 and not _fits(sum(map(len, block.bundles)), sum(len(b.bundle.records) for b in bundles)):
        raise BodyError("bundles too large")
    entries = tuple(mempool.find(encoded) or _read_transaction(encoded) for encoded in block.transactions)
    return Body(block.header.height, block.header.parent, tuple(bundles), entries)


def _read_transaction(encoded: bytes) -> Entry:
    try:
        transaction = decode_transaction(encoded)
    except DecodeError as error:
        raise BodyError(str(error)) from None
    return Entry(transaction.id, transaction, encoded)


def choose_transactions(
    state: State, parent: State | Execution, rules: Rules, mempool: Mempool, time: int
) -> tuple[list[Entry], list[bytes], list[Refusal]]:
    """What a block on ``parent`` may take from the mempool, in order of arrival; also the ids that no later block can take
    and, of these, refusals for those that expired while waiting."""
    chosen: list[Entry] = []
    stale: list[bytes] = []
    expired: list[Refusal] = []
    size = 0
    view = parent.overlay if isinstance(parent, Execution) else parent
    for entry in mempool:
        if admit(view, rules, entry.id, entry.transaction, time) is Code.OK:
            size += len(entry.encoded)
            if size > MAX_BLOCK_PAYLOAD_BYTES or len(chosen) >= rules.parameters.block_transactions:
                break
            chosen.append(entry)
            continue
        code = admit(state, rules, entry.id, entry.transaction, state.time)
        if code is not Code.OK:
            stale.append(entry.id)
            if code is Code.EXPIRED:
                expired.append(Refusal(entry.id, code))
    return chosen, stale, expired


def choose_bundles(parent: State | Execution, inbox: Inbox) -> tuple[list[CertifiedBundle], list[bytes]]:
    """The bundles whose turn it is, as many as fit; one goes in whatever its size. Channels take turns at being first."""
    view = parent.overlay if isinstance(parent, Execution) else parent
    bundles: list[CertifiedBundle] = []
    encoded: list[bytes] = []
    size = records = 0
    first = view.height % max(1, len(inbox.sources))
    for source in inbox.sources[first:] + inbox.sources[:first]:
        for delivery in inbox.following(source, view.cursor(source)):
            size += len(delivery.encoded)
            records += len(delivery.certified.bundle.records)
            if encoded and (not _fits(size, records) or len(encoded) >= MAX_SHARDS):
                size -= len(delivery.encoded)
                records -= len(delivery.certified.bundle.records)
                break
            bundles.append(delivery.certified)
            encoded.append(delivery.encoded)
    return bundles, encoded


def _fits(size: int, records: int) -> bool:
    """Whether several bundles of this size, bytes, and so many records may share a block."""
    return size <= MAX_BLOCK_PAYLOAD_BYTES and records <= MAX_BLOCK_RECORDS


def build_block(
    parent: State | Execution,
    turn: Turn,
    member: int,
    electorate: Electorate,
    rules: Rules,
    time: int,
    bundles: tuple[Sequence[CertifiedBundle], Sequence[bytes]],
    entries: Sequence[Entry],
) -> Candidate:
    """Execute a payload on ``parent`` and write the header that commits to all of it; the nonce is left at zero."""
    certified, encoded_bundles = bundles
    height = parent.height + 1
    transactions = [(entry.id, entry.transaction) for entry in entries]
    sent = [bundle.bundle for bundle in certified]
    execution = execute(parent, rules, height, time, sent, transactions, Transaction.has_valid_signatures)
    payload = tuple(encoded_bundles), tuple(entry.encoded for entry in entries)
    header = Header(
        network=electorate.network,
        shard=electorate.shard,
        epoch=electorate.epoch,
        view=turn.view,
        height=height,
        parent=turn.parent,
        time=time,
        proposer=member,
        payload_root=payload_root(*payload),
        receipts_root=execution.receipts_root,
        outbox_root=execution.outbox_root,
        changes_hash=execution.changes_hash,
        totals_hash=execution.totals_hash,
        state_root=execution.state_root,
        nonce=bytes(8),
    )
    body = Body(height, turn.parent, tuple(certified), tuple(entries))
    return Candidate(Block(header, *payload), body, execution)


def roots_match(header: Header, execution: Execution) -> bool:
    """Whether executing a block gave what its header says."""
    return (
        header.receipts_root == execution.receipts_root
        and header.outbox_root == execution.outbox_root
        and header.changes_hash == execution.changes_hash
        and header.totals_hash == execution.totals_hash
        and header.state_root == execution.state_root
    )


def genesis_header(genesis: Genesis, shard: int, state: State) -> Header:
    """The header at height 0: nobody signs it, everybody computes it."""
    return Header(
        network=genesis.network,
        shard=shard,
        epoch=0,
        view=0,
        height=0,
        parent=genesis.hash,
        time=state.time,
        proposer=0,
        payload_root=payload_root((), ()),
        receipts_root=merkle.EMPTY_ROOT,
        outbox_root=merkle.EMPTY_ROOT,
        changes_hash=bytes(32),
        totals_hash=state.totals().hash(),
        state_root=state.state_root,
        nonce=bytes(8),
    )
