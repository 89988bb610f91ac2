"""What a payment over HTTP costs the gateway: ``python -m tests.measure_gateway --clients 128 --processes 1 2 3``.

A real gateway, of one process or of several at one address, a real broker, and the small network of the gateway's tests. It makes
blocks, and each client waits until its payment is final (``?wait=30``); with ``--accept-only`` it makes none. CPU time is that of
all the gateway's processes, from the first request to the last answer, in microseconds and in signature checks; a database
server's is told apart. The whole network is measured by ``./scripts/bench --gateway``.
"""

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from math import inf
from pathlib import Path

import psutil

from scripts.benchmark.checks import checks_timed
from scripts.benchmark.http_client import Plan, Request, Seen, closed_loop
from scripts.devnet.postgres import find_programs, running_server, url_of
from tests.gateway.world import World

_FUNDS = "1000000.00"
_MOST = 4000
"""Payments a second for which there are requests."""


def orders(world: World, payments: int, users: int, wallets: int, wait: float) -> list[Request]:
    """Requests of as many users, each paying from all wallets of its own to those of the next, half of them in another shard."""
    people = [world.person() for _ in range(users)]
    owned = [[one.wallet(shard % 2, USD=_FUNDS) for shard in range(wallets)] for one in people]
    found = []
    for number in range(payments):
        payer = number % users
        purse = owned[payer][number // users % wallets]
        till = owned[(payer + 1) % users][number // users // wallets % wallets]
        body = json.dumps({"from_wallet": purse["id"], "to": till["address"], "asset": "USD", "amount": "0.01", "memo": "coffee"})
        lines = [
            f"POST /v1/transfers{f'?wait={wait:g}' if wait else ''} HTTP/1.1",
            "Host: localhost",
            f"Authorization: {people[payer].http.headers['Authorization']}",
            f"Idempotency-Key: {uuid.uuid4()}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        found.append(Request(purse["shard"] != till["shard"], ("\r\n".join(lines) + "\r\n\r\n" + body).encode()))
    return found


class Profile:
    """Looks at the gateway's stacks with py-spy, between ``begin`` and ``end``."""

    def __init__(self, folder: Path) -> None:
        self._result = folder / "profile"
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, pid: int) -> None:
        command = ["py-spy", "record", "--pid", str(pid), "--rate", "200", "--duration", "600", "--threads", "--nonblocking"]
        with self._result.with_suffix(".log").open("wb") as log:
            self._process = subprocess.Popen([*command, "--format", "raw", "--output", str(self._result)], stdout=log, stderr=log)

    def end(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def show(self, each: float) -> None:
        """Tables of microseconds a payment; ``each``: of all threads together."""
        stacks = [line.rpartition(" ") for line in self._result.read_text().splitlines()]
        samples = [(stack.split(";"), int(count)) for stack, _, count in stacks]
        for title, part in (("package of the innermost function", _package), ("innermost function of ours", _function)):
            found: Counter[str] = Counter()
            for stack, count in samples:
                found[f"{_thread(stack):8} {part(stack)}"] += count
            whole = found.total()
            print(f"\n{title:64} us/payment  share")
            for name, count in found.most_common(40):
                print(f"{name:64} {each * count / whole:10.1f} {count / whole:6.1%}")


def _thread(stack: list[str]) -> str:
    return "main" if "MainThread" in stack[0] else stack[0].partition("_")[0].rpartition(" ")[2].strip("()")


def _package(stack: list[str]) -> str:
    """A frame reads "function (path/to/file.py:12)"; the path is relative to the folder of the import."""
    parts = stack[-1].rpartition("(")[2].partition(":")[0].split("/")
    ours = parts[0] in ("gateway", "node")
    return "/".join(parts) if ours else parts[0]


def _function(stack: list[str]) -> str:
    for frame in reversed(stack):
        function, _, file = frame.rpartition(" (")
        if file.startswith(("gateway/", "node/")):
            return f"{file.partition(':')[0]} {function}"
    return "around it: " + _package(stack)


def load(world: World, requests: list[Request], clients: int, seconds: float) -> Seen:
    """A closed loop; each client has requests of its own, which must not run out."""
    port = int(world.gateway.url.rpartition(":")[2])
    return closed_loop(Plan(port, seconds, [requests[number::clients] for number in range(clients)]))


def cpu(pids: Sequence[int]) -> Counter[tuple[int, str]]:
    """CPU seconds by thread, the main thread's id being the process's, and mode."""
    found: Counter[tuple[int, str]] = Counter()
    for thread in [thread for pid in pids for thread in psutil.Process(pid).threads()]:
        found[thread.id, "user"], found[thread.id, "system"] = thread.user_time, thread.system_time  # type: ignore[assignment]
    return found


def servers_cpu() -> float:
    """CPU seconds of the database server's processes, if one runs here for us: it is a child of this process."""
    total = 0.0
    for child in psutil.Process().children():
        if child.name() == "postgres":
            for process in (child, *child.children()):
                with suppress(psutil.NoSuchProcess):
                    total += sum(process.cpu_times()[:2])
    return total


def measure(arguments: argparse.Namespace, world: World, pids: Sequence[int], profile: Profile | None) -> None:
    wait = 0.0 if arguments.accept_only else 30.0
    warm_up, most = 10 * arguments.clients, int(arguments.seconds * _MOST)
    requests = orders(world, warm_up + most, arguments.users, arguments.wallets, wait)
    world.network.hold, world.network.deaf = arguments.accept_only, inf if arguments.accept_only else 0.0
    load(world, requests[:warm_up], arguments.clients, 1.0)
    if profile is not None:
        profile.begin(world.gateway.pid)
    began, before, server = time.monotonic(), cpu(pids), servers_cpu()
    with checks_timed() as timed:
        seen = load(world, requests[warm_up:], arguments.clients, arguments.seconds)
    used, seconds, check = cpu(pids) - before, time.monotonic() - began, 1e6 * timed.cost.median
    server = servers_cpu() - server
    if profile is not None:
        profile.end()
    payments, spent = sum(seen.answers.values()), sum(used.values())
    each = spent / payments * 1e6
    rate = sum(seen.in_time.values()) / seen.seconds
    print(
        f"{arguments.clients} clients for {arguments.seconds:g} s: {seen.answers}, {rate:.0f}/s, {spent / seconds:.0%} of a core"
    )
    for name, latencies in (("inside a shard", seen.intra), ("across shards", seen.cross)):
        if ordered := sorted(latencies):
            p50, p99 = (1e3 * ordered[len(ordered) * percent // 100] for percent in (50, 99))
            print(f"{name}: {len(ordered)}, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"R7: {each / check:.1f} checks of {check:.0f} us = {each:.0f} us of the gateway's CPU a payment")
    parts = [f"{mode} {1e6 * one / payments:.0f}" for (_, mode), one in used.most_common(8)]
    print(
        f"its threads, largest first: {', '.join(parts)} us"
        + (f"; PostgreSQL {1e6 * server / payments:.0f} us" if server else "")
    )
    print(f"clients: {1e6 * seen.cpu / payments:.0f} us of CPU a payment")
    if profile is not None:
        profile.show(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--wallets", type=int, default=8, help="of each user")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1], help="how many share the load; several: one after the other"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--accept-only", action="store_true", help="no blocks are made, and nobody waits for one")
    parser.add_argument("--profile", action="store_true", help="a table of where the gateway's CPU time goes; needs py-spy")
    arguments = parser.parse_args()
    for count in arguments.processes:
        with ExitStack() as stack:
            database: dict[str, object] = {}
            if arguments.database == "postgresql":
                database = {"database": url_of(stack.enter_context(running_server(find_programs())))}
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"{arguments.database}, {count} process{'es' if count > 1 else ''}, {os.cpu_count()} cores:", flush=True)
            run(arguments, folder, count, database)


def run(arguments: argparse.Namespace, folder: Path, count: int, database: Mapping[str, object]) -> None:
    """One measurement, with so many processes at one address."""
    profile = Profile(folder) if arguments.profile else None
    settings = {"token_lifetime": 86_400, "transaction_lifetime": 600_000, "reuse_port": True, **database}
    with closing(World(folder, settings)) as world, ExitStack() as stack:
        world.start_gateway()
        port = int(world.gateway.url.rpartition(":")[2])
        others = [world.another(f"gateway-{number}", port=port) for number in range(2, count + 1)]
        for process in others:
            stack.callback(process.kill)
            process.start("/readyz")
        measure(arguments, world, [process.pid for process in (world.gateway, *others)], profile)


if __name__ == "__main__":
    main()
