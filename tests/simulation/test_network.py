"""Whole networks of real replicas in virtual time: payments, bad days, liars; and that the checks would notice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.protocol.address import address_of
from node.protocol.block import Outcome
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.transaction import Leg
from tests.simulation.adversaries import BEHAVIOURS, DROPPED_FOR
from tests.simulation.calm import calm_costs
from tests.simulation.clients import ISSUERS, Gateway
from tests.simulation.command import main
from tests.simulation.coordinator import LIES
from tests.simulation.faults import draw
from tests.simulation.limits import CAPS
from tests.simulation.plan import TIMINGS, Crash, LostDisk, Plan, Skew
from tests.simulation.run import simulate
from tests.simulation.world import World


def pay(payer: KeyPair, payee: KeyPair, amount: int) -> Leg:
    return Leg(address_of(payer.public), address_of(payee.public), "USD", amount)


def balance(world: World, key: KeyPair) -> int:
    address = address_of(key.public)
    node = world.committee(world.document.shards.shard_of(address))[0]
    assert node.replica is not None
    return sum(held.available for asset, held in node.replica.state.balances_of(address) if asset == "USD")


def outcome(gateway: Gateway, transaction_id: bytes) -> tuple[Outcome, Code]:
    return gateway.receipts[transaction_id].outcome, gateway.receipts[transaction_id].code


def test_payments_inside_and_across_shards_move_money_and_conserve_it() -> None:
    world = World(Plan(seed=1, transactions=()))
    world.start()
    gateway, issuer = world.gateways[0], ISSUERS["USD"]
    alice, bob, carol = (world.key_in(shard, gateway.chance) for shard in (0, 1, 0))
    assert world.run(10_000, lambda: all(node.replica is not None for node in world.nodes))
    for key in (alice, bob):
        gateway.submit([pay(issuer, key, 1_000)], [issuer], 20_000)
    assert world.run(20_000, lambda: world.time > 1_000 and world.is_done())
    paid = [
        gateway.submit([pay(alice, bob, 300)], [alice], 10_000),
        gateway.submit([pay(alice, carol, 200)], [alice], 10_000),
        gateway.submit([pay(bob, alice, 50), pay(alice, carol, 1)], [alice, bob], 10_000),
    ]
    assert world.run(30_000, world.is_done)
    assert [outcome(gateway, transaction_id) for transaction_id in paid] == [(Outcome.COMMITTED, Code.OK)] * 3
    too_much = gateway.submit([pay(carol, bob, 10_000)], [carol], 10_000)
    assert world.run(40_000, world.is_done)
    assert outcome(gateway, too_much) == (Outcome.REJECTED, Code.INSUFFICIENT_FUNDS)
    assert [balance(world, key) for key in (alice, bob, carol)] == [549, 1_250, 201]
    world.end()


@pytest.mark.parametrize("first", range(1, 31, 5))
def test_no_fault_and_no_liar_breaks_an_invariant(first: int) -> None:
    for seed in range(first, first + 5):
        assert simulate(draw(seed)).violation is None, f"scripts/simulate --first-seed {seed} --seeds 1"


@pytest.mark.parametrize("behaviour", sorted(BEHAVIOURS))
def test_one_liar_of_each_kind_in_each_committee_is_harmless(behaviour: str) -> None:
    plan = Plan(seed=7, byzantine=((1, (behaviour,)), (6, (behaviour,))), transactions=tuple(range(15)), active=5_000)
    verdict = simulate(plan)
    assert verdict.violation is None
    assert verdict.transactions > 10
    assert behaviour not in DROPPED_FOR or DROPPED_FOR[behaviour] in verdict.dropped_for


def test_a_calm_network_sends_and_checks_no_more_than_it_has_to() -> None:
    assert calm_costs() is None


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_captured_shard_makes_others_credit_what_it_has_and_nobody_elses_account_moves(seed: int) -> None:
    verdict = simulate(Plan(seed=seed, committees=3, captured=True, transactions=tuple(range(15)), active=6_000))
    assert verdict.violation is None
    assert verdict.transactions > 10


def test_one_mixed_run_in_fifty_has_a_captured_shard() -> None:
    assert [seed for seed in range(1, 101) if draw(seed).captured] == [49, 99]
    assert simulate(draw(49)).violation is None


@pytest.mark.parametrize("cap", CAPS)
def test_a_cap_that_is_reached_loses_nothing(cap: str) -> None:
    for seed, value in enumerate(CAPS[cap][1]):
        plan = Plan(seed=seed, limits={cap: value}, byzantine=((1, ("silent",)),), active=5_000)
        assert simulate(plan).violation is None


@pytest.mark.parametrize("timing", TIMINGS)
def test_messages_timed_against_the_protocol_only_take_longer(timing: str) -> None:
    assert simulate(Plan(seed=4, timing=timing, byzantine=((2, ("forged certificates",)),), active=4_000)).violation is None


def test_nothing_that_a_lying_client_submits_is_ever_in_a_block() -> None:
    assert simulate(Plan(seed=2, swindled=True, gateways=2, active=5_000)).violation is None


def test_whoever_is_asked_answers_and_says_what_is_so() -> None:
    assert simulate(Plan(seed=1, asked=True, byzantine=((2, ("silent",)),), active=5_000)).violation is None


def test_who_lost_its_votes_beside_a_liar_may_stop_its_shard_but_never_fork_it() -> None:
    for seed in range(3):
        lost = (LostDisk(900 + 800 * seed, 0, 50), LostDisk(2_500, 3, 300))
        liars = ((1, ("equivocating proposer", "double voter")),)
        assert simulate(Plan(seed=seed, faults=lost, byzantine=liars, active=4_000, is_live=False)).violation is None


def test_a_run_does_not_end_while_a_liar_alone_has_shown_a_client_the_last_block() -> None:
    assert simulate(draw(3008811)).violation is None


def test_a_network_that_cannot_form_because_disks_were_lost_meanwhile_breaks_no_invariant() -> None:
    verdict = simulate(draw(3002611))
    assert (verdict.violation, verdict.blocks) == (None, 0)


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_coordinator_changes_nobodys_seat(lie: str) -> None:
    assert simulate(Plan(seed=3, lies=(lie,), transactions=(1, 2, 3, 4, 5), active=3_000)).violation is None


def test_a_clock_minutes_off_a_lost_disk_and_a_power_cut_of_everybody_are_survived() -> None:
    everybody = tuple(range(8))
    faults = (
        Skew(500, 2, 3_000, 300_000),
        LostDisk(1_500, 5, 700),
        Crash(3_000, everybody, tuple(100 * node for node in everybody), "between two sends"),
    )
    assert simulate(Plan(seed=5, faults=faults)).violation is None


def test_more_than_f_liars_do_break_agreement() -> None:
    """The checks are alive: two of four members that lie can make a committee decide twice."""
    collusion = ("equivocating proposer", "two-faced voter")
    liars = ((0, collusion), (1, collusion))
    kinds = {simulate(Plan(seed=seed, byzantine=liars, active=3_000, settle=2_000)).kind for seed in range(1, 4)}
    assert "agreement" in kinds


def test_a_run_depends_on_nothing_but_its_seed() -> None:
    script = (
        "from tests.simulation.faults import draw\nfrom tests.simulation.run import simulate\nprint(simulate(draw(3)).digest)"
    )
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": salt}, cwd=root, capture_output=True, check=True
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_a_failing_seed_replays_shrinks_and_tells_its_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "30", "--mutant", "yes-without-hold"]) == 1
    told = capsys.readouterr().out
    assert "replays bit for bit" in told
    assert "persists" in told
    assert "sends proposal" in told
    assert "submits transaction" in told
    assert told.rstrip().splitlines()[-1].lstrip()[0].isdigit()
    assert "VIOLATION" in told.rstrip().splitlines()[-1]


def test_seeds_without_a_violation_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--first-seed", "4"]) == 0
    assert "2/2 seeds" in capsys.readouterr().out


@pytest.mark.parametrize("at", range(6, 18, 2))
def test_who_registers_and_misses_the_assignment_votes_all_the_same(at: int) -> None:
    """It cannot have voted, and knows: else it and one silent member would stop their committee for good."""
    missing = Crash(at, (0,), (2_000,), "idle")
    plan = Plan(seed=2, faults=(missing,), byzantine=((2, ("silent",)),), transactions=(1, 2, 3), active=3_000, settle=20_000)
    assert simulate(plan).violation is None
