"""The network without a gateway: a light load for latency, then as many transactions in flight as it takes."""

import argparse
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from node.protocol.keys import read_key_file
from scripts.benchmark import measure
from scripts.benchmark.checks import checks_timed, idle_cost
from scripts.benchmark.client import LoadClient
from scripts.benchmark.load import ASSET, Payers, Signed, run_load, run_trickle
from scripts.benchmark.network import Network
from scripts.benchmark.profile import profile_figures, sampled
from scripts.benchmark.report import Costs, engine_figures, rate, say

ACCOUNTS_PER_SHARD = 500
WARM_UP = 2_000
TRICKLE_PER_SECOND = 8.0


def funded_payers(network: Network, client: LoadClient) -> Payers:
    """New accounts that can pay a million times. Raises BenchError, ClientError."""
    say("funding accounts ...")
    payers = Payers(client, ACCOUNTS_PER_SHARD, seed=time.time_ns())
    payers.fund(read_key_file(network.devnet.folder.issuer_key(ASSET)), ASSET, 1_000_000)
    return payers


def measure_engine(network: Network, client: LoadClient, payers: Payers, options: argparse.Namespace) -> dict[str, Any]:
    """Latency under a light load, throughput and cost under a full one. Raises BenchError, ClientError."""
    say("light load ...")
    idle = idle_cost()
    count = int(min(100, max(20, options.seconds * TRICKLE_PER_SECOND / 2)))
    trickle = run_trickle(client, payers.payments(count, options.cross, ASSET), TRICKLE_PER_SECOND)
    payments = enough_payments(client, payers, options)

    say(f"full load for {options.seconds:.0f} s ...")
    nodes, ports = network.pids(*network.devnet.node_names), network.metrics_ports()
    before = measure.usage(nodes, ports)
    with checks_timed() as timed, sampled(network, *network.devnet.node_names) as profile:
        load = run_load(client, payments, options.in_flight, options.seconds)
    after = measure.usage(nodes, ports)
    parameters = client.genesis.parameters
    costs = Costs(before, after, timed.cost, idle, mean_size(payments))
    results = engine_figures(load, trickle, costs, len(client.document.committees), parameters.committee_size)
    if profile.seconds:
        results["profile"] = profile_figures(profile.seconds, results["cpu_per_transaction_us"])
    if options.dead:
        kill_members(network, client, options.dead)
        rest = payments[load.done + load.failed.total() :] or enough_payments(client, payers, options)
        say(f"full load for {options.seconds:.0f} s with {options.dead} dead in each committee ...")
        crippled = run_load(client, rest, options.in_flight, options.seconds)
        results["dead"], results["tps_dead"] = options.dead, round(rate(crippled), 1)
        results["R5"] = round(rate(crippled) / (rate(load) or 1.0), 2)
    return results


def enough_payments(client: LoadClient, payers: Payers, options: argparse.Namespace) -> list[Signed]:
    """So many that a full load does not run out of them, by how fast a short one is."""
    say("warming up ...")
    began = time.monotonic()
    run_load(client, payers.payments(WARM_UP, options.cross, ASSET), options.in_flight)
    total = int(WARM_UP / (time.monotonic() - began) * options.seconds * 3) + 3 * options.in_flight
    say(f"signing {total} transactions ...")
    return payers.payments(total, options.cross, ASSET)


def kill_members(network: Network, client: LoadClient, count: int) -> None:
    """kill -9 the first ``count`` members of each committee."""
    names = [member.name for committee in client.document.committees for member in committee.members[:count]]
    for pid in network.pids(*names):
        os.kill(pid, signal.SIGKILL)


def mean_size(payments: Sequence[Signed]) -> float:
    return sum(len(payment.encoded) for payment in payments) / len(payments)
