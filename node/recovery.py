"""A node's state after a start: the last checkpoint, and the blocks stored since, executed again.

Nothing stored is believed that does not prove itself: rows must give the root that a certified header has, ids of the replay set
must be those that rows say, blocks must follow on each other, and executing one must give what its header says. Rows of a
checkpoint no stored header covers are not read. With what a chain began that follows on others no header proves before its first
checkpoint: until then it is believed that the rows are those that were stored.
"""

from collections.abc import Callable, Sequence

from msgspec import structs

from node.consensus.journal import remembered
from node.database import StorageClosed, StorageDamaged
from node.effects import Recover
from node.events import Missing, Recovered
from node.handing_over import read_checkpoint, read_skipped
from node.ledger.checkpoint import Slice
from node.ledger.execution import InvalidBlock
from node.ledger.following import execute_final
from node.ledger.opening import Origin, included, open_state, opening_header
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.block import skip_height
from node.protocol.certificate import CertifiedBlock, CertifiedHeader, Electorate
from node.protocol.chain import Chain
from node.protocol.checkpoint import Beginning
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.credits import Credits
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_STORED_BYTES
from node.storage import Storage

_READ_BYTES = 4 << 20


def bring_back(wanted: Recover, open_one: Callable[[Chain], Storage]) -> Recovered | Missing:
    """The answer to ``wanted``. ``open_one``: a chain's database, a new one if need be. What is abandoned meanwhile is missing.

    Raises:
        StorageDamaged: a database holds what does not prove itself. StorageError: it cannot be read or written.
    """
    try:
        return _bring_back(wanted, open_one)
    except StorageClosed:
        return Missing()


def _bring_back(wanted: Recover, open_one: Callable[[Chain], Storage]) -> Recovered | Missing:
    storage = open_one(wanted.electorate.chain)
    if _has_ledger(storage, wanted.rules):
        return recover(storage, wanted.rules, wanted.electorate)
    if not wanted.origins or wanted.document is None:
        return Missing()
    return open_chain(storage, wanted.rules, wanted.document, wanted.credits, wanted.origins)


def open_chain(storage: Storage, rules: Rules, document: EpochDocument, credit: Credits, origins: Sequence[Origin]) -> Recovered:
    """Open an epoch's chain, of which nothing is stored, from its origins, and store that.

    ``credit``: what each shard could have when the epoch began.

    Raises:
        StorageError: the database cannot be written.
    """
    state = open_state(rules, document, origins, credit)
    header = opening_header(document, rules.shard, state, [origin.closing for origin in origins])
    rows = ((key, encode(value)) for key, value in state.rows())
    storage.begin(Beginning(header, state.checkpoint_root()), rows, included([state], rules, state.time))
    return Recovered(state, None, (), opening=header, pledge=storage.pledge())


def _has_ledger(storage: Storage, rules: Rules) -> bool:
    return not rules.is_later or storage.beginning() is not None or storage.checkpoint() is not None


def recover(storage: Storage, rules: Rules, electorate: Electorate) -> Recovered:
    """Bring a stored ledger back.

    Raises:
        StorageDamaged: the database holds what does not prove itself, or nothing, of a chain that follows on others.
        StorageError: it cannot be read.
    """
    try:
        state, last = _checkpoint(storage, rules, electorate)
        last, slices = _replay(storage, state, last, rules, electorate)
        peaks = _peaks(storage, last) if last is not None else {}
        records = tuple(map(remembered, storage.journal()))
        beginning = storage.beginning() if last is None else None
        handed_over = storage.handed_over()
    except (ValueError, InvalidBlock) as error:
        raise StorageDamaged(storage.path, str(error)) from error
    opening = beginning.header if beginning is not None else None
    is_handed_over = handed_over is not None and handed_over.header.height == state.height
    return Recovered(state, last, records, peaks, slices, storage.first_bundles(), storage.pledge(), opening, is_handed_over)


def _checkpoint(storage: Storage, rules: Rules, electorate: Electorate) -> tuple[State, CertifiedHeader | None]:
    """The state of the last checkpoint stored, and its header."""
    stored = storage.checkpoint()
    if stored is None:
        return _height_0(storage, rules), None
    height, certified_at = stored
    proof = read_checkpoint(storage, height, certified_at)
    state = State.restore(rules, proof.header, proof.certifying.height, storage.rows(height), storage.ids)
    if not structs.replace(proof, root=state.checkpoint_root()).is_valid(electorate):
        raise DecodeError(f"the rows of checkpoint {height} are not those that block {certified_at} commits to")
    return state, CertifiedHeader(proof.header, proof.finality)


def _height_0(storage: Storage, rules: Rules) -> State:
    beginning = storage.beginning()
    if (beginning is not None) != rules.is_later:
        raise DecodeError("what the chain began with is missing, or of another one")
    if beginning is None:
        return State.genesis(rules)
    state = State.restore(rules, beginning.header, rules.checkpoint_gap(0, 0), storage.rows(0), storage.ids)
    if state.checkpoint_root() != beginning.root:
        raise DecodeError("the rows are not those that the chain began with")
    return state


def _replay(
    storage: Storage, state: State, last: CertifiedHeader | None, rules: Rules, electorate: Electorate
) -> tuple[CertifiedHeader | None, tuple[Slice, ...]]:
    """Execute the stored blocks after ``last``; returns the last one, and what they all add to checkpoints."""
    slices = []
    while blocks := storage.blocks(state.height + 1, _READ_BYTES):
        for encoded in blocks:
            certified = decode(CertifiedBlock, encoded, MAX_STORED_BYTES)
            slices.append(_execute_again(certified, last, state, rules, electorate))
            last = CertifiedHeader(certified.block.header, certified.finality)
    return last, tuple(part for part in slices if part.rows or part.certified_at is not None)


def _peaks(storage: Storage, last: CertifiedHeader) -> dict[int, bytes]:
    """The hashes that skips lead to from a block, by height: a read for each bit set in its height."""
    linked = (last.header, *read_skipped(storage, last.header))
    return {last.header.height: last.header.hash} | {skip_height(header.height): header.skip for header in linked}


def _execute_again(
    certified: CertifiedBlock, last: CertifiedHeader | None, state: State, rules: Rules, electorate: Electorate
) -> Slice:
    block, header = certified.block, certified.block.header
    if (last is not None and header.parent != last.header.hash) or not certified.is_valid(electorate):
        raise DecodeError(f"block {header.height} does not prove itself")
    return state.commit(execute_final(block, state, rules).overlay)
