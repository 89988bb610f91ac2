"""The projection on its own: whatever order the shards' chains are seen in, a transfer ends the same way, and once."""

from collections.abc import Callable
from functools import cache
from itertools import permutations
from typing import NamedTuple

import pytest
from msgspec import structs

from gateway.projection import Projection, Status, Tracked, tracked_order
from node.client.blocks import ProvenBlock, prove_block
from node.protocol.address import address_of
from node.protocol.block import Balance, BalanceChange, Outcome, Receipt
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.transaction import Action, Transaction
from tests.chains import Network, leg

NETWORK = Network()
SHARDS = NETWORK.document.shards
PAYER, PAYEE = NETWORK.person(0), NETWORK.person(1)
TIME = NETWORK.genesis.time
PAYMENT = NETWORK.pay(PAYER, PAYEE, 5, valid_until=TIME + 1000)
PREPARED, COMMITTED = Receipt(PAYMENT.id, Outcome.PREPARED), Receipt(PAYMENT.id, Outcome.COMMITTED)


def proven(certified: CertifiedBlock) -> ProvenBlock:
    block = prove_block(certified, NETWORK.document.electorates[certified.block.header.shard])
    assert block is not None
    return block


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
    payment, projection = played(frozen), Projection()
    projection.wallets = {address_of(PAYEE.public): "b"}
    if own:
        projection.apply(payment.before, SHARDS)
        projection.wallets[address_of(PAYER.public)] = "a"
        tracked = track(projection, payment.transaction)
    blocks = {shard: iter(chain) for shard, chain in payment.chains.items()}
    updates = [projection.apply([next(blocks[shard])], SHARDS) for shard in order]
    found, lines = [one for update in updates for one in update.found], sum(len(update.postings) for update in updates)
    assert projection.active == {}
    assert lines == (0 if frozen else 2 if own else 1)
    if own:
        assert (tracked.status, found) == (Status.REJECTED if frozen else Status.COMMITTED, [])
    elif not frozen:
        assert [one.status for one in found] == [Status.COMMITTED]


def track(projection: Projection, transaction: Transaction) -> Tracked:
    tracked = tracked_order(transaction.order, transaction.id, encode(transaction), SHARDS, own=True)
    projection.track(tracked)
    return tracked


Step = tuple[Callable[[Projection], object], Status, Code]


def seen(shard: int, *receipts: Receipt, time: int = 10, status: Status, code: Code = Code.OK) -> Step:
    """A shard's block ``time`` ms after the genesis, and what the payment's status is after it."""
    made = NETWORK.shards[shard]
    effects = structs.replace(made.build().execution.effects, receipts=receipts)
    block = proven(made.forge(time=TIME + time, effects=effects))
    return lambda projection: projection.apply([block], SHARDS), status, code


def refused(reason: Code, shard: int = 0) -> Step:
    return lambda projection: projection.hint(PAYMENT.id, reason, shard), Status.QUEUED, Code.OK


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
        "no refusal is a verdict": [
            *map(refused, Code),
            seen(0, PREPARED, status=Status.PREPARED),
            seen(0, COMMITTED, status=Status.PREPARED),
            seen(1, COMMITTED, status=Status.COMMITTED),
        ],
        "it expires with the same code, whatever was refused": [
            refused(Code.INSUFFICIENT_FUNDS),
            seen(0, time=1001, status=Status.EXPIRED, code=Code.EXPIRED),
        ],
        "a duplicate in a block changes nothing": [
            seen(0, PREPARED, Receipt(PAYMENT.id, Outcome.REJECTED, Code.DUPLICATE), status=Status.PREPARED),
        ],
    }.items(),
    ids=lambda story: story[0],
)
def test_a_transfers_status(steps: tuple[str, list[Step]]) -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    for step, status, code in steps[1]:
        step(projection)
        assert (tracked.status, tracked.code) == (status, code)


def test_the_hint_is_what_the_home_committee_said_last() -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    hints = []
    for code, shard in ((Code.ACCOUNT_FROZEN, 1), (Code.LIMIT_EXCEEDED, 0), (Code.DUPLICATE, 0), (Code.INSUFFICIENT_FUNDS, 0)):
        projection.hint(PAYMENT.id, code, shard)
        hints.append(tracked.hint)
    assert hints == [Code.OK, Code.LIMIT_EXCEEDED, Code.LIMIT_EXCEEDED, Code.INSUFFICIENT_FUNDS]


@pytest.mark.parametrize("ending", ["prepared", "rejected", "expired", "withdrawn"])
def test_what_is_under_way_is_off_the_balance_until_the_chain_has_said_what_became_of_it(ending: str) -> None:
    payer, shard = address_of(PAYER.public), NETWORK.shards[0]
    rich = BalanceChange(payer, "USD", Balance(100, 0))
    effects = shard.build().execution.effects
    changes = structs.replace(effects.changes, balances=(rich,))
    projection = Projection()
    projection.wallets = {payer: "a"}
    projection.apply([proven(shard.forge(effects=structs.replace(effects, changes=changes)))], SHARDS)
    assert (projection.spendable(payer, "USD"), projection.spendable(payer, "VND")) == (100, 0)
    tracked = track(projection, PAYMENT)
    assert projection.spendable(payer, "USD") == 95
    if ending == "withdrawn":
        projection.untrack(tracked)
        projection.untrack(tracked)
    else:
        receipts = {"prepared": (PREPARED,), "rejected": (Receipt(PAYMENT.id, Outcome.REJECTED, Code.ACCOUNT_FROZEN),)}
        held = BalanceChange(payer, "USD", Balance(95, 5) if ending == "prepared" else Balance(100, 0))
        found = structs.replace(effects, changes=structs.replace(changes, balances=(held,)), receipts=receipts.get(ending, ()))
        projection.apply([proven(shard.forge(effects=found, time=TIME + (1001 if ending == "expired" else 10)))], SHARDS)
    assert projection.spendable(payer, "USD") == (95 if ending == "prepared" else 100)


def test_what_was_taken_in_before_its_payer_had_a_wallet_here_is_not_taken_off_what_others_pay() -> None:
    payer, projection = address_of(PAYER.public), Projection()
    early = track(projection, PAYMENT)
    projection.wallets = {payer: "a"}
    assert projection.spendable(payer, "USD") == 0
    track(projection, NETWORK.pay(PAYER, PAYEE, 7))
    projection.untrack(early)
    assert projection.spendable(payer, "USD") == -7


def test_what_a_captured_committee_certifies_is_survived_and_leaves_nothing_behind() -> None:
    projection, shard = Projection(), NETWORK.shards[0]
    projection.wallets = {address_of(PAYEE.public): "b"}
    undecided = proven(shard.forge(transactions=[encode(PAYMENT)]))
    assert projection.apply([undecided], SHARDS).found == []
    assert projection.active == {}
    track(projection, PAYMENT)
    effects = shard.build().execution.effects
    fortune = BalanceChange(address_of(PAYEE.public), "NONSENSE", Balance(2**63 - 1, 2**63 - 1))
    strange = (Receipt(PAYMENT.id, Outcome.EXPIRED), Receipt(bytes(32), Outcome.COMMITTED))
    changes = structs.replace(effects.changes, balances=(fortune, fortune))
    effects = structs.replace(effects, receipts=(COMMITTED, PREPARED, COMMITTED, *strange), changes=changes)
    nonsense = shard.forge(effects=effects, transactions=[encode(PAYMENT)] * 3 + [b"?"], bundles=[b"?"], time=2**53)
    assert projection.apply([proven(nonsense)] * 2, SHARDS).last is not None
    assert projection.active == {}
