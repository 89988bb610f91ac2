"""``scripts/bench``: measures a network under load from signed transactions, handed straight to the broker."""

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
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
from scripts.benchmark.options import parse
from scripts.benchmark.postgres import measure_postgres, postgres_figures
from scripts.benchmark.report import say, table
from scripts.benchmark.series import markdown, settings
from scripts.devnet.client import Client, ClientError
from scripts.devnet.customer import CustomerError
from scripts.devnet.folder import FolderError
from scripts.devnet.postgres import PostgresError, find_programs, running_server, url_of
from scripts.devnet.processes import ProcessError

ACCOUNTS_PER_SHARD = 500
FAILURES = (
    BenchError,
    ClientError,
    CustomerError,
    FolderError,
    PostgresError,
    ProcessError,
    OSError,
    ValueError,
    httpx.HTTPError,
    psutil.Error,
)
"""What is said in a line; anything else is a mistake of this script, and shows where it is."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runs: list[dict[str, Any]] = []
    code = 0
    try:
        run(options, runs)
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        code = 130
    if options.json and runs:
        print(json.dumps(runs if options.table else runs[0]))
    elif runs:
        print(markdown(runs) if options.table else table(runs[0]))
    return code or int(any(map(went_wrong, runs)))


def run(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """All that is asked for, each run on a network of its own. ``runs``: gets their results, as soon as each is over."""
    programs = find_programs("pgbench") if options.pgbench else None
    before = measure_postgres(programs, options.seconds) if programs else {}
    for one in settings(options):
        with chosen_network(one) as network:
            runs.append(measure_network(network, one))
        if options.table:
            say(table(runs[-1]))
    if programs:
        after = measure_postgres(programs, options.seconds)
        for results in runs:
            results["pgbench"] = postgres_figures(before, after, results["tps"])


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
        results["empty"] = empty_figures(idle, busy)
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
    with contextlib.ExitStack() as stack:
        database = None
        if options.postgresql:
            database = url_of(stack.enter_context(running_server(find_programs())))
        yield stack.enter_context(networks.own(options, database))


@contextlib.contextmanager
def load_client(network: Network) -> Iterator[LoadClient]:
    devnet = network.devnet
    with Client(devnet.broker_url, read_genesis(devnet.folder.genesis)) as client:
        yield LoadClient(client)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
