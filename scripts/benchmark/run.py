"""``scripts/bench``: measures a network under load from signed transactions, handed straight to the broker."""

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from node.protocol.genesis import read_genesis
from node.protocol.keys import read_key_file
from scripts.benchmark import network as networks
from scripts.benchmark.client import LoadClient
from scripts.benchmark.empty import empty_figures, measure_busy, measure_idle
from scripts.benchmark.engine import measure_engine
from scripts.benchmark.gateway import measure_gateway
from scripts.benchmark.load import ASSET, BenchError, Payers
from scripts.benchmark.network import Network
from scripts.benchmark.postgres import find_programs, measure_postgres, postgres_figures
from scripts.benchmark.report import say, table
from scripts.devnet.client import Client, ClientError
from scripts.devnet.customer import CustomerError
from scripts.devnet.folder import FolderError
from scripts.devnet.processes import ProcessError
from scripts.devnet.session import port_base

DESCRIPTION = """Measures throughput, latency and cost of a network on this machine.

A network of its own is started in a temporary folder and ended afterwards, unless --data names a running one. Two phases:
a light load for latency, then as many transactions in flight as --in-flight for throughput and cost. Costs are given in
signature checks, timed during the load they are compared with."""
ACCOUNTS_PER_SHARD = 500
FAILURES = (
    BenchError,
    ClientError,
    CustomerError,
    FolderError,
    ProcessError,
    OSError,
    ValueError,
    httpx.HTTPError,
    psutil.Error,
)
"""What is said in a line; anything else is a mistake of this script, and shows where it is."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./scripts/bench", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of full load (20)")
    parser.add_argument("--cross", type=float, default=0.0, metavar="SHARE", help="share of cross-shard transactions, 0 to 1 (0)")
    parser.add_argument("--in-flight", type=int, default=4_000, metavar="COUNT", help="transactions under way at once (4000)")
    parser.add_argument("--committees", type=int, default=2, metavar="K", help="of an own network (2)")
    parser.add_argument("--committee-size", type=int, default=4, metavar="N", help="of an own network (4)")
    parser.add_argument("--dead", type=int, default=0, metavar="D", help="then end D nodes of each committee and measure R5 (0)")
    parser.add_argument(
        "--empty",
        type=float,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="also the cost of an empty block, R6, with nothing to do for so long (60)",
    )
    parser.add_argument("--gateway", action="store_true", help="also payments over HTTP by 1, 32 and 128 clients, and R7")
    parser.add_argument("--pgbench", action="store_true", help="also PostgreSQL's TPC-B before and after, and the ratio to it")
    parser.add_argument("--profile", action="store_true", help="also where the CPU of nodes and gateway goes, by part")
    parser.add_argument("--port-base", type=port_base, default=18_000, metavar="P", help="of an own network (18000)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="measure the network that runs in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 0 <= options.cross <= 1 or options.seconds <= 0 or options.in_flight < 1 or (options.empty or 1) <= 0:
        parser.error("--cross is between 0 and 1, --seconds, --in-flight and --empty positive")
    if options.profile and options.data is not None:
        parser.error("--profile starts nodes and gateway itself: leave out --data")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run(options)
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(results) if options.json else table(results))
    return 1 if went_wrong(results) else 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All that is asked for, on one network."""
    programs = find_programs() if options.pgbench else None
    before = measure_postgres(programs, options.seconds) if programs else {}
    with chosen_network(options) as network:
        results = measure_network(network, options)
    if programs:
        after = measure_postgres(programs, options.seconds)
        results["pgbench"] = postgres_figures(before, after, results["tps"])
    return results


def measure_network(network: Network, options: argparse.Namespace) -> dict[str, Any]:
    idle = measure_idle(network, options.empty) if options.empty else None
    gateway = {"gateway": measure_gateway(network, options)} if options.gateway else {}
    with load_client(network) as client:
        say("funding accounts ...")
        payers = Payers(client, ACCOUNTS_PER_SHARD, seed=time.time_ns())
        payers.fund(read_key_file(network.devnet.folder.issuer_key(ASSET)), ASSET, 1_000_000)
        busy = measure_busy(network, client, payers, options) if options.empty else None
        results = measure_engine(network, client, payers, options) | gateway
    if idle and busy:
        results["empty"] = empty_figures(idle, busy, results["check_us"]["loaded"]["median"] / 1e6)
    return results


def went_wrong(results: dict[str, Any]) -> bool:
    """Whether something failed that must not."""
    gateway = results.get("gateway", {"waiting": [], "accepting": {"unexpected": {}}})
    return bool(results["failed"]) or any(loop["unexpected"] for loop in (*gateway["waiting"], gateway["accepting"]))


@contextlib.contextmanager
def chosen_network(options: argparse.Namespace) -> Iterator[Network]:
    """The running network of --data, or one of our own."""
    if options.data is not None:
        yield networks.existing(options.data)
        return
    say(f"starting {options.committees} committees of {options.committee_size} ...")
    with networks.own(options.committees, options.committee_size, options.port_base, options.profile) as network:
        yield network


@contextlib.contextmanager
def load_client(network: Network) -> Iterator[LoadClient]:
    devnet = network.devnet
    with Client(devnet.broker_url, read_genesis(devnet.folder.genesis)) as client:
        yield LoadClient(client)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
