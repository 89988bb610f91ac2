"""What certified blocks mean for the gateway's wallets and transfers. Pure: blocks and what is known in, updates out; no I/O, no
clock, and nothing is remembered from one call to the next.

A transfer is shown committed only when *every* shard it touches has applied it, so whoever is told so finds the money on all
sides. Each shard's chain is followed on its own, so the receipts of one transaction may come in any order between shards.

A transaction happens in one epoch, whole: what its shards have begun they end before the next. Which that is, its home shard's
first receipt says; as long as there is none, its home is where its first payer is kept in the latest epoch.

Transactions signed elsewhere that touch one of the wallets are found where they first appear: in their home shard's block, or
in the prepare that a participant took in - the latter only while the home shard's chain has not been followed that far,
because otherwise its verdict has been seen already and would never come again.

A transaction signed elsewhere may be handed in when blocks that speak of it have been followed already, and it was nobody's then.
The receipts of the latest blocks are kept for that: ``settle`` says what they mean.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from node.client.blocks import ProvenBlock
from node.protocol.block import BalanceChange, Header, Outcome, Receipt
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.epoch import EpochDocument
from node.protocol.transaction import Leg, Order, Transaction

Account = tuple[bytes, str]
"""Address and asset."""


class Status(StrEnum):
    """Where a transfer stands. The last three are final."""

    QUEUED = "queued"
    SUBMITTED = "submitted"
    PREPARED = "prepared"
    COMMITTED = "committed"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self in (Status.COMMITTED, Status.REJECTED, Status.EXPIRED)


class Sent(NamedTuple):
    """A history line to add: ``leg`` of a transaction, in a wallet, ``sent`` to or ``received`` from ``counterparty``."""

    wallet: str
    transaction_id: bytes
    leg: int
    direction: str
    asset: str
    counterparty: bytes


class Tracked(Struct, eq=False):
    """A transaction and where it stands. ``home``: the chain that decides on it; ``shards``: all that it touches in that epoch.
    ``own``: handed in here, so kept whatever becomes of it. Times in ms."""

    id: bytes
    legs: tuple[Leg, ...]
    memo: str
    encoded: bytes
    home: Chain
    shards: frozenset[int]
    valid_until: int
    own: bool
    kind: str = "incoming"
    created_at: int = 0
    finalized_at: int | None = None
    status: Status = Status.QUEUED
    code: Code = Code.OK
    height: int | None = None
    """Of the home shard's last receipt."""
    committed: Mapping[int, int] = {}
    """Height of the block that committed it, by shard."""
    hint: Code = Code.OK
    """What f+1 members gave as reason not to take it now."""

    @property
    def is_waiting(self) -> bool:
        """Whether no block of its home shard has been seen to include it."""
        return self.status in (Status.QUEUED, Status.SUBMITTED)

    def settle_in(self, document: EpochDocument) -> None:
        """Its home is in this epoch."""
        shard_of = document.shards.shard_of
        self.home = Chain(document.number, shard_of(self.legs[0].payer))
        self.shards = frozenset(shard_of(address) for leg in self.legs for address in (leg.payer, leg.payee))
        self.committed, self.height = {}, None

    def refused(self, code: Code, chain: Chain) -> None:
        """f+1 members of a chain's committee refuse it now. No verdict: another member, or a later block, may take it."""
        if chain == self.home and self.is_waiting and code is not Code.DUPLICATE:
            self.hint = code

    def due(self) -> dict[Account, int]:
        """What it takes off its payers' accounts."""
        owed: dict[Account, int] = {}
        for leg in self.legs:
            owed[leg.payer, leg.asset] = owed.get((leg.payer, leg.asset), 0) + leg.amount
        return owed


class Facts(NamedTuple):
    """What is known of what some blocks of a chain speak of.

    Fields:
        wallets: wallet id by address, of those that are followed here; "" for one that is nobody's yet. Also of the addresses of
            these transfers.
        transfers: transactions known here, by id.
        overdue: transactions handed in here whose home is this chain, which wait, and whose ``valid_until`` is before the last
            block's time; those signed elsewhere only once it is sure that no earlier block had them.
        heights: how far each shard's chain of this epoch has been followed.
    """

    wallets: Mapping[bytes, str]
    transfers: Mapping[bytes, Tracked]
    overdue: Sequence[Tracked]
    heights: Mapping[int, int]


class Seen(NamedTuple):
    """A receipt, and which chain's block at which height has it."""

    chain: Chain
    height: int
    receipt: Receipt


@dataclass(slots=True)
class Moves:
    """What became of transfers, to be made durable in one database transaction before anyone is told."""

    changed: dict[bytes, Tracked] = field(default_factory=dict)
    postings: list[Sent] = field(default_factory=list)
    paid_off: dict[Account, int] = field(default_factory=dict)
    """What verified balances say by themselves from now on, so that it is owed no more."""


@dataclass(slots=True, kw_only=True)
class Update(Moves):
    """What changed with some blocks of a chain, of which ``last`` is the last."""

    chain: Chain
    last: ProvenBlock
    balances: dict[Account, tuple[BalanceChange, int]] = field(default_factory=dict)
    """The last of each, and its height."""
    changes: list[tuple[BalanceChange, int, int]] = field(default_factory=list)
    """All of them, with height and block time."""
    found: list[Tracked] = field(default_factory=list)


def addresses_of(blocks: Iterable[ProvenBlock]) -> set[bytes]:
    """All that some blocks speak of: it is to be found out which of them are followed here."""
    found = set[bytes]()
    for block in blocks:
        for transaction in _transactions(block):
            for leg in transaction.order.legs:
                found.add(leg.payer)
                found.add(leg.payee)
        found.update(change.address for change in block.certified.effects.changes.balances)
    return found


def transactions_of(blocks: Iterable[ProvenBlock], wallets: Mapping[bytes, str]) -> set[bytes]:
    """Ids of all that some blocks speak of and that may concern the gateway."""
    found = set[bytes]()
    for block in blocks:
        found.update(receipt.transaction_id for receipt in block.certified.effects.receipts)
        found.update(transaction.id for transaction in _transactions(block) if touches(transaction.order, wallets))
    return found


def project(blocks: Sequence[ProvenBlock], document: EpochDocument, facts: Facts) -> Update:
    """What consecutive blocks of one chain change. ``document``: of its epoch. What ``facts`` has stays as it is."""
    return _Projection(blocks[-1], document, facts).run(blocks)


def settle(
    transfers: Iterable[Tracked], seen: Iterable[Seen], documents: Sequence[EpochDocument], wallets: Mapping[bytes, str]
) -> Moves:
    """What receipts of blocks that were followed before mean for transfers: as if these had been known then. What has been taken
    in of them already counts no more. ``seen``: of each chain in the order of its blocks. ``documents``: of all epochs."""
    reading = _Reading(transfers, wallets, Moves())
    for one in seen:
        reading.take(one.receipt, one.chain, one.height, documents[one.chain.epoch - 1])
    return reading.moves


class _Reading:
    """Takes in receipts, and says in ``moves`` what follows."""

    def __init__(self, transfers: Iterable[Tracked], wallets: Mapping[bytes, str], moves: Moves) -> None:
        self._wallets, self.moves = wallets, moves
        self._active = {one.id: copy(one) for one in transfers if not one.status.is_final}

    def take(self, receipt: Receipt, chain: Chain, height: int, document: EpochDocument) -> None:
        """``document``: of the chain's epoch."""
        tracked = self._active.get(receipt.transaction_id)
        if tracked is None or receipt.code == Code.DUPLICATE:
            return
        if tracked.home.epoch != chain.epoch:
            is_home = document.shards.shard_of(tracked.legs[0].payer) == chain.shard
            if not (is_home or tracked.is_waiting):
                return
            tracked.settle_in(document)
        at_home = chain == tracked.home
        if at_home:
            tracked.height = max(tracked.height or 0, height)
        if receipt.outcome == Outcome.COMMITTED:
            self._pay_off(tracked, {chain.shard}, document)
            tracked.committed = {**tracked.committed, chain.shard: height}
            self.moves.changed[tracked.id] = tracked
            if tracked.committed.keys() >= tracked.shards:
                self._finish(tracked, Status.COMMITTED, Code.OK)
                signed_here = tracked.kind == "transfer"  # then its payer's lines are there already
                directions = ("received",) if signed_here else ("sent", "received")
                self.moves.postings += lines_of(tracked, self._wallets, directions)
            elif at_home:
                tracked.status = Status.PREPARED
        elif at_home and receipt.outcome == Outcome.PREPARED:
            self._pay_off(tracked, {chain.shard}, document)
            tracked.status = Status.PREPARED
            self.moves.changed[tracked.id] = tracked
        elif at_home:  # a participant's release follows from the home shard's verdict and adds nothing to it
            status = Status.EXPIRED if receipt.outcome == Outcome.EXPIRED else Status.REJECTED
            self._pay_off(tracked, tracked.shards, document)
            self._finish(tracked, status, receipt.code)

    def _pay_off(self, tracked: Tracked, shards: Collection[int], document: EpochDocument) -> None:
        """The verified balances in these shards say by themselves now what became of it. To be called before its state changes,
        which says where they did before: at home since it was prepared, elsewhere since it was committed there."""
        if not tracked.own:
            return
        past = set(tracked.committed) | (set() if tracked.is_waiting else {tracked.home.shard})
        for account, units in tracked.due().items():
            shard = document.shards.shard_of(account[0])
            if shard in shards and shard not in past:
                self.moves.paid_off[account] = self.moves.paid_off.get(account, 0) + units

    def _finish(self, tracked: Tracked, status: Status, code: Code) -> None:
        tracked.status, tracked.code = status, code
        del self._active[tracked.id]
        self.moves.changed[tracked.id] = tracked


class _Projection(_Reading):
    def __init__(self, last: ProvenBlock, document: EpochDocument, facts: Facts) -> None:
        self._document, self._facts = document, facts
        self._chain = Chain(document.number, last.header.shard)
        self._source_heights = dict(facts.heights)
        self._update = Update(chain=self._chain, last=last)
        super().__init__(facts.transfers.values(), facts.wallets, self._update)

    def run(self, blocks: Sequence[ProvenBlock]) -> Update:
        for block in blocks:
            header, effects = block.header, block.certified.effects
            found = self._find(block)
            for receipt in effects.receipts:
                self.take(receipt, self._chain, header.height, self._document)
            self._keep_found(found)
            for change in effects.changes.balances:
                if change.address in self._wallets:
                    self._update.balances[change.address, change.asset] = (change, header.height)
                    self._update.changes.append((change, header.height, header.time))
            self._source_heights[header.shard] = header.height
        self._expire(blocks[-1].header)
        return self._update

    def _find(self, block: ProvenBlock) -> list[Tracked]:
        """Start tracking the block's transactions that touch a wallet here and are not known yet."""
        found = []
        unseen = (p.transaction for p in block.incoming if self._source_heights.get(p.source, 0) < p.height)
        for transaction in (*block.transactions, *unseen):
            if not touches(transaction.order, self._wallets):
                continue
            transaction_id = transaction.id
            if transaction_id not in self._active and transaction_id not in self._facts.transfers:
                tracked = tracked_order(transaction.order, transaction_id, encode(transaction), self._document, own=False)
                self._active[transaction_id] = tracked
                found.append(tracked)
        return found

    def _keep_found(self, found: list[Tracked]) -> None:
        """Of what was found in this block keep what has happened or may yet; what its home shard rejected was nobody's here."""
        for tracked in found:
            if tracked.status == Status.QUEUED and self._chain != tracked.home:
                tracked.status = Status.PREPARED
            if tracked.status in (Status.PREPARED, Status.COMMITTED):
                self._update.found.append(tracked)
            else:
                self._active.pop(tracked.id, None)
                self._update.changed.pop(tracked.id, None)

    def _expire(self, last: Header) -> None:
        """Block time never goes back, so past ``valid_until`` no later block of the home shard can take a transaction."""
        for one in self._facts.overdue:
            tracked = self._active.get(one.id) or copy(one)
            if tracked.is_waiting and one.id not in self._update.changed and tracked.valid_until < last.time:
                self._active[one.id] = tracked
                self._pay_off(tracked, tracked.shards, self._document)
                self._finish(tracked, Status.EXPIRED, Code.EXPIRED)


def lines_of(tracked: Tracked, wallets: Mapping[bytes, str], directions: tuple[str, ...]) -> list[Sent]:
    """The history lines of a transaction in some wallets: ``sent``, ``received`` or both."""
    lines = []
    for index, leg in enumerate(tracked.legs):
        for direction, address, other in (("sent", leg.payer, leg.payee), ("received", leg.payee, leg.payer)):
            if direction in directions and (wallet := wallets.get(address)):
                lines.append(Sent(wallet, tracked.id, index, direction, leg.asset, other))
    return lines


def tracked_order(order: Order, transaction_id: bytes, encoded: bytes, document: EpochDocument, *, own: bool) -> Tracked:
    """A new order to track: its home is its first payer's shard in this epoch."""
    nowhere = Chain(document.number, 0), frozenset[int]()
    tracked = Tracked(transaction_id, order.legs, order.memo, encoded, *nowhere, order.valid_until, own)
    tracked.settle_in(document)
    return tracked


def touches(order: Order, wallets: Mapping[bytes, str]) -> bool:
    """Whether a wallet here pays or is paid."""
    return any(leg.payer in wallets or leg.payee in wallets for leg in order.legs)


def _transactions(block: ProvenBlock) -> Iterable[Transaction]:
    return (*block.transactions, *(incoming.transaction for incoming in block.incoming))
