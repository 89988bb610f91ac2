"""What certified blocks mean for the gateway's wallets and transfers. Pure: blocks in, updates out, no I/O and no clock.

A transfer is shown committed only when *every* shard it touches has applied it, so whoever is told so finds the money on all
sides. Each shard's chain is followed on its own, so the receipts of one transaction may come in any order between shards.

Transactions signed elsewhere that touch one of the wallets are found where they first appear: in their home shard's block, or
in the prepare that a participant took in - the latter only while the home shard's chain has not been followed that far,
because otherwise its verdict has been seen already and would never come again.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from node.client.blocks import ProvenBlock
from node.protocol.block import Balance, BalanceChange, Header, Outcome, Receipt
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.shards import ShardTable
from node.protocol.transaction import Leg, Order


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


@dataclass(slots=True, eq=False)
class Tracked:
    """A transaction that is not final yet. ``own``: handed in here, so kept whatever becomes of it. Times in ms."""

    id: bytes
    legs: tuple[Leg, ...]
    memo: str
    encoded: bytes
    home: int
    shards: frozenset[int]
    valid_until: int
    own: bool
    kind: str = "incoming"
    created_at: int = 0
    finalized_at: int | None = None
    status: Status = Status.QUEUED
    shown: Status = Status.QUEUED
    """What the database has of the status, so what may be told."""
    code: Code = Code.OK
    height: int | None = None
    committed: dict[int, int] = field(default_factory=dict)
    """Height of the block that committed it, by shard."""
    hint: Code = Code.OK
    """What f+1 members gave as reason not to take it now. No verdict: another member, or a later block, may take it."""
    owed: dict[tuple[bytes, str], int] = field(default_factory=dict)
    """What is still to come off verified balances of wallets here, by address and asset."""

    @property
    def is_waiting(self) -> bool:
        """Whether no block of its home shard has been seen to include it."""
        return self.status in (Status.QUEUED, Status.SUBMITTED)


@dataclass(slots=True)
class Update:
    """What changed, to be made durable in one database transaction before anyone is told."""

    last: ProvenBlock | None = None
    balances: dict[tuple[bytes, str], tuple[BalanceChange, int]] = field(default_factory=dict)
    """The last of each, and its height."""
    changes: list[tuple[BalanceChange, int, int]] = field(default_factory=list)
    """All of them, with height and block time."""
    found: list[Tracked] = field(default_factory=list)
    changed: dict[bytes, Tracked] = field(default_factory=dict)
    postings: list[Sent] = field(default_factory=list)


class Projection:
    """The wallets' addresses, the transactions under way, and how far each shard's chain has been followed.

    Attributes:
        wallets: wallet id by address; "" for one that is followed and is nobody's yet.
        active: transactions that are not final, by id.
        heights, times: of the last block followed, by shard.
        balances: of the wallets' addresses, by address and asset, as of that block.
    """

    def __init__(self) -> None:
        self.wallets: dict[bytes, str] = {}
        self.active: dict[bytes, Tracked] = {}
        self.heights: dict[int, int] = {}
        self.times: dict[int, int] = {}
        self.balances: dict[tuple[bytes, str], Balance] = {}
        self._owed: dict[tuple[bytes, str], int] = {}
        self._expiries: dict[int, list[tuple[int, bytes]]] = {}

    def track(self, tracked: Tracked) -> None:
        """Watch for the receipts of a transaction, or for the time after which none can come."""
        self.active[tracked.id] = tracked
        heapq.heappush(self._expiries.setdefault(tracked.home, []), (tracked.valid_until, tracked.id))
        if tracked.is_waiting:
            for leg in tracked.legs:
                if leg.payer in self.wallets:
                    account = (leg.payer, leg.asset)
                    tracked.owed[account] = tracked.owed.get(account, 0) + leg.amount
                    self.owe(account, leg.amount)

    def untrack(self, tracked: Tracked) -> None:
        """Forget a transaction that nobody was told of."""
        if self.active.get(tracked.id) is tracked:
            del self.active[tracked.id]
        self._pay_off(tracked)

    def owe(self, account: tuple[bytes, str], amount: int) -> None:
        """Take an amount off what an address can spend of an asset; a negative one gives it back."""
        owed = self._owed.get(account, 0) + amount
        if owed:
            self._owed[account] = owed
        else:
            self._owed.pop(account, None)

    def spendable(self, address: bytes, asset: str) -> int:
        """A wallet's verified available balance less what is owed: what transactions under way are going to take off it, and what
        is reserved. May be negative."""
        balance = self.balances.get((address, asset))
        return (balance.available if balance is not None else 0) - self._owed.get((address, asset), 0)

    def apply(self, blocks: Iterable[ProvenBlock], shards: ShardTable) -> Update:
        """Take in consecutive blocks of one shard."""
        update = Update()
        for block in blocks:
            header, effects = block.header, block.certified.effects
            found = self._find(block, shards)
            for receipt in effects.receipts:
                tracked = self.active.get(receipt.transaction_id)
                if tracked is not None and receipt.code != Code.DUPLICATE:
                    self._take(tracked, receipt, header, update)
            self._keep_found(found, header.shard, update)
            self._expire(header, update)
            for change in effects.changes.balances:
                if change.address in self.wallets:
                    update.balances[change.address, change.asset] = (change, header.height)
                    update.changes.append((change, header.height, header.time))
                    self.balances[change.address, change.asset] = change.balance
            self.heights[header.shard], self.times[header.shard] = header.height, header.time
            update.last = block
        return update

    def hint(self, transaction_id: bytes, code: Code, shard: int) -> None:
        """f+1 members of a shard's committee refuse a transaction now."""
        tracked = self.active.get(transaction_id)
        if tracked is not None and tracked.home == shard and tracked.is_waiting and code is not Code.DUPLICATE:
            tracked.hint = code

    def postings_of(self, tracked: Tracked, directions: tuple[str, ...]) -> list[Sent]:
        """The history lines of a transaction in the wallets here: ``sent``, ``received`` or both."""
        lines = []
        for index, leg in enumerate(tracked.legs):
            for direction, address, other in (("sent", leg.payer, leg.payee), ("received", leg.payee, leg.payer)):
                if direction in directions and (wallet := self.wallets.get(address)):
                    lines.append(Sent(wallet, tracked.id, index, direction, leg.asset, other))
        return lines

    def _find(self, block: ProvenBlock, shards: ShardTable) -> list[Tracked]:
        """Start tracking the block's transactions that touch a wallet here and are not known yet."""
        found = []
        unseen = (p.transaction for p in block.incoming if self.heights.get(p.source, 0) < p.height)
        for transaction in chain(block.transactions, unseen):
            if not any(leg.payer in self.wallets or leg.payee in self.wallets for leg in transaction.order.legs):
                continue
            transaction_id = transaction.id
            if transaction_id not in self.active:
                tracked = tracked_order(transaction.order, transaction_id, encode(transaction), shards, own=False)
                self.active[transaction_id] = tracked
                found.append(tracked)
        return found

    def _take(self, tracked: Tracked, receipt: Receipt, header: Header, update: Update) -> None:
        at_home = header.shard == tracked.home
        if at_home:
            tracked.height = header.height
            self._pay_off(tracked)
        if receipt.outcome == Outcome.COMMITTED:
            tracked.committed[header.shard] = header.height
            update.changed[tracked.id] = tracked
            if tracked.committed.keys() >= tracked.shards:
                self._finish(tracked, Status.COMMITTED, Code.OK, update)
                signed_here = tracked.kind == "transfer"  # then its payer's lines are there already
                update.postings += self.postings_of(tracked, ("received",) if signed_here else ("sent", "received"))
        elif at_home and receipt.outcome == Outcome.PREPARED:
            tracked.status = Status.PREPARED
            update.changed[tracked.id] = tracked
        elif at_home:  # a participant's release follows from the home shard's verdict and adds nothing to it
            status = Status.EXPIRED if receipt.outcome == Outcome.EXPIRED else Status.REJECTED
            self._finish(tracked, status, receipt.code, update)

    def _keep_found(self, found: list[Tracked], shard: int, update: Update) -> None:
        """Of what was found in this block keep what has happened or may yet; what its home shard rejected was nobody's here."""
        for tracked in found:
            if tracked.status == Status.QUEUED and shard != tracked.home:
                tracked.status = Status.PREPARED
            if tracked.status in (Status.PREPARED, Status.COMMITTED):
                update.found.append(tracked)
            else:
                self.active.pop(tracked.id, None)
                update.changed.pop(tracked.id, None)

    def _expire(self, header: Header, update: Update) -> None:
        """Block time never goes back, so past ``valid_until`` no later block of the home shard can take a transaction."""
        expiries = self._expiries.get(header.shard, [])
        while expiries and expiries[0][0] < header.time:
            tracked = self.active.get(heapq.heappop(expiries)[1])
            if tracked is None or not tracked.is_waiting or header.shard in tracked.committed:
                continue
            self._pay_off(tracked)
            self._finish(tracked, Status.EXPIRED, Code.EXPIRED, update)

    def _pay_off(self, tracked: Tracked) -> None:
        """The verified balances say by themselves now what became of it."""
        for account, amount in tracked.owed.items():
            self.owe(account, -amount)
        tracked.owed.clear()

    def _finish(self, tracked: Tracked, status: Status, code: Code, update: Update) -> None:
        tracked.status, tracked.code = status, code
        del self.active[tracked.id]
        update.changed[tracked.id] = tracked


def tracked_order(order: Order, transaction_id: bytes, encoded: bytes, shards: ShardTable, *, own: bool) -> Tracked:
    """A new order to track: its home is its first payer's shard."""
    touched = frozenset(shards.shard_of(address) for leg in order.legs for address in (leg.payer, leg.payee))
    home = shards.shard_of(order.legs[0].payer)
    return Tracked(transaction_id, order.legs, order.memo, encoded, home, touched, order.valid_until, own)
