"""Executing a block: the transition from one state to the next. Deterministic; the parent stays as it is.

In this order: the bundles from other shards, record by record; what waited to be covered and is now; what is due; the
transactions; what the register writes down; what follows for the change of epochs; then the figures that others are told. A
transaction that turns out impossible is included all the same, with a receipt that says why, and cannot be included again. What
no honest proposer would include makes the whole block invalid. So does anything at all once the chain is closed.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter

from node.ledger import bulkhead, channels, rows
from node.ledger.admission import is_funded, screen
from node.ledger.rules import Rules
from node.ledger.settlement import Settlement, is_closed
from node.ledger.state import Overlay, State
from node.ledger.totals import totals_after
from node.ledger.transfer import apply, pay, reserve, routed, shards_of
from node.ledger.two_phase_commit import TwoPhaseCommit
from node.protocol import merkle
from node.protocol.block import BalanceChange, Changes, Effects, Header, Outcome, Receipt, payload_root
from node.protocol.channel import Bundle
from node.protocol.checkpoint import next_state_root
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, digest
from node.protocol.entries import Entry
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_BLOCK_ENTRIES
from node.protocol.transaction import Transaction

_OK = Code.OK
_ROOTS = ("receipts_root", "outbox_root", "changes_hash", "totals_hash", "change_hash", "state_root")
_COMMITTED, _REJECTED = Outcome.COMMITTED, Outcome.REJECTED


class InvalidBlock(ValueError):
    """The block breaks a rule that every honest proposer keeps."""


class Execution:
    """An executed block: its effects, the roots for its header, and the state after it.

    Attributes:
        overlay: the state after the block; read it, or execute the next block on it.
        outbox: at most one bundle for each other shard, in the order of the shards.
        receipts_root, outbox_root, changes_hash, totals_hash, change_hash, state_root: as in ``Header``.
    """

    __slots__ = (
        "change_hash",
        "changes_hash",
        "effects",
        "height",
        "outbox",
        "outbox_root",
        "overlay",
        "receipts_root",
        "state_root",
        "time",
        "totals_hash",
    )

    def __init__(self, overlay: Overlay, receipts: Sequence[Receipt], outbox: tuple[Bundle, ...]) -> None:
        changes = _changes(overlay)
        totals = totals_after(overlay)
        self.height, self.time = overlay.height, overlay.time
        self.outbox = outbox
        self.outbox_root = merkle.root([encode(bundle) for bundle in outbox])
        self.effects = Effects(tuple(receipts), changes, totals)
        self.receipts_root = merkle.root([encode(receipt) for receipt in receipts])
        self.changes_hash = changes.hash()
        self.totals_hash = totals.hash()
        self.change_hash = overlay.change.hash
        checkpoint = b""
        if overlay.height == overlay.next_checkpoint:
            checkpoint = overlay.checkpoint_state_root + overlay.checkpoint_root()
        self.state_root = next_state_root(overlay.state_root, self.changes_hash, checkpoint)
        overlay.close(self.state_root, totals)
        self.overlay = overlay

    def gives(self, header: Header) -> bool:
        """Whether the roots are those that the header commits to."""
        return all(getattr(self, root) == getattr(header, root) for root in _ROOTS)


def genesis_header(genesis: Genesis, shard: int, state: State) -> Header:
    """The header at height 0: nobody signs it, everybody computes it."""
    return Header(
        document=ZERO_HASH,
        shard=shard,
        view=0,
        height=0,
        parent=genesis.hash,
        skip=bytes(32),
        time=state.time,
        proposer=0,
        payload_root=payload_root((), ()),
        receipts_root=merkle.EMPTY_ROOT,
        outbox_root=merkle.EMPTY_ROOT,
        changes_hash=bytes(32),
        totals_hash=state.totals().hash(),
        change_hash=state.change.hash,
        state_root=state.state_root,
        nonce=bytes(8),
    )


def execute(
    parent: State | Overlay,
    rules: Rules,
    height: int,
    time: int,
    bundles: Sequence[Bundle],
    transactions: Sequence[tuple[bytes, Transaction]],
    has_valid_signatures: Callable[[Transaction], bool],
    entries: Sequence[Entry] = (),
) -> Execution:
    """Execute the block at ``height`` with block time ``time`` (ms) on ``parent``.

    ``transactions``: with their ids, statically valid, signatures checked. ``has_valid_signatures`` is asked for transactions
    that other shards prepare here, cut down to the witnesses this shard relies on (``two_phase_commit.relied_on``); its answer
    must depend on nothing else.

    Raises:
        InvalidBlock: height or time do not follow the parent's, a bundle is not the next of its channel, or a transaction is not
            admissible (``admit``) when its turn comes. A payer that had something before the block is funded in all of it.
            Or it begins a payment across shards, but the parent is settling; or an entry is not admissible (``written``); or it
            is not empty, but the chain is closed.
    """
    if height != parent.height + 1:
        raise InvalidBlock(f"height {height} after {parent.height}")
    if time < parent.time:
        raise InvalidBlock(f"block time {time} before the parent's {parent.time}")
    overlay = Overlay(parent, height, time)
    if is_closed(parent):
        if bundles or transactions or entries:
            raise InvalidBlock("the chain is closed")
        return Execution(overlay, (), ())
    outbox = channels.Outbox()
    receipts: list[Receipt] = []
    settlement = Settlement(overlay, rules, outbox)
    commits = TwoPhaseCommit(overlay, rules, receipts, outbox, has_valid_signatures, settlement)
    _take_in(commits, bundles)
    commits.look_again()
    commits.wake()
    for transaction_id, transaction in transactions:
        code = screen(overlay, rules, transaction_id, transaction, time)
        if code is not _OK:
            raise InvalidBlock(f"transaction {transaction_id.hex()}: {code}")
        overlay.seen[transaction_id] = transaction.order.valid_until
        _carry_out(commits, transaction_id, transaction)
        legs = transaction.order.legs  # whose payers could pay are funded; others may have spent it earlier in this block
        if receipts[-1].outcome is _REJECTED and not (is_funded(overlay, rules, legs) or is_funded(parent, rules, legs)):
            raise InvalidBlock(f"transaction {transaction_id.hex()}: {Code.INSUFFICIENT_FUNDS}")
    _write_down(settlement, entries)
    settlement.advance(len(transactions))
    bulkhead.tell(overlay, rules, outbox)
    overlay.note_included()
    return Execution(overlay, receipts, outbox.close(overlay))


def _take_in(commits: TwoPhaseCommit, bundles: Sequence[Bundle]) -> None:
    for bundle in bundles:
        if problem := channels.misfit(commits.overlay, commits.rules, bundle):
            raise InvalidBlock(problem)
        channels.advance(commits.overlay, bundle)
        for record in bundle.records:
            commits.receive(bundle.source, record)


def _carry_out(commits: TwoPhaseCommit, transaction_id: bytes, transaction: Transaction) -> None:
    """A transaction inside this shard, at once; one that touches others begins."""
    overlay, rules, legs = commits.overlay, commits.rules, transaction.order.legs
    code = pay(overlay, rules, legs[0]) if len(legs) == 1 else None
    if code is None:
        routes = routed(rules, legs)
        if shards_of(routes) != {rules.shard}:
            if not commits.settlement.may_begin:
                raise InvalidBlock(f"transaction {transaction_id.hex()} begins across shards while they settle")
            commits.begin(transaction_id, transaction, routes)
            return
        code = reserve(overlay, rules, routes)
        if code is _OK:
            apply(overlay, rules, routes, rules.shard)
    commits.receipts.append(Receipt(transaction_id, _REJECTED, code) if code else Receipt(transaction_id, _COMMITTED))


def _write_down(settlement: Settlement, entries: Sequence[Entry]) -> None:
    if len(entries) > MAX_BLOCK_ENTRIES:
        raise InvalidBlock(f"{len(entries)} entries")
    for entry in entries:
        if not settlement.write(entry):
            raise InvalidBlock(f"an entry that is not admissible: {type(entry).__name__}")


def _changes(overlay: Overlay) -> Changes:
    """Every row the block touched: balances by address and asset; of the other records the hash, None for those deleted."""
    codes = {suffix: code for code, suffix in overlay.rules.suffixes.items()}
    size = rows.NAME_BYTES
    balances = tuple(
        [
            BalanceChange(key[:size], codes[key[size:]], balance)
            for key, balance in sorted(overlay.balances.items(), key=itemgetter(0))
        ]
    )
    return Changes(balances, digest("records", encode(sorted(overlay.records.items(), key=itemgetter(0)))))
