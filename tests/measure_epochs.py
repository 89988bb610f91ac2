"""What a change of epochs costs those who pay: ``python -m tests.measure_epochs --data DIR``, a new network of real processes.

Eight nodes keep two shards under a steady load. Four more join: from the next epoch on there are three. Then these leave again:
two. Payments are signed here and handed to the broker; they are final when this client has the proven blocks of all shards they
touch. Times are this client's: it shares the machine with all nodes. A place is a range of addresses that stays together
throughout: so a pause is of the same accounts, whichever shard keeps them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import psutil
from msgspec import Struct

from node.chronicle import NewBulletin
from node.client.epochs import NewDocument, News
from node.protocol.address import address_of
from node.protocol.block import Outcome, Receipt
from node.protocol.chain import Chain
from node.protocol.change import RegisterPhase, Stage
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.keys import read_key_file
from node.protocol.queries import GetAccount
from scripts.benchmark.client import LoadClient
from scripts.benchmark.load import ASSET, Payers, Signed, send
from scripts.benchmark.measure import cpu_seconds
from scripts.devnet import processes
from scripts.devnet.client import Client, devnet_client
from scripts.devnet.folder import open_devnet
from scripts.devnet.layout import ROOT, Folder

ACCOUNTS, FUNDS = 100, 1_000_000
"""In each of the first two shards, and what each has, units."""
RESEND = 2.0
"""After so long, s, a payment of which nothing was heard is sent again."""
SIGNED_AHEAD = 0.5
"""Seconds of payments signed at a time."""
PATIENCE = 240.0
"""After so long, s, it has failed."""


class Sent(Struct, gc=False):
    """A payment under way. ``final``: the chains that have committed it."""

    payment: Signed
    first: float
    last: float
    final: list[Chain]


class Done(Struct, frozen=True, gc=False):
    """A payment that committed."""

    at: float
    took: float
    epochs: tuple[int, ...]
    payment: Signed
    is_cross: bool


class Watching(Client):
    """A client that notes when it hears what of the epochs: by what, the first time, monotonic seconds."""

    def __init__(self, url: str, genesis: Genesis) -> None:
        self.seen: dict[tuple[object, ...], float] = {}
        super().__init__(url, genesis)

    def _keep(self, news: Sequence[News]) -> None:
        super()._keep(news)
        for one in news:
            match one:
                case NewDocument(document):
                    self.note("begins", document.number)
                case NewBulletin(bulletin):
                    change = bulletin.change
                    if change.register is not None:
                        self.note(change.register.phase, bulletin.epoch, change.attempt)
                    if change.stage is Stage.CLOSED:
                        self.note("closed", bulletin.epoch, bulletin.header.shard)

    def note(self, *what: object) -> None:
        self.seen.setdefault(what, time.monotonic())


class Load:
    """Payments of one unit at a steady rate; what takes long is sent again, as wallets do, at once when an epoch begins."""

    def __init__(self, client: LoadClient, watching: Watching, payers: Payers, rate: float, cross: float) -> None:
        self._client, self._watching, self._payers, self._rate, self._cross = client, watching, payers, rate, cross
        self._ready: deque[Signed] = deque()
        self._due = time.monotonic()
        self._epoch = client.document.number
        self.waiting: dict[bytes, Sent] = {}
        self.done: list[Done] = []
        self.committed: Counter[tuple[bytes, Chain]] = Counter()
        self.failed: Counter[str] = Counter()

    def step(self, *, sends: bool = True) -> None:
        now = time.monotonic()
        if sends and now >= self._due:
            while len(self._ready) < (count := int((now - self._due) * self._rate) + 1):
                self._ready.extend(self._payers.payments(int(self._rate * SIGNED_AHEAD), self._cross, ASSET))
            due = [self._ready.popleft() for _ in range(count)]
            self._due = max(self._due + count / self._rate, now - 1)
            self.waiting |= {payment.id: Sent(payment, now, now, []) for payment in due}
            send(self._client, due)
        elif not sends:
            self._due = now
        self._take(self._client.receipts(0.02))
        self._resend()

    def _take(self, receipts: Iterable[tuple[Chain, Receipt]]) -> None:
        now = time.monotonic()
        for chain, receipt in receipts:
            self._watching.note("block", chain)
            if receipt.outcome is Outcome.COMMITTED:
                self.committed[receipt.transaction_id, chain] += 1
            sent = self.waiting.get(receipt.transaction_id)
            if sent is None:
                continue
            if receipt.outcome is not Outcome.COMMITTED:
                del self.waiting[receipt.transaction_id]
                self.failed[str(receipt.code)] += 1
                continue
            sent.final.append(chain)
            touched = self._client.touched(chain.epoch, sent.payment.addresses)
            if len(sent.final) == touched:
                del self.waiting[receipt.transaction_id]
                self.done.append(Done(now, now - sent.first, tuple(c.epoch for c in sent.final), sent.payment, touched > 1))

    def _resend(self) -> None:
        now, epoch = time.monotonic(), self._client.document.number
        is_new, self._epoch = epoch > self._epoch, epoch
        late = [sent for sent in self.waiting.values() if is_new or now - sent.last > RESEND]
        for sent in late:
            sent.last = now
        if late:
            send(self._client, [sent.payment for sent in late])

    def doubled(self) -> int:
        """Payments that a shard committed twice, or that committed in more chains than they touch."""
        chains: defaultdict[bytes, list[Chain]] = defaultdict(list)
        for (payment, chain), times in self.committed.items():
            chains[payment] += [chain] * times
        return sum(len(found) > self._client.touched(found[0].epoch, done.payment.addresses)
                   for done in self.done if (found := chains[done.payment.id]))  # fmt: skip


class Story:
    """Times of one change. ``asked``: when it was asked for; ``seconds`` from then on."""

    def __init__(self, name: str, load: Load, watching: Watching, client: LoadClient) -> None:
        self.name, self._load, self._watching, self._client = name, load, watching, client
        self.asked, self.before = time.monotonic(), client.document
        self.after: EpochDocument | None = None

    def is_over(self, committees: int) -> bool:
        """Whether the epoch with so many committees has begun, and all its shards have committed."""
        document = self._client.document
        chains = [electorate.chain for electorate in document.electorates.values()]
        if len(chains) != committees or not all(("block", chain) in self._watching.seen for chain in chains):
            return False
        self.after = document
        return True

    def tell(self, places: Callable[[bytes], int], until: float) -> list[tuple[str, str]]:
        assert self.after is not None
        seen, epoch, attempt = self._watching.seen, self.after.number - 1, self.after.attempt
        _, reveal, handoff, settlement, closed = (seen.get((phase, epoch, attempt)) for phase in RegisterPhase)
        begins = seen["begins", self.after.number]
        closings = [at for what, at in seen.items() if what[:2] == ("closed", epoch)]
        opened = [seen["block", electorate.chain] for electorate in self.after.electorates.values()]
        during = [done for done in self._load.done if self.asked <= done.at <= until]
        rows = [
            ("epochs", f"{self.before.number} -> {self.after.number}, attempt {attempt}"),
            ("asked for until all shards of it commit", span(self.asked, max(opened))),
            ("  until reveal begins", span(self.asked, reveal)),
            ("  reveal", span(reveal, handoff)),
            ("  handoff", span(handoff, settlement)),
            ("  settlement", span(settlement, closed)),
            ("  closing blocks of all others", span(closed, max(closings, default=None))),
            ("  known here that it begins", span(max(closings, default=None), begins)),
            ("  first commits of its shards", " ".join(span(begins, at) for at in sorted(opened))),
        ]
        for is_cross in (False, True):
            kind = "across shards" if is_cross else "inside a shard"
            some = [done for done in during if done.is_cross is is_cross]
            gap, at, place = longest_pause(some, places)
            rows.append((f"longest pause of payments {kind}", f"{gap:.2f} s (place {place}, ends {at - begins:+.1f} s)"))
            latencies = sorted(done.took for done in some)
            rows.append((f"  latency {kind}: median, slowest", f"{latencies[len(latencies) // 2]:.2f} s, {latencies[-1]:.2f} s"))
        return [
            *rows,
            ("payments committed meanwhile", f"{len(during)}, {sum(len(set(d.epochs)) > 1 for d in during)} in two epochs"),
        ]


def span(began: float | None, ended: float | None) -> str:
    return "?" if began is None or ended is None else f"{ended - began:.2f} s"


def longest_pause(done: Iterable[Done], places: Callable[[bytes], int]) -> tuple[float, float, int]:
    """Between two commits of payments from one place: how long, s, when it ended, and which place."""
    by_place: defaultdict[int, list[float]] = defaultdict(list)
    for one in done:
        by_place[places(one.payment.addresses[0])].append(one.at)
    gaps = [(after - before, after, place) for place, times in by_place.items() for before, after in pairwise(times)]
    return max(gaps, default=(0.0, 0.0, -1))


class Run:
    """All of it, on a network that runs in ``folder``."""

    def __init__(self, folder: Folder, client: Watching, options: argparse.Namespace) -> None:
        self._folder, self._options, self._watching = folder, options, client
        self.client = LoadClient(client)
        payers = Payers(self.client, ACCOUNTS, seed=time.time_ns())
        payers.fund(read_key_file(folder.issuer_key(ASSET)), ASSET, FUNDS)
        self._accounts = [address_of(key.public) for keys in payers.by_shard.values() for key in keys]
        self.load = Load(self.client, client, payers, options.rate, options.cross)

    def go(self) -> None:
        nodes = open_devnet(self._folder).node_names
        show("before", [("audit", verdict(self._begin_audit())), ("CPU of an idle node", self._idle(nodes))])
        self._for(lambda began: time.monotonic() > began + self._options.seconds)
        joining = self._change("four nodes join", ["scripts.devnet.launch", "--nodes", "4", "--detach"], 3)
        names = [name for name in open_devnet(self._folder).node_names if name not in nodes]
        leaving = self._change("they leave", ["scripts.devnet.leave", *names], 2)
        self._for(lambda _: not self.load.waiting, sends=False)
        ended = time.monotonic()
        finest = joining.after
        assert finest is not None
        show(joining.name, joining.tell(finest.shards.shard_of, leaving.asked))
        show(leaving.name, leaving.tell(finest.shards.shard_of, ended))
        wrong = self._wrong_balances()
        found = [
            ("payments committed", str(len(self.load.done))),
            ("refused", str(dict(self.load.failed))),
            ("lost (not decided)", str(len(self.load.waiting))),
            ("committed twice", str(self.load.doubled())),
            ("accounts with another balance than paid", f"{wrong} of {len(self._accounts)}"),
        ]
        show("in all", [*found, ("audit", verdict(self._begin_audit())), ("CPU of an idle node", self._idle(nodes))])

    def _change(self, name: str, command: Sequence[str], committees: int) -> Story:
        story = Story(name, self.load, self._watching, self.client)
        with subprocess.Popen(self._command(*command), cwd=ROOT, stdout=subprocess.DEVNULL):
            audit = self._begin_audit()
            self._for(lambda _: story.is_over(committees))
            self._for(lambda began: time.monotonic() > began + self._options.seconds)
            self._for(lambda _: audit.poll() is not None)
            show(f"{name}, meanwhile", [("audit", verdict(audit)), ("load of the machine", f"{os.getloadavg()[0]:.1f}")])
        return story

    def _command(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments, "--data", str(self._folder.data)]

    def _for(self, is_over: Callable[[float], bool], *, sends: bool = True) -> None:
        began = time.monotonic()
        while not is_over(began):
            self.load.step(sends=sends)
            if time.monotonic() > began + PATIENCE:
                raise SystemExit(f"not over after {PATIENCE:.0f} s; {len(self.load.waiting)} payments wait")

    def _begin_audit(self) -> subprocess.Popen[bytes]:
        command = self._command("scripts.audit_money", "--json")
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _idle(self, nodes: Sequence[str]) -> str:
        """Between changes, if it can be had: an epoch may end meanwhile."""
        running = processes.programs_running(self._folder)
        pids = [running[name].pid for name in nodes]
        epoch, before = self.client.document.number, cpu_seconds(pids)
        self._watching.wait(lambda: False, self._options.idle)
        spent = (cpu_seconds(pids) - before) / len(pids) / self._options.idle
        changed = f", epoch {epoch} ended meanwhile" if self._watching.document().number > epoch else ""
        return f"{1e3 * spent:.1f} ms/s{changed} (load of the machine {psutil.getloadavg()[0]:.1f})"

    def _wrong_balances(self) -> int:
        """Accounts that have not what they were given and paid."""
        due = Counter(dict.fromkeys(self._accounts, FUNDS))
        for done in self.load.done:
            payer, payee = done.payment.addresses
            due[payer] -= 1
            due[payee] += 1
        document = self._watching.document()
        wrong = 0
        for address in self._accounts:
            electorate = document.electorates[document.shards.shard_of(address)]
            account = self._watching.answers(electorate, GetAccount(address)).agreed_account()
            wrong += account is None or {asset: b.available for asset, b in account.balances} != {ASSET: due[address]}
        return wrong


def verdict(audit: subprocess.Popen[bytes]) -> str:
    text, _ = audit.communicate()
    if not text:
        return "cannot be made"
    found = json.loads(text)
    odd = [*found["boundaries"], *found["contradictions"]]
    return {True: "conserved", False: "NOT CONSERVED", None: "payments under way"}[found["conserved"]] + "".join(odd)


def show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    print(f"\n{title}", *(f"  {name:<48} {value}" for name, value in rows), sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the new network is to live")
    parser.add_argument("--port-base", type=int, default=31_000)
    parser.add_argument("--epoch-seconds", type=int, default=60)
    parser.add_argument("--rate", type=float, default=300, help="payments a second")
    parser.add_argument("--cross", type=float, default=0.5, help="share of them that is across shards")
    parser.add_argument("--seconds", type=float, default=10, help="of load before, between and after the changes")
    parser.add_argument("--idle", type=float, default=30, help="seconds over which idle nodes are measured")
    options = parser.parse_args()
    folder = Folder(options.data.absolute().resolve())
    up = [sys.executable, "-m", "scripts.devnet.up", "--data", str(folder.data)]
    start = ["--fresh", "--detach", "--port-base", str(options.port_base), "--epoch-seconds", str(options.epoch_seconds)]
    subprocess.run([*up, *start], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    try:
        devnet = open_devnet(folder)
        with Watching(devnet.broker_url, devnet_client(devnet).genesis) as client:
            Run(folder, client, options).go()
    finally:
        subprocess.run([*up, "--down"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
