"""What a payment over HTTP costs the gateway: ``python -m tests.measure_gateway --payments 4000 --clients 128``.

A real gateway and broker, and the small network of the gateway's tests. It makes blocks, and each client waits until its payment
is final (``?wait=30``); with ``--accept-only`` it makes none. The clients are a process of their own. CPU time is the gateway's,
from the first request to the last answer, in microseconds and in signature checks timed on this machine meanwhile.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from contextlib import closing
from math import inf
from pathlib import Path

import msgspec
import psutil

from node.protocol.crypto import KeyPair, verify
from tests.gateway.world import World
from tests.http_load import Job, Result

_FEE_FREE = "1000000.00"


class Checks(threading.Thread):
    """Times a signature check in short bursts until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stop_now = threading.Event()
        self.times: list[float] = []

    def run(self) -> None:
        pair, message = KeyPair(bytes(31) + b"\x01"), bytes(32)
        signature = pair.sign(message)
        while not self._stop_now.wait(0.2):
            began = time.thread_time()
            for _ in range(100):
                verify(pair.public, message, signature)
            self.times.append((time.thread_time() - began) / 100 * 1e6)

    def median(self) -> float:
        self._stop_now.set()
        self.join()
        return sorted(self.times)[len(self.times) // 2]


def orders(world: World, payments: int, users: int, wallets: int, wait: float) -> list[str]:
    """Requests of as many users, each paying from all wallets of its own to those of the next, half of them in another shard."""
    people = [world.person() for _ in range(users)]
    owned = [[one.wallet(shard % 2, USD=_FEE_FREE) for shard in range(wallets)] for one in people]
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
        found.append("\r\n".join(lines) + "\r\n\r\n" + body)
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


def load(job: Job) -> Result:
    command = [sys.executable, "-m", "tests.http_load"]
    done = subprocess.run(command, input=msgspec.json.encode(job), stdout=subprocess.PIPE, check=True, timeout=120)
    return msgspec.json.decode(done.stdout, type=Result)


def cpu(pid: int) -> Counter[tuple[int, str]]:
    """CPU seconds by thread, the main thread's id being the process's, and mode."""
    found: Counter[tuple[int, str]] = Counter()
    for thread in psutil.Process(pid).threads():
        found[thread.id, "user"], found[thread.id, "system"] = thread.user_time, thread.system_time  # type: ignore[assignment]
    return found


def measure(arguments: argparse.Namespace, world: World, profile: Profile | None) -> None:
    wait = 0.0 if arguments.accept_only else 30.0
    requests = orders(world, arguments.payments + arguments.warm_up, arguments.users, arguments.wallets, wait)
    world.network.hold, world.network.deaf = arguments.accept_only, inf if arguments.accept_only else 0.0
    port = int(world.gateway.url.rpartition(":")[2])
    load(Job("127.0.0.1", port, arguments.clients, requests[: arguments.warm_up]))
    checks = Checks()
    checks.start()
    if profile is not None:
        profile.begin(world.gateway.pid)
    began, before = time.monotonic(), cpu(world.gateway.pid)
    result = load(Job("127.0.0.1", port, arguments.clients, requests[arguments.warm_up :]))
    used, seconds, check = cpu(world.gateway.pid) - before, time.monotonic() - began, checks.median()
    spent = sum(used.values())
    if profile is not None:
        profile.end()
    ordered = sorted(result.latencies)
    each = spent / arguments.payments * 1e6
    p50, p99 = (1e3 * ordered[len(ordered) * percent // 100] for percent in (50, 99))
    rate = f"{arguments.payments / result.seconds:.0f}/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    print(f"{arguments.payments} payments, {arguments.clients} clients: {result.answers}, {result.seconds:.2f} s")
    print(f"{'accepted' if arguments.accept_only else 'final'}: {rate}; the gateway took {spent / seconds:.0%} of a core")
    print(f"R7: {each / check:.1f} checks of {check:.0f} us = {each:.0f} us of the gateway's CPU a payment")
    parts = [f"{mode} {1e6 * one / arguments.payments:.0f}" for (_, mode), one in used.most_common(8)]
    print(f"its threads, largest first: {', '.join(parts)} us")
    print(f"clients: {1e6 * result.cpu / arguments.payments:.0f} us of CPU a payment")
    assert result.answers.keys() <= {"200", "202"}, result.bodies
    if profile is not None:
        profile.show(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payments", type=int, default=4000)
    parser.add_argument("--warm-up", type=int, default=500)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--wallets", type=int, default=8, help="of each user")
    parser.add_argument("--accept-only", action="store_true", help="no blocks are made, and nobody waits for one")
    parser.add_argument("--profile", action="store_true", help="a table of where the gateway's CPU time goes; needs py-spy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        profile = Profile(Path(folder)) if arguments.profile else None
        with closing(World(Path(folder), {"token_lifetime": 86_400, "transaction_lifetime": 600_000})) as world:
            world.start_gateway()
            measure(arguments, world, profile)


if __name__ == "__main__":
    main()
