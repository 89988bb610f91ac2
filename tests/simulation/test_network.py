"""Payments through whole networks of replicas, in one process and virtual time."""

import pytest

from tests.simulation.network import ISSUER, Faults, Network


def test_payments_inside_and_across_shards_commit_and_conserve_money() -> None:
    network = Network(1, committees=2, size=4)
    network.start()
    alice, bob, carol = network.key_in(0), network.key_in(1), network.key_in(0)
    network.run(500)
    mints = [network.pay((ISSUER, alice, 1_000)), network.pay((ISSUER, bob, 500))]
    assert network.run(20_000, lambda: all(network.outcome(id) == "committed" for id in mints))
    assert network.run(30_000, lambda: network.balance(alice) == 1_000 and network.balance(bob) == 500)
    paid = [
        network.pay((alice, bob, 300)),
        network.pay((alice, carol, 200)),
        network.pay((bob, alice, 50), (alice, carol, 1)),
    ]
    assert network.run(40_000, lambda: all(network.outcome(id) == "committed" for id in paid))
    too_much = network.pay((carol, bob, 10_000))
    assert network.run(60_000, lambda: network.outcome(too_much) == "rejected")
    assert network.codes[too_much] == "insufficient_funds"
    network.run(network.time + 3_000)
    assert [network.balance(key) for key in (alice, bob, carol)] == [549, 750, 201]
    network.check_conservation(1_500)


@pytest.mark.parametrize("seed", range(20))
def test_whole_network_survives_faults_and_decides_everything(seed: int) -> None:
    faults = Faults(delay=(1, 30), tail=0.02, loss=0.03, duplication=0.05)
    network = Network(seed, committees=2, size=4, faults=faults, commit_timeout=15_000, checkpoint_interval=5)
    chance = network.random
    network.start()
    keys = [network.key_in(chance.randrange(2)) for _ in range(6)]
    network.run(1_000)
    submitted = [network.pay((ISSUER, key, 1_000)) for key in keys]
    for _ in range(40):
        network.run(network.time + chance.randint(0, 400))
        payer, payee = chance.sample(keys, 2)
        submitted.append(network.pay((payer, payee, chance.randint(1, 600))))
        if chance.random() < 0.2:
            node = chance.choice(network.nodes)
            if node.replica is not None:
                node.crash()
                network.after(chance.randint(100, 5_000), node.start)
        if chance.random() < 0.04:
            for node in network.nodes:
                if node.replica is not None:
                    node.crash()
                    network.after(chance.randint(100, 3_000), node.start)
    network.faults = Faults()
    network.run(network.time + 10_000)
    # a transaction that reached nobody alive is nobody's; whatever a chain took up must have been decided
    assert network.run(network.time + 90_000, lambda: all(network.outcome(id) != "prepared" for id in submitted))
    network.run(network.time + 20_000)
    minted = sum(1_000 for id in submitted[: len(keys)] if network.outcome(id) == "committed")
    network.check_conservation(minted)
    for shard in network.chains:
        heads = {(r.state.height, r.state.state_root) for n in network.committee(shard) if (r := n.replica)}
        assert max(h for h, _ in heads) - min(h for h, _ in heads) <= 2
    assert min(len(chain) for chain in network.chains.values()) > 20
