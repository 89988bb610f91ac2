"""The projection on its own: whatever order the shards' chains are seen in, a transfer ends the same way, and once."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import permutations
from typing import NamedTuple

import pytest
from msgspec import structs

from gateway.projection import (
    Account,
    Facts,
    Moves,
    Seen,
    Status,
    Tracked,
    Update,
    addresses_of,
    project,
    settle,
    tracked_order,
    transactions_of,
)
from node.client.blocks import ProvenBlock, prove_block
from node.protocol.address import address_of
from node.protocol.block import Balance, BalanceChange, Outcome, Receipt
from node.protocol.certificate import CertifiedBlock
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.transaction import Action, Transaction
from tests.chains import Network, leg

NETWORK = Network()
DOCUMENT = NETWORK.document
PAYER, PAYEE = NETWORK.person(0), NETWORK.person(1)
TIME = NETWORK.genesis.time
PAYMENT = NETWORK.pay(PAYER, PAYEE, 5, valid_until=TIME + 1000)
PREPARED, COMMITTED = Receipt(PAYMENT.id, Outcome.PREPARED), Receipt(PAYMENT.id, Outcome.COMMITTED)


def proven(certified: CertifiedBlock) -> ProvenBlock:
    block = prove_block(certified, NETWORK.document.electorates[certified.block.header.shard])
    assert block is not None
    return block


class Books:
    """What a gateway has in its database, as far as it decides on what blocks mean."""

    def __init__(self, wallets: dict[bytes, str] | None = None) -> None:
        self.wallets = wallets or {}
        self.transfers: dict[bytes, Tracked] = {}
        self.heights: dict[int, int] = {}
        self.owed: Counter[Account] = Counter()
        self.seen: list[Seen] = []

    def apply(self, blocks: list[ProvenBlock]) -> Update:
        header = blocks[-1].header
        asked = addresses_of(blocks)
        wallets = {one: wallet for one, wallet in self.wallets.items() if one in asked}
        known = {one: self.transfers[one] for one in transactions_of(blocks, wallets) if one in self.transfers}
        parties = {address for tracked in known.values() for leg in tracked.legs for address in (leg.payer, leg.payee)}
        wallets |= {one: wallet for one, wallet in self.wallets.items() if one in parties}
        waiting = [one for one in self.transfers.values() if one.own and one.is_waiting and one.home == (1, header.shard)]
        overdue = [one for one in waiting if one.valid_until < header.time]
        update = project(blocks, DOCUMENT, Facts(wallets, known, overdue, dict(self.heights)))
        self.transfers |= {one.id: one for one in update.found} | update.changed
        self.heights[header.shard] = header.height
        self.owed.subtract(update.paid_off)
        for block in blocks:
            chain, receipts = Chain(1, block.header.shard), block.certified.effects.receipts
            self.seen += [Seen(chain, block.header.height, receipt) for receipt in receipts]
        return update

    def look_back(self) -> Moves:
        """By the receipts of all blocks until now."""
        moves = settle(self.transfers.values(), self.seen, [DOCUMENT], self.wallets)
        self.transfers |= moves.changed
        self.owed.subtract(moves.paid_off)
        return moves

    def track(self, transaction: Transaction) -> Tracked:
        tracked = tracked_order(transaction.order, transaction.id, encode(transaction), DOCUMENT, own=True)
        self.transfers[tracked.id] = tracked
        self.owed.update(tracked.due())
        return tracked

    @property
    def under_way(self) -> list[Tracked]:
        return [one for one in self.transfers.values() if not one.status.is_final]


class Payment(NamedTuple):
    """A payment across shards, as the chains tell it: the two blocks of each shard that deal with it, and what was before."""

    transaction: Transaction
    before: list[ProvenBlock]
    chains: dict[int, list[ProvenBlock]]


@cache
def played(frozen: bool) -> Payment:
    """Committed, or rejected because the payee is frozen."""
    network = Network()
    network.fund(PAYER, 100)
    if frozen:
        issuer = network.issuers["USD"]
        network.shard_of(issuer).add(network.sign([issuer], leg(issuer, PAYEE, "USD", 0, Action.FREEZE)))
        network.exchange()
    before = [proven(certified) for shard in network.shards for certified in shard.chain]
    payment = network.pay(PAYER, PAYEE, 5)
    network.shards[0].add(payment)
    for shard in (1, 0, 1):
        network.shards[shard].add(bundles=network.waiting(shard))
    return Payment(payment, before, {shard.number: [proven(c) for c in shard.chain[-2:]] for shard in network.shards})


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 1, 1]))))
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("own", [True, False], ids=["own", "signed elsewhere"])
def test_in_whatever_order_it_ends_as_its_home_shard_says_and_leaves_nothing_behind(
    own: bool, frozen: bool, order: tuple[int, ...]
) -> None:
    payment, books = played(frozen), Books({address_of(PAYEE.public): "b"})
    if own:
        for block in payment.before:
            books.apply([block])
        books.wallets[address_of(PAYER.public)] = "a"
        books.track(payment.transaction)
    blocks = {shard: iter(chain) for shard, chain in payment.chains.items()}
    updates = [books.apply([next(blocks[shard])]) for shard in order]
    found, lines = [one for update in updates for one in update.found], sum(len(update.postings) for update in updates)
    assert (books.under_way, +books.owed, -books.owed) == ([], Counter(), Counter())
    assert lines == (0 if frozen else 2 if own else 1)
    if own:
        status = books.transfers[payment.transaction.id].status
        assert (status, found) == (Status.REJECTED if frozen else Status.COMMITTED, [])
    elif not frozen:
        assert [books.transfers[one.id].status for one in found] == [Status.COMMITTED]


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 1, 1]))))
@pytest.mark.parametrize("frozen", [False, True], ids=["committed", "rejected"])
def test_whenever_it_is_handed_in_and_looked_for_it_ends_as_if_it_had_been_known_before_its_blocks(
    frozen: bool, order: tuple[int, ...]
) -> None:
    payment = played(frozen)

    def story(handed_in: int, looked: int) -> tuple[Tracked, Counter[Account], int]:
        """How it ends when it comes, and is looked for, after so many of its blocks; what is owed, and lines in histories."""
        books, blocks, lines = Books(), {shard: iter(chain) for shard, chain in payment.chains.items()}, 0
        for number in range(len(order) + 1):
            if number == handed_in:
                books.wallets = {address_of(PAYER.public): "a", address_of(PAYEE.public): "b"}
                books.track(payment.transaction)
            if number == looked:
                lines += len(books.look_back().postings)
            if number < len(order):
                lines += len(books.apply([next(blocks[order[number]])]).postings)
        assert all(units == 0 for units in books.owed.values())
        return books.transfers[payment.transaction.id], books.owed, lines

    before, owed, lines = story(0, 0)
    assert before.status.is_final
    for handed_in in range(len(order) + 1):
        for looked in range(handed_in, len(order) + 1):
            tracked, *rest = story(handed_in, looked)
            assert [getattr(tracked, name) for name in STATE] == [getattr(before, name) for name in STATE]
            assert rest == [owed, lines]


STATE = ("status", "code", "home", "shards", "height", "committed")
"""Of a transfer, what follows from blocks."""
Step = tuple[Callable[[Books], object], Status, Code]


def seen(shard: int, *receipts: Receipt, time: int = 10, status: Status, code: Code = Code.OK) -> Step:
    """A shard's block ``time`` ms after the genesis, and what the payment's status is after it."""
    made = NETWORK.shards[shard]
    effects = structs.replace(made.build().execution.effects, receipts=receipts)
    block = proven(made.forge(time=TIME + time, effects=effects))
    return lambda books: books.apply([block]), status, code


@pytest.mark.parametrize(
    "steps",
    {
        "committed is not said before every shard has applied it": [
            seen(0, PREPARED, status=Status.PREPARED),
            seen(0, COMMITTED, status=Status.PREPARED),
            seen(1, COMMITTED, status=Status.COMMITTED),
        ],
        "it expires after valid_until, by no other shard's clock": [
            seen(0, time=1000, status=Status.QUEUED),
            seen(1, time=5000, status=Status.QUEUED),
            seen(0, time=1001, status=Status.EXPIRED, code=Code.EXPIRED),
        ],
        "never once prepared": [
            seen(0, PREPARED, time=1001, status=Status.PREPARED),
            seen(0, time=9999, status=Status.PREPARED),
        ],
        "a verdict that comes before all others is taken, too": [
            seen(0, COMMITTED, status=Status.PREPARED),
            seen(0, time=9999, status=Status.PREPARED),
            seen(1, COMMITTED, status=Status.COMMITTED),
        ],
        "a duplicate in a block changes nothing": [
            seen(0, PREPARED, Receipt(PAYMENT.id, Outcome.REJECTED, Code.DUPLICATE), status=Status.PREPARED),
            (lambda books: books.look_back(), Status.PREPARED, Code.OK),
        ],
    }.items(),
    ids=lambda story: story[0],
)
def test_a_transfers_status(steps: tuple[str, list[Step]]) -> None:
    books = Books()
    books.track(PAYMENT)
    for step, status, code in steps[1]:
        step(books)
        tracked = books.transfers[PAYMENT.id]
        assert (tracked.status, tracked.code) == (status, code)


@pytest.mark.parametrize("ending", ["prepared", "rejected", "committed", "expired"])
def test_what_is_under_way_is_owed_until_the_home_shard_has_said_what_became_of_it_and_then_once_no_more(ending: str) -> None:
    receipts = {
        "prepared": PREPARED,
        "committed": COMMITTED,
        "rejected": Receipt(PAYMENT.id, Outcome.REJECTED, Code.ACCOUNT_FROZEN),
    }
    payer, shard = address_of(PAYER.public), NETWORK.shards[0]
    books, effects = Books(), shard.build().execution.effects
    books.track(PAYMENT)
    books.track(NETWORK.pay(PAYER, PAYEE, 7))
    assert books.owed[payer, "USD"] == 12
    books.apply([proven(shard.forge(effects=effects, time=TIME + 10))])
    assert books.owed[payer, "USD"] == 12
    told = structs.replace(effects, receipts=(receipts[ending],) if ending in receipts else ())
    block = proven(shard.forge(effects=told, time=TIME + (1001 if ending == "expired" else 20)))
    for _ in range(2):
        books.apply([block, block])
        assert books.owed[payer, "USD"] == 7


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 1, 1]))))
@pytest.mark.parametrize("frozen", [False, True], ids=["committed", "rejected"])
def test_a_payer_elsewhere_owes_until_that_shard_has_committed_or_home_has_rejected(frozen: bool, order: tuple[int, ...]) -> None:
    books, second = Books(), NETWORK.person(1, 1)
    here, there = (address_of(PAYER.public), "USD"), (address_of(second.public), "USD")
    payment = NETWORK.sign([PAYER, second], leg(PAYER, PAYEE, "USD", 5), leg(second, PAYEE, "USD", 3))
    ending = Outcome.REJECTED if frozen else Outcome.COMMITTED
    receipts = {0: iter((Outcome.PREPARED, ending)), 1: iter((None, ending))}
    books.track(payment)
    owed, said = {here: 5, there: 3}, set[tuple[int, Outcome | None]]()
    for shard in order:
        outcome = next(receipts[shard])
        said.add((shard, outcome))
        told = () if outcome is None else (Receipt(payment.id, outcome),)
        effects = structs.replace(NETWORK.shards[shard].build().execution.effects, receipts=told)
        books.apply([proven(NETWORK.shards[shard].forge(effects=effects))])
        owed[here] = 0 if any(place == 0 for place, _ in said) else 5
        owed[there] = 0 if ((0 if frozen else 1), ending) in said else 3
        assert {account: books.owed[account] for account in owed} == owed


def test_refusals_are_hints_of_the_home_committee_while_it_waits_and_no_verdict() -> None:
    books, hints = Books(), list[Code]()
    tracked = books.track(PAYMENT)
    for code, shard in ((Code.ACCOUNT_FROZEN, 1), (Code.LIMIT_EXCEEDED, 0), (Code.DUPLICATE, 0), (Code.INSUFFICIENT_FUNDS, 0)):
        tracked.refused(code, Chain(1, shard))
        hints.append(tracked.hint)
    assert hints == [Code.OK, Code.LIMIT_EXCEEDED, Code.LIMIT_EXCEEDED, Code.INSUFFICIENT_FUNDS]
    assert tracked.status is Status.QUEUED
    seen(0, PREPARED, status=Status.PREPARED)[0](books)
    prepared = books.transfers[PAYMENT.id]
    prepared.refused(Code.ACCOUNT_FROZEN, Chain(1, 0))
    assert prepared.hint is Code.INSUFFICIENT_FUNDS


def test_what_is_known_is_left_as_it_is_so_that_a_block_can_be_looked_at_twice() -> None:
    books, shard = Books(), NETWORK.shards[0]
    tracked = books.track(PAYMENT)
    effects = structs.replace(shard.build().execution.effects, receipts=(COMMITTED,))
    books.apply([proven(shard.forge(effects=effects))])
    assert (tracked.status, tracked.committed, tracked.height) == (Status.QUEUED, {}, None)


def test_what_a_captured_committee_certifies_is_survived_and_leaves_nothing_behind() -> None:
    books, shard = Books({address_of(PAYEE.public): "b"}), NETWORK.shards[0]
    undecided = proven(shard.forge(transactions=[encode(PAYMENT)]))
    assert books.apply([undecided]).found == []
    assert books.under_way == []
    books.track(PAYMENT)
    effects = shard.build().execution.effects
    fortune = BalanceChange(address_of(PAYEE.public), "NONSENSE", Balance(2**63 - 1, 2**63 - 1))
    strange = (Receipt(PAYMENT.id, Outcome.EXPIRED), Receipt(bytes(32), Outcome.COMMITTED))
    changes = structs.replace(effects.changes, balances=(fortune, fortune))
    effects = structs.replace(effects, receipts=(COMMITTED, PREPARED, COMMITTED, *strange), changes=changes)
    nonsense = shard.forge(effects=effects, transactions=[encode(PAYMENT)] * 3 + [b"?"], bundles=[b"?"], time=2**53)
    books.apply([proven(nonsense)] * 2)
    assert (books.under_way, +books.owed) == ([], Counter())
