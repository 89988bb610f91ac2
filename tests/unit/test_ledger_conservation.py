"""Random histories over several shards: whatever happens, no unit appears or is lost, and every shard ends the same way."""

import random

import pytest

from node.protocol.block import Outcome
from node.protocol.transaction import Action, Leg
from tests.unit.ledger_driver import COMMITTED, Ledgers

ASSETS = ("USD", "EUR")


def random_legs(ledgers: Ledgers, rng: random.Random, accounts: list[bytes]) -> list[Leg]:
    legs = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        asset = rng.choice(ASSETS)
        issuer, kind = ledgers.issuer(asset), rng.random()
        payer, payee = rng.sample(accounts, 2)
        if kind < 0.08:
            legs.append(Leg(issuer, payee, asset, 0, rng.choice([Action.FREEZE, Action.UNFREEZE, Action.UNFREEZE])))
        elif kind < 0.25:
            legs.append(Leg(issuer, payee, asset, rng.randrange(1, 500)))
        elif kind < 0.35:
            legs.append(Leg(payer, issuer, asset, rng.randrange(1, 50)))
        else:
            legs.append(Leg(payer, payee, asset, rng.randrange(1, 120)))
    return legs


def assert_conserved(ledgers: Ledgers) -> None:
    for asset in ASSETS:
        inside, issued = ledgers.supply(asset)
        assert inside + ledgers.in_flight(asset) == issued


@pytest.mark.parametrize("seed", range(8))
def test_money_is_conserved_and_all_shards_agree(seed: int) -> None:
    rng = random.Random(seed)
    ledgers = Ledgers(rng.choice([1, 2, 3, 4]), checkpoint_interval=rng.choice([1, 3, 7]))
    accounts = [ledgers.account(shard, number) for shard in ledgers.shards for number in range(3)]
    for account in accounts:
        for asset in ASSETS:
            ledgers.fund(account, 300, asset)
    homes: dict[bytes, tuple[int, set[int]]] = {}
    for _ in range(120):
        shard = rng.choice(ledgers.shards)
        transactions = []
        for _ in range(rng.randrange(4)):
            transaction = ledgers.sign(*random_legs(ledgers, rng, accounts))
            shard_of = ledgers.rules[0].shards.shard_of
            if shard_of(transaction.order.legs[0].payer) == shard:
                transactions.append(transaction)
                touched = {s for leg in transaction.order.legs for s in (shard_of(leg.payer), shard_of(leg.payee))}
                homes[transaction.id] = shard, touched
        ledgers.block(shard, *transactions, take=rng.choice([0, 1, 2, 100]))  # checks each shard's own invariant
        ledgers.now += rng.choice([0, 1, 20, 120])
        assert_conserved(ledgers)
    ledgers.settle()
    outcomes = set()
    for id, (home, touched) in homes.items():
        final = ledgers.receipts[home][id][-1].outcome
        assert final != Outcome.PREPARED
        outcomes.add(final)
        for shard in touched - {home}:
            there = [receipt.outcome for receipt in ledgers.receipts[shard].get(id, [])]
            assert there == [COMMITTED] if final == COMMITTED else COMMITTED not in there
    assert outcomes >= {Outcome.COMMITTED, Outcome.REJECTED}
    for asset in ASSETS:
        inside, issued = ledgers.supply(asset)
        assert (inside, ledgers.in_flight(asset)) == (issued, 0)
    flows = {(a, p.shard, t.asset): p for a in ledgers.shards for t in ledgers.states[a].totals().assets for p in t.peers}
    for (shard, peer, asset), flow in flows.items():
        assert (flow.exported, flow.imported) == (flows[peer, shard, asset].imported, flows[peer, shard, asset].exported)
    assert all(state.totals().pending == 0 for state in ledgers.states)
    assert all(total.held == 0 for state in ledgers.states for total in state.totals().assets)


def test_random_histories_reach_every_outcome() -> None:
    """The generator is worth something only while expiry and commits over shards happen in it."""
    rng, ledgers = random.Random(1), Ledgers(3)
    accounts = [ledgers.account(shard) for shard in ledgers.shards]
    for account in accounts:
        ledgers.fund(account, 10_000)
    for _ in range(60):
        shard = rng.choice(ledgers.shards)
        payee = rng.choice([account for account in accounts if account != accounts[shard]])
        ledgers.block(shard, ledgers.pay(accounts[shard], payee, 10), take=rng.choice([0, 1]))
        ledgers.now += 150
    ledgers.settle()
    assert_conserved(ledgers)
    seen = {receipt.outcome for receipts in ledgers.receipts for steps in receipts.values() for receipt in steps}
    assert seen == set(Outcome)
