"""``scripts/chaos`` for a quarter of a minute: what it says of a live network under faults, and that it leaves nothing behind."""

import json
import signal
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock, call

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lease import DURATION
from scripts.devnet.customer import Purse
from scripts.devnet.layout import ROOT, Folder
from scripts.devnet.processes import marked
from scripts.havoc.faults import Saboteur
from scripts.havoc.load import FUNDS, Load, Payment
from scripts.havoc.plan import KINDS, LOSING, SEVERE, Fault, episodes
from scripts.havoc.verdict import check_payments, expected_balances, longest_pause
from tests.processes import free_port_base
from tests.waiting import until

COMMAND = [sys.executable, "-m", "scripts.havoc.run"]
FAULTS = "damage,broker,gateway,blackout"
SEED = 1
"""First of all every process dies at once."""
SECONDS = 240
"""More than a busy machine needs."""


def test_random_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    plan = ["--minutes", "0.25", "--seed", str(SEED), "--faults", FAULTS, "--gateways", "2"]
    place = ["--port-base", str(free_port_base()), "--data", str(tmp_path)]
    done = subprocess.run([*COMMAND, "--json", *plan, *place], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["passed"]
    assert result["violations"] == []
    assert result["episodes"][0]["did"][0].startswith("kill -9 every process")
    assert all(episode["recovered_after"] is not None for episode in result["episodes"])
    payments = result["payments"]
    assert payments["committed"] > 50
    assert payments["taken"] == payments["committed"] + payments["rejected"] + payments["expired"]
    assert result["audit"]["conserved"]
    assert set(result["states"]) == {"0", "1"}
    assert result["balances"] == {"wallets": 8, "answers_of_nodes": 32}
    assert marked(Folder(tmp_path)) == []


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    arguments = ["--minutes", "5", "--without", "clock", "--port-base", str(free_port_base()), "--data", str(tmp_path)]
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as chaos:
        until(lambda: chaos.poll() is not None or len(marked(Folder(tmp_path))) >= 8, "all nodes run", within=60)
        assert chaos.poll() is None
        chaos.send_signal(signal.SIGINT)
        output, _ = chaos.communicate(timeout=30)
    assert (chaos.returncode, output) == (130, b"")
    assert marked(Folder(tmp_path)) == []


@given(st.integers(0, 2**32))
def test_a_seed_draws_each_kind_and_bears_no_more_than_f_faults_in_a_committee(seed: int) -> None:
    committees, size, f = 3, 7, 2
    drawn = list(islice(episodes(seed, committees, size, KINDS), len(KINDS)))
    assert drawn == list(islice(episodes(seed, committees, size, KINDS), len(KINDS)))
    assert {episode.faults[0].kind for episode in drawn} == set(KINDS)
    for episode in drawn:
        if any(fault.kind in SEVERE for fault in episode.faults):
            assert len(episode.faults) == 1
            continue
        hit = Counter(shard for fault in episode.faults for shard, _ in fault.nodes)
        assert all(count <= f for count in hit.values())
        assert all(len(set(fault.nodes)) == len(fault.nodes) for fault in episode.faults)


@pytest.mark.parametrize("kind", ["gateway", "stall"])
def test_any_of_several_gateways_is_hit_and_nothing_else(kind: str) -> None:
    network = SimpleNamespace(devnet=SimpleNamespace(gateway_names=["gateway", "gateway-2", "gateway-3"]), send=Mock())
    saboteur = Saboteur(cast(Any, network), cast(Any, None), None, Mock())
    faults = [Fault(kind, 0.0, 1.0, (), detail) for detail in range(30)]
    assert {name for fault in faults for name in saboteur.victims(fault)} == set(network.devnet.gateway_names)
    assert all(len(saboteur.victims(fault)) == 1 for fault in faults)


def test_a_gateway_that_is_stalled_goes_on_afterwards() -> None:
    network = SimpleNamespace(devnet=SimpleNamespace(gateway_names=["gateway"]), send=Mock())
    saboteur, fault = Saboteur(cast(Any, network), cast(Any, None), None, Mock()), Fault("stall", 0.0, 5.0, (), 1)
    saboteur.begin(fault, ["gateway"])
    saboteur.end(fault, ["gateway"])
    assert network.send.call_args_list == [call(["gateway"], signal.SIGSTOP), call(["gateway"], signal.SIGCONT)]
    assert all(fault.seconds > DURATION for episode in islice(episodes(1, 2, 4, {"stall"}), 20) for fault in episode.faults)


@given(st.integers(0, 2**32), st.sampled_from([1, 4, 7]))
def test_no_more_than_f_members_of_a_committee_ever_lose_their_votes(seed: int, size: int) -> None:
    drawn = islice(episodes(seed, 2, size, KINDS), 6 * len(KINDS))
    losing = {seat for episode in drawn for fault in episode.faults if fault.kind in LOSING for seat in fault.nodes}
    hit = Counter(shard for shard, _ in losing)
    assert all(count <= (size - 1) // 3 for count in hit.values())
    assert bool(losing) is (size >= 4)


@pytest.mark.parametrize(
    ("views", "odd", "wrong"),
    [
        ({"t": {"status": "committed"}}, [], ""),
        ({}, [], "payments lost: 1"),
        ({"t": {"status": "prepared"}}, [], "payments not decided: 1"),
        ({"t": {"status": "rejected"}}, [], "once committed, now something else: 1"),
        ({"t": {"status": "committed"}}, ["u"], "nobody sent, or twice in a history: 1"),
    ],
)
def test_what_must_not_be_is_found(views: dict[str, Any], odd: list[str], wrong: str) -> None:
    a, b = Purse("a", "spay1a", 0), Purse("b", "spay1b", 1)
    taken = {"t": Payment(a, b, 5, "key", 0.0)}
    customers = cast(Load, SimpleNamespace(customers=[SimpleNamespace(wallets=[a, b])], taken=taken, committed={"t"}, wrong=[]))
    said = check_payments(customers, views, odd)
    assert (wrong in said[0]) if wrong else said == []
    paid = 5 if views.get("t", {}).get("status") == "committed" else 0
    assert list(expected_balances(customers, views).values()) == [FUNDS - paid, FUNDS + paid]


def test_the_longest_pause_is_that_of_the_worst_shard() -> None:
    assert longest_pause({0: [1.0, 2.0, 3.0], 1: [1.0, 2.5]}, 0.5, 4.0) == 1.5
    assert longest_pause({}, 0.0, 4.0) == 4.0
