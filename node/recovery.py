"""A node's state after a start: the last checkpoint, and the blocks stored since, executed again.

Nothing stored is believed that does not prove itself: rows must give the root that a certified header has, blocks must follow
on each other, and executing one must give what its header says. Rows of a checkpoint no stored header covers are not read.
"""

import errno
import os
from pathlib import Path
from typing import Any, cast

from node.consensus.journal import remembered
from node.events import Recovered, Stored
from node.ledger.checkpoint import Slice
from node.ledger.execution import InvalidBlock, execute, next_state_root
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.block import Header, skip_height
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Opening, SignedDocument
from node.protocol.limits import MAX_BUNDLE_BYTES, MAX_FRAME_BYTES, MAX_STORED_BYTES
from node.protocol.transaction import Transaction, decode_transaction
from node.storage import Storage, StorageDamaged, StorageFull

_ACCEPTED = cast(Any, SignedDocument | Opening)  # a union is no type for mypy
_READ_BYTES = 4 << 20


def read_document(path: Path) -> SignedDocument | Opening | None:
    """The epoch document this node accepted, from a file of its own: it proves itself, and outlives a damaged database."""
    try:
        accepted: SignedDocument | Opening = decode(_ACCEPTED, path.read_bytes(), MAX_FRAME_BYTES)
        return accepted
    except (OSError, DecodeError):
        return None


def write_document(path: Path, accepted: SignedDocument | Opening) -> None:
    """Store the epoch document durably, whole or not at all. Raises StorageFull, or another OSError."""
    draft = path.with_name(path.name + ".draft")
    try:
        with draft.open("wb") as file:
            file.write(encode(accepted))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for {path}: free some, nothing is lost") from None
        raise
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_stored(storage: Storage, document_file: Path) -> Stored:
    """What the node remembers of its part in the network. Raises StorageError."""
    return Stored(os.urandom(32), read_document(document_file), storage.pledge())


def recover(storage: Storage, rules: Rules, electorate: Electorate) -> Recovered:
    """Bring a stored ledger back.

    Raises:
        StorageDamaged: the database holds what does not prove itself. StorageError: it cannot be read.
    """
    try:
        state, last = _checkpoint(storage, rules, electorate)
        _remember_transactions(storage, state, rules)
        last, slices = _replay(storage, state, last, rules, electorate)
        peaks = _peaks(storage, last.block.header) if last is not None else {}
        records = tuple(map(remembered, storage.journal()))
    except (ValueError, InvalidBlock) as error:
        raise StorageDamaged(f"the database is damaged: {error}") from error
    return Recovered(state, last, records, peaks, slices)


def _checkpoint(storage: Storage, rules: Rules, electorate: Electorate) -> tuple[State, CertifiedBlock | None]:
    """The state of the last checkpoint stored, and its block."""
    stored = storage.checkpoint()
    if stored is None:
        return State.genesis(rules), None
    height, certified_at = stored
    at, before, certifying = (_block(storage, number, electorate) for number in (height, certified_at - 1, certified_at))
    state = State.restore(rules, at.block.header, at.effects.totals, certified_at, storage.rows(height))
    header = certifying.block.header
    if next_state_root(before.block.header.state_root, header.changes_hash, state.checkpoint_root()) != header.state_root:
        raise DecodeError(f"the rows of checkpoint {height} are not those that block {certified_at} commits to")
    return state, at


def _block(storage: Storage, height: int, electorate: Electorate) -> CertifiedBlock:
    stored = storage.blocks(height, 1, 1)
    if not stored:
        raise DecodeError(f"block {height}, which a checkpoint needs, is missing")
    certified = decode(CertifiedBlock, stored[0], MAX_STORED_BYTES)
    if not certified.is_valid(electorate) or certified.block.header.height != height:
        raise DecodeError(f"block {height} does not prove itself")
    return certified


def _remember_transactions(storage: Storage, state: State, rules: Rules) -> None:
    """Rebuild the replay set as of the checkpoint from the blocks of the validity window before it."""
    for height, encoded in storage.blocks_descending():
        if height > state.height:
            continue
        certified = decode(CertifiedBlock, encoded, MAX_STORED_BYTES)
        if rules.parameters.latest_valid_until(certified.block.header.time) < state.time:
            return
        for transaction in map(decode_transaction, certified.block.transactions):
            state.remember(transaction.id, transaction.order.valid_until)


def _replay(
    storage: Storage, state: State, last: CertifiedBlock | None, rules: Rules, electorate: Electorate
) -> tuple[CertifiedBlock | None, tuple[Slice, ...]]:
    """Execute the stored blocks after ``last``; returns the last one, and what they all add to checkpoints."""
    slices = []
    while blocks := storage.blocks(state.height + 1, _READ_BYTES):
        for encoded in blocks:
            certified = decode(CertifiedBlock, encoded, MAX_STORED_BYTES)
            slices.append(_execute_again(certified, last, state, rules, electorate))
            last = certified
    return last, tuple(part for part in slices if part.rows or part.certified_at is not None)


def _peaks(storage: Storage, header: Header) -> dict[int, bytes]:
    """The hashes that skips lead to from a block, by height: a read for each bit set in its height."""
    peaks = {header.height: header.hash}
    while below := skip_height(header.height):
        stored = storage.blocks(below, 1, 1)
        if not stored:
            raise DecodeError(f"block {below} is missing")
        found = decode(CertifiedBlock, stored[0], MAX_STORED_BYTES).block.header
        if found.hash != header.skip:
            raise DecodeError(f"block {below} is not the one that block {header.height} skips to")
        peaks[below], header = header.skip, found
    return peaks | {0: header.skip}


def _execute_again(
    certified: CertifiedBlock, last: CertifiedBlock | None, state: State, rules: Rules, electorate: Electorate
) -> Slice:
    block, header = certified.block, certified.block.header
    if (last is not None and header.parent != last.block.header.hash) or not certified.is_valid(electorate):
        raise DecodeError(f"block {header.height} does not prove itself")
    bundles = [decode(CertifiedBundle, encoded, MAX_BUNDLE_BYTES).bundle for encoded in block.bundles]
    transactions = [(t.id, t) for t in map(decode_transaction, block.transactions)]
    valid = Transaction.has_valid_signatures
    execution = execute(state, rules, header.height, header.time, bundles, transactions, valid)
    if not execution.gives(header):
        raise DecodeError(f"block {header.height} does not execute to what its header says")
    return state.commit(execution.overlay)
