"""Two networks, as of two versions, that take turns under the same load: what the machine does meanwhile happens to both, so the
ratio within a turn says more than two runs one after the other. How sure it is, its standard error says."""

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from scripts.benchmark import measure
from scripts.benchmark.client import load_client
from scripts.benchmark.engine import WARM_UP, funded_payers
from scripts.benchmark.gateway import CLIENTS, funded_wallets, payments, run_clients
from scripts.benchmark.http_client import COMMITTED
from scripts.benchmark.load import ASSET, BenchError, run_load
from scripts.benchmark.network import Network
from scripts.benchmark.report import rate, say

Figures = dict[str, float]
"""Of a turn, by name."""
NAMES = {
    "tps": "transactions/s",
    "cpu_us": "CPU of all nodes a transaction, us",
    "committed_per_s": "committed/s",
    "nodes_cpu_us": "CPU of all nodes a payment, us",
    "gateway_cpu_us": "CPU of the gateway a payment, us",
}


def compare(turns: Sequence[tuple[Figures, Figures]]) -> dict[str, Figures]:
    """Of each figure in at least two turns: the mean of either network, the mean of the turns' ratios, and its standard error."""
    compared = {}
    for name in turns[0][0]:
        pairs = [(this[name], other[name]) for this, other in turns]
        ratios = [this / other for this, other in pairs]
        mean_this, mean_other = (fmean(values) for values in zip(*pairs, strict=True))
        error = stdev(ratios) / math.sqrt(len(ratios))
        compared[name] = {"this": mean_this, "other": mean_other, "ratio": fmean(ratios), "error": error}
    return compared


def take_turns(this: Network, other: Network, options: argparse.Namespace) -> dict[str, Any]:
    """First with signed transactions, then over HTTP if that is asked for. Raises what ``measure_engine`` and ``measure_gateway``
    raise, and BenchError when anything fails that must not."""
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(_engine(network, options)) for network in (this, other)]
        results = {"engine": compare(take_alternately("full load", engines, options.turns))}
    if options.gateway:
        gateways = [_gateway(network, options) for network in (this, other)]
        results["gateway"] = compare(take_alternately(f"{CLIENTS[-1]} clients over HTTP", gateways, options.turns))
    return {"turns": options.turns, "seconds": options.seconds, "cross_share": options.cross} | results


def take_alternately(what: str, runs: Sequence[Callable[[], Figures]], count: int) -> list[tuple[Figures, Figures]]:
    """The one that ran last runs first in the next turn. Before the first, each runs once for nothing: what it does is to
    become warm."""
    found = []
    for turn in range(count + 1):
        order = (0, 1) if turn % 2 else (1, 0)
        figures = {index: runs[index]() for index in order}
        if turn:
            found.append((figures[0], figures[1]))
            first = next(iter(figures[0]))
            say(f"{what}, turn {turn} of {count}: {figures[0][first]:.1f} and {figures[1][first]:.1f} {NAMES[first]}")
    return found


@contextlib.contextmanager
def _engine(network: Network, options: argparse.Namespace) -> Iterator[Callable[[], Figures]]:
    """What runs a turn of signed transactions."""
    nodes = network.pids(*network.devnet.node_names)
    with load_client(network) as client:
        payers = funded_payers(network, client)
        count = WARM_UP + options.in_flight

        def turn() -> Figures:
            nonlocal count
            signed = payers.payments(count, options.cross, ASSET)
            before = measure.cpu_seconds(nodes)
            load = run_load(client, signed, options.in_flight, options.seconds)
            cpu = measure.cpu_seconds(nodes) - before
            if load.failed or not load.committed:
                raise BenchError(
                    f"in a turn {load.committed} transactions were committed in time, and failed: {dict(load.failed)}"
                )
            count = int(rate(load) * options.seconds * 1.5) + 2 * options.in_flight
            return {"tps": rate(load), "cpu_us": cpu / load.done * 1e6}

        yield turn


def _gateway(network: Network, options: argparse.Namespace) -> Callable[[], Figures]:
    """What runs a turn over HTTP."""
    wallets, port = funded_wallets(network), network.devnet.ports.gateway

    def turn() -> Figures:
        requests = payments(wallets, options.cross, port, "?wait=30")
        seen = run_clients(network, CLIENTS[-1], requests, options.seconds, COMMITTED)
        if seen["unexpected"] or not seen["committed_per_s"]:
            raise BenchError(f"in a turn {seen['committed_per_s']} payments/s were committed, and else: {seen['unexpected']}")
        return {name: seen[name] for name in ("committed_per_s", "nodes_cpu_us", "gateway_cpu_us")}

    return turn


def turns_table(results: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{results['turns']} turns of {results['seconds']:.0f} s each, {results['cross_share']:.0%} cross-shard"]
    for part in ("engine", "gateway"):
        for name, one in results.get(part, {}).items():
            means = f"{one['this']:>8.1f} against {one['other']:>8.1f}"
            lines.append(f"  {NAMES[name]:<36} {means}   ratio {one['ratio']:.3f}, standard error {one['error']:.3f}")
    return "\n".join(lines)
