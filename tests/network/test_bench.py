"""The bench on a network that runs."""

from typing import Any

import pytest

from scripts.benchmark import engine, gateway, turns
from scripts.benchmark.options import parse
from scripts.benchmark.run import run
from tests.network.harness import Network


def test_the_bench_compares_networks_that_run_and_spends_nobodys_money(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, few in ((gateway, "WALLETS", 16), (gateway, "CUSTOMERS", 2), (engine, "ACCOUNTS_PER_SHARD", 20)):
        monkeypatch.setattr(module, name, few)
    monkeypatch.setattr(turns, "CLIENTS", (8,))
    here, compared = ["--data", str(network.folder.data), "--against", str(network.folder.data)], list[dict[str, Any]]()
    run(parse([*here, "--turns", "2", "--seconds", "1.5", "--in-flight", "50", "--cross", "0.5", "--gateway"]), compared)
    (found,) = compared
    assert {name for part in ("engine", "gateway") for name in found[part]} == turns.NAMES.keys()
    for one in (found["engine"]["tps"], found["gateway"]["committed_per_s"]):
        assert one["this"] > 0 < one["other"]
        assert 0.1 < one["ratio"] < 10, "it is the same network"
    assert network.audit()["conserved"]
