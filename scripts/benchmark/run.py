"""``scripts/bench``: measures a network under load from signed transactions, handed straight to the broker."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import psutil

from scripts.benchmark import network as networks
from scripts.benchmark.client import load_client
from scripts.benchmark.empty import empty_figures, measure_busy, measure_idle
from scripts.benchmark.engine import funded_payers, measure_engine
from scripts.benchmark.gateway import measure_gateway
from scripts.benchmark.load import BenchError
from scripts.benchmark.network import Network
from scripts.benchmark.options import parse
from scripts.benchmark.postgres import measure_postgres, postgres_figures
from scripts.benchmark.report import say, table
from scripts.benchmark.series import markdown, settings
from scripts.benchmark.turns import take_turns, turns_table
from scripts.devnet.client import ClientError
from scripts.devnet.customer import CustomerError
from scripts.devnet.folder import FolderError
from scripts.devnet.postgres import PostgresError, find_programs, running_server, url_of
from scripts.devnet.processes import ProcessError

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
    elif runs and options.against:
        print(turns_table(runs[0]))
    elif runs:
        print(markdown(runs) if options.table else table(runs[0]))
    return code or int(not options.against and any(map(went_wrong, runs)))


def run(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """All that is asked for, each run on a network of its own. ``runs``: gets their results, as soon as each is over."""
    if options.against:
        with chosen_network(options) as network:
            runs.append(take_turns(network, networks.existing(options.against), options))
        return
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
        payers = funded_payers(network, client)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
