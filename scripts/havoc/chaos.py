"""One run: start the network and its customers, break things and see them heal, and compare what is left."""

import argparse
import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from node.protocol.chain import Chain
from scripts.devnet import processes
from scripts.devnet.client import devnet_client
from scripts.devnet.folder import FolderError
from scripts.devnet.layout import Folder
from scripts.devnet.session import Screen
from scripts.havoc import verdict
from scripts.havoc.disks import Disks
from scripts.havoc.faults import Saboteur, clock_libraries
from scripts.havoc.hosts import Hosts
from scripts.havoc.load import FINAL, Load
from scripts.havoc.network import Network
from scripts.havoc.observer import Observer
from scripts.havoc.plan import SINGLE, Episode, Seat, episodes
from scripts.havoc.record import Record, Tail
from scripts.havoc.report import bar, clock

START_SECONDS = 120.0
RECOVERY_SECONDS = 90.0
"""How long the network may take after an episode until every node and the payments from every shard go on."""
ANSWER_SECONDS = 60.0
FINAL_SECONDS = 120.0
CALM_SECONDS = 1.5
HOST_KINDS = ("cut", "split")


class CannotRun(Exception):
    """The text says why."""


class Interrupted(Exception):
    """Ctrl-C."""


class Chaos:
    """One run. Owns the folder, the processes, the file systems and the namespaces, and ends them in any case."""

    def __init__(self, options: argparse.Namespace, screen: Screen, stop: threading.Event) -> None:
        self._options, self._screen, self._stop = options, screen, stop
        self._data = options.data.absolute().resolve() if options.data else Path(tempfile.mkdtemp(prefix="shardpay-chaos-"))
        self._folder = Folder(self._data)
        self._records: list[Record] = []
        self._violations: list[str] = []
        self._notes: list[str] = []
        self._skipped: dict[str, str] = {}
        self._excused: set[str] = set()
        """Who may end by itself: what befell it is a reason to."""
        self._began = 0.0
        self._doing = ""
        self._floor: tuple[float, dict[Chain, int]] = (0.0, {})
        """Where the shards were at a moment (monotonic)."""
        self._network: Network
        self._observer: Observer
        self._load: Load | None = None

    def run(self) -> dict[str, Any]:
        """Raises Interrupted, CannotRun, and what starting a network raises."""
        if self._folder.state.exists():
            raise FolderError(f"{self._data} holds a network already; this one breaks only its own: choose another --data")
        kept, hosts, disks = self._options.data is not None, None, None
        try:
            processes.raise_file_limit()
            options = self._options
            network = Network(self._folder, options.port_base, options.committees, options.committee_size, options.gateways)
            self._network = network
            names = network.devnet.node_names
            disks = Disks({name: self._folder.home(name) for name in names}, {name: self._folder.log(name) for name in names})
            hosts = self._hosts(names)
            self._available(disks, hosts)
            network.prepare(hosts)
            try:
                result = self._run(disks, hosts)
            except BaseException:
                kept = True  # whatever went wrong, its logs say
                raise
            kept = kept or not result["passed"]
            return result
        except Interrupted:
            kept = self._options.data is not None
            raise
        finally:
            self._screen.say("Ending everything ...")
            if hasattr(self, "_network"):
                self._network.stop()
            if disks is not None:
                disks.release(keep=kept)
            if hosts is not None:
                hosts.close()
            if kept:
                self._screen.say(f"The network is left in {self._data}; what each process said in {self._data / 'logs'}.")
            else:
                shutil.rmtree(self._data, ignore_errors=True)

    def _hosts(self, names: Sequence[str]) -> Hosts | None:
        if not self._options.namespaces:
            for kind in sorted(self._options.kinds.intersection(HOST_KINDS)):
                self._skipped[kind] = "only with --namespaces"
            return None
        try:
            hosts = Hosts(names)
        except OSError as error:
            raise CannotRun(f"network namespaces cannot be made here: {error}") from None
        if hosts.netem:
            self._skipped["latency and loss"] = f"this kernel cannot: {hosts.netem}"
        return hosts

    def _available(self, disks: Disks, hosts: Hosts | None) -> None:
        """What this machine can do; the rest is skipped, and said."""
        if "clock" in self._options.kinds and not clock_libraries():
            self._skipped["clock"] = "libfaketime is not installed (Debian: faketime)"
        if "disk" in self._options.kinds and not disks.mount():
            self._notes.append("no file systems of their own for the nodes (needs root): full disks are made with RLIMIT_FSIZE")
        self._options.kinds -= self._skipped.keys()
        if not self._options.kinds:
            raise CannotRun("; ".join(f"{kind}: {why}" for kind, why in self._skipped.items()))
        for what, why in self._skipped.items():
            self._screen.say(f"Skipped: {what}: {why}.")

    # -- the run ---------------------------------------------------------------------------------------------------

    def _run(self, disks: Disks, hosts: Hosts | None) -> dict[str, Any]:
        options, network = self._options, self._network
        self._screen.say(
            f"Seed {options.seed}: {options.committees} committees of {options.committee_size} in {self._data}, "
            f"{options.rate:g} payments a second, {options.minutes:g} minutes."
        )
        network.start(network.names)
        self._observer = Observer(network.devnet)
        self._observer.start()
        self._wait(network.is_ready, START_SECONDS, "the network to be ready")
        self._screen.progress("Customers open wallets ...")
        shards = range(options.committees)
        self._load = self._meanwhile(lambda: Load(network.devnet.gateway_url, shards, options.rate, options.seed))
        assert self._load is not None
        self._load.start()
        began = time.monotonic()
        self._wait(lambda: self._flows(began), START_SECONDS, "the first payments from every shard")
        seats = self._seats()
        self._began = time.monotonic()
        saboteur = Saboteur(network, disks, hosts, seats)
        for episode in episodes(options.seed, len(shards), options.committee_size, options.kinds):
            if time.monotonic() + episode.seconds > self._began + options.minutes * 60:
                break
            if not self._episode(episode, saboteur):
                break
        return self._conclude()

    def _seats(self) -> dict[Seat, str]:
        with devnet_client(self._network.devnet) as client:
            client.document()
            return {seat: name for name, seat in client.epochs.seats.items()}

    def _episode(self, episode: Episode, saboteur: Saboteur) -> bool:
        """Do it all, undo it all, and wait until the network goes on. Whether it does."""
        record, logs = Record(time.time(), []), list[Tail]()
        self._records.append(record)
        began = time.monotonic()
        steps = [(fault.after, False, fault) for fault in episode.faults] + [(f.until, True, f) for f in episode.faults]
        for moment, ends, fault in sorted(steps, key=lambda step: step[:2]):
            while time.monotonic() < began + moment:
                self._tick()
            if ends:
                saboteur.end(fault)
                continue
            if fault.kind in SINGLE:
                for victim in saboteur.victims(fault):
                    self._excused.add(victim)
                    logs.append(Tail(victim, self._folder.log(victim)))
            did = saboteur.begin(fault)
            record.did.append(did)
            self._doing = "; ".join(record.did)
            self._screen.say(f"{self._clock()}  {did}")
        self._network.restore()
        self._doing = "recovering"
        healed = time.monotonic()
        try:
            self._wait(lambda: self._goes_on(healed), RECOVERY_SECONDS, "recovery")
        except CannotRun:
            self._violations.append(
                f"not recovered within {RECOVERY_SECONDS:.0f} s of: {'; '.join(record.did)}: {self._missing(healed)}"
            )
        else:
            record.recovered = round(time.monotonic() - healed, 1)
            self._screen.say(f"{self._clock()}  recovered after {record.recovered} s")
        self._doing = ""
        calm = time.monotonic() + CALM_SECONDS
        while time.monotonic() < calm:
            self._tick()
        record.said = [line for log in logs for line in log.told()]
        record.ended = time.time()
        return record.recovered is not None

    def _goes_on(self, since: float) -> bool:
        """Whether every node has got beyond where the first was at ``since``, and a later payment from each shard committed."""
        return not self._missing(since)

    def _missing(self, since: float) -> str:
        behind = self._observer.behind(self._heights_at(since), since)
        if behind is None:
            return "nobody was asked yet"
        if behind:
            return ", ".join(behind)
        return "" if self._flows(since) else "no payment commits"

    def _heights_at(self, since: float) -> dict[Chain, int]:
        if self._floor[0] != since:
            self._floor = (since, self._observer.heights())
        return self._floor[1]

    def _flows(self, since: float) -> bool:
        return self._load is not None and self._load.flows(since)

    def _tick(self) -> None:
        """A moment passes. Raises Interrupted."""
        if self._stop.wait(0.05):
            raise Interrupted
        for name, how in self._network.keep():
            self._screen.say(f"{self._clock()}  {name} {how}")
            (self._notes if name in self._excused else self._violations).append(f"{name} ended by itself: {how}")
        if self._began:
            done = min(1.0, (time.monotonic() - self._began) / (self._options.minutes * 60))
            load = self._load
            paid = f"{len(load.taken)} payments, {len(load.committed)} seen committed" if load else ""
            heights = ", ".join(f"shard {chain.shard} at {height}" for chain, height in self._observer.heights().items())
            self._screen.status(f"{bar(done)} {self._clock()}  {paid}  {heights}  {self._doing}")

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        if not self._began:
            self._screen.progress(f"Waiting for {what} ...")
        while not condition():
            if time.monotonic() > deadline:
                raise CannotRun(f"waited {seconds:.0f} s for {what}")
            self._tick()

    def _clock(self) -> str:
        return clock(time.monotonic() - self._began) if self._began else clock(0)

    # -- what is left ----------------------------------------------------------------------------------------------

    def _conclude(self) -> dict[str, Any]:
        """Heal everything, wait until all is decided, and compare."""
        load, network, lasted = self._load, self._network, time.monotonic() - self._began
        assert load is not None
        network.restore()
        self._doing = "waiting until every payment is decided"
        self._screen.say(f"{self._clock()}  no more faults; waiting until every payment is decided ...")
        if not self._meanwhile(lambda: load.stop(ANSWER_SECONDS)):
            self._violations.append("the gateway did not answer all customers")
        views, odd = self._meanwhile(lambda: load.outcomes(FINAL_SECONDS))
        self._screen.say(f"{self._clock()}  auditing, and comparing balances and states ...")
        self._violations += verdict.check_payments(load, views, odd)
        wrong, audited = self._meanwhile(lambda: verdict.check_audit(network))
        self._violations += wrong
        wrong, compared = self._meanwhile(lambda: verdict.check_balances(load, views, network))
        self._violations += wrong
        settled, roots = time.monotonic(), None
        with contextlib.suppress(CannotRun):
            self._wait(lambda: self._observer.agreement(settled) is not None, 30.0, "all nodes of each committee at one height")
        if (roots := self._observer.agreement(settled)) is None:
            silent = self._observer.silent(settled)
            self._violations.append(f"the nodes of a committee do not agree on height and state (silent: {silent or 'none'})")
        self._observer.end()
        self._violations += self._observer.forks
        times = verdict.commit_times(views)
        for record in self._records:
            record.paused = round(verdict.longest_pause(times, record.began, record.ended or time.time()), 2)
        counts, reasons = verdict.count_outcomes(views)
        return {
            "passed": not self._violations,
            "seed": self._options.seed,
            "minutes": round(lasted / 60, 2),
            "committees": self._options.committees,
            "committee_size": self._options.committee_size,
            "gateways": self._options.gateways,
            "began": self._records[0].began if self._records else time.time(),
            "episodes": [
                {"at": r.began, "did": r.did, "said": r.said, "recovered_after": r.recovered, "payments_paused": r.paused}
                for r in self._records
            ],
            "skipped": self._skipped,
            "notes": self._notes,
            "payments": {
                "taken": len(load.taken),
                **{status: counts[status] for status in FINAL},
                "not_final": sum(counts.values()) - sum(counts[status] for status in FINAL),
                "reasons": dict(reasons),
                "lost": len(load.taken.keys() - views.keys()),
                "unknown_or_twice": len(odd),
                "requests_repeated_without_answer": load.unanswered,
                "keys_repeated": load.repeated,
            },
            "longest_pause": max((record.paused for record in self._records), default=0.0),
            "balances": {"wallets": len(verdict.expected_balances(load, views)), "answers_of_nodes": compared},
            "audit": audited,
            "states": {str(shard): {"height": h, "root": root} for shard, (h, root) in (roots or {}).items()},
            "states_compared": self._observer.compared,
            "violations": self._violations,
        }

    def _meanwhile(self, work: Callable[[], Any]) -> Any:
        """Do something that takes long while the network is kept up and Ctrl-C is heard. Raises what the work raises."""
        outcome: list[Any] = []
        failure: list[BaseException] = []

        def target() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        while thread.is_alive():
            self._tick()
        if failure:
            raise failure[0]
        return outcome[0]
