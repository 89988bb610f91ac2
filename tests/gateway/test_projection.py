"""The projection on its own: whatever order the shards' chains are seen in, a transfer ends the same way, and once."""

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


def block(shard: int, height: int, *receipts: Receipt, time: int = 10) -> ProvenBlock:
    """An empty block, ``time`` ms after the genesis, in which these receipts are."""
    made = NETWORK.shards[shard]
    effects = structs.replace(made.build().execution.effects, receipts=receipts)
    return proven(made.forge(height=height, time=TIME + time, effects=effects))


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


INTERLEAVINGS = sorted(set(permutations([0, 0, 1, 1])))


def follow(projection: Projection, interleaving: tuple[int, ...], payment: Payment) -> tuple[list[Tracked], int]:
    """Apply both chains in an interleaving: what was found, and how many history lines that made."""
    blocks = {shard: iter(chain) for shard, chain in payment.chains.items()}
    found, lines = [], 0
    for shard in interleaving:
        update = projection.apply([next(blocks[shard])], SHARDS)
        found += update.found
        lines += len(update.postings)
    return found, lines


def track(projection: Projection, transaction: Transaction) -> Tracked:
    tracked = tracked_order(transaction.order, transaction.id, encode(transaction), SHARDS, own=True)
    projection.track(tracked)
    return tracked


def status_of(tracked: Tracked) -> Status:
    return tracked.status


@pytest.mark.parametrize("interleaving", INTERLEAVINGS)
@pytest.mark.parametrize("frozen", [False, True])
def test_an_own_transfer_ends_as_its_home_shard_says(interleaving: tuple[int, ...], frozen: bool) -> None:
    payment, projection = played(frozen), Projection()
    projection.apply(payment.before, SHARDS)
    projection.wallets = {address_of(PAYER.public): "a", address_of(PAYEE.public): "b"}
    tracked = track(projection, payment.transaction)
    found, lines = follow(projection, interleaving, payment)
    assert (tracked.status, lines) == ((Status.REJECTED, 0) if frozen else (Status.COMMITTED, 2))
    assert (found, projection.active) == ([], {})


@pytest.mark.parametrize("interleaving", INTERLEAVINGS)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_payment_signed_elsewhere_is_found_once_and_nothing_is_left_behind(interleaving: tuple[int, ...], frozen: bool) -> None:
    payment, projection = played(frozen), Projection()
    projection.apply(payment.before, SHARDS)
    projection.wallets = {address_of(PAYEE.public): "b"}
    found, lines = follow(projection, interleaving, payment)
    assert lines == (0 if frozen else 1)
    assert projection.active == {}
    if not frozen:
        assert [tracked.status for tracked in found] == [Status.COMMITTED]


def test_committed_is_not_said_before_every_shard_has_applied_it() -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    projection.apply([block(0, 1, PREPARED), block(0, 2, COMMITTED)], SHARDS)
    assert status_of(tracked) == Status.PREPARED
    projection.apply([block(1, 1, COMMITTED)], SHARDS)
    assert status_of(tracked) == Status.COMMITTED


def test_a_transfer_expires_only_after_valid_until_and_never_once_prepared() -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    projection.apply([block(0, 1, time=1000), block(1, 1, time=5000)], SHARDS)
    assert status_of(tracked) == Status.QUEUED, "neither at that time nor by another shard's clock"
    projection.apply([block(0, 2, PREPARED, time=1001)], SHARDS)
    assert status_of(tracked) == Status.PREPARED
    projection.apply([block(0, 3, time=9999)], SHARDS)
    assert tracked.status == Status.PREPARED

    projection = Projection()
    other = track(projection, PAYMENT)
    projection.apply([block(0, 1, time=1001)], SHARDS)
    assert (other.status, other.code) == (Status.EXPIRED, Code.EXPIRED)


def test_only_the_home_committees_lasting_refusal_is_a_verdict() -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    assert projection.refuse(PAYMENT.id, Code.UNKNOWN_ASSET, 1) is None
    assert projection.refuse(PAYMENT.id, Code.INSUFFICIENT_FUNDS, 0) is None
    assert status_of(tracked) == Status.QUEUED
    assert projection.refuse(PAYMENT.id, Code.UNKNOWN_ASSET, 0) is not None
    assert (tracked.status, tracked.code) == (Status.REJECTED, Code.UNKNOWN_ASSET)


def test_what_members_gave_as_reason_is_told_when_it_expires() -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    projection.refuse(PAYMENT.id, Code.ACCOUNT_FROZEN, 0)
    projection.apply([block(0, 1, time=1001)], SHARDS)
    assert (tracked.status, tracked.code) == (Status.REJECTED, Code.ACCOUNT_FROZEN)


def test_a_duplicate_in_a_block_changes_nothing() -> None:
    projection = Projection()
    tracked = track(projection, PAYMENT)
    projection.apply([block(0, 1, PREPARED, Receipt(PAYMENT.id, Outcome.REJECTED, Code.DUPLICATE))], SHARDS)
    assert tracked.status == Status.PREPARED


def test_contradictory_receipts_of_a_captured_committee_are_survived() -> None:
    projection = Projection()
    projection.wallets = {address_of(PAYEE.public): "b"}
    track(projection, PAYMENT)
    shard = NETWORK.shards[0]
    effects = shard.build().execution.effects
    fortune = BalanceChange(address_of(PAYEE.public), "NONSENSE", Balance(2**63 - 1, 2**63 - 1))
    effects = structs.replace(
        effects,
        receipts=(COMMITTED, PREPARED, COMMITTED, Receipt(PAYMENT.id, Outcome.EXPIRED), Receipt(bytes(32), Outcome.COMMITTED)),
        changes=structs.replace(effects.changes, balances=(fortune, fortune)),
    )
    nonsense = shard.forge(effects=effects, transactions=[encode(PAYMENT)] * 3 + [b"?"], bundles=[b"?"], time=2**53)
    update = projection.apply([proven(nonsense)] * 2, SHARDS)
    assert update.last is not None
    assert projection.active == {}
