"""One run: start the network and its customers, break things and see them heal, and compare what is left."""

import argparse
import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from node.protocol.chain import Chain
from node.protocol.genesis import Phase
from scripts.devnet import processes
from scripts.devnet.folder import FolderError
from scripts.devnet.layout import Folder
from scripts.devnet.session import Screen
from scripts.havoc import verdict
from scripts.havoc.burden import Burden
from scripts.havoc.deposing import Deposing
from scripts.havoc.disks import Disks
from scripts.havoc.faults import Saboteur, clock_libraries
from scripts.havoc.hosts import Hosts
from scripts.havoc.load import FINAL, Load
from scripts.havoc.network import Network
from scripts.havoc.observer import Observer
from scripts.havoc.plan import LOSING, SEVERAL, SINGLE, Episode, Fault, Seat, episodes
from scripts.havoc.record import Record, Tail
from scripts.havoc.report import bar, clock
from scripts.havoc.turnover import Turnover

START_SECONDS = 120.0
RECOVERY_SECONDS = 90.0
"""How long the network may take after an episode until every node and the payments from every shard go on."""
ANSWER_SECONDS = 60.0
AGREEMENT_SECONDS = 60.0
FINAL_SECONDS = 120.0
LEAVING_SECONDS = 300.0
"""How long it may take until all who were told to leave have: two epochs, and attempts that are called off."""
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
        self._burden = Burden()
        self._hit: dict[Fault, list[str]] = {}
        """Faults that are not over, and whom they befell."""
        self._turnover: Turnover | None = None
        """Whoever comes and goes, where epochs change; and who kills the coordinator meanwhile."""
        self._deposing: Deposing | None = None
        self._is_changing = False

    def run(self) -> dict[str, Any]:
        """Raises Interrupted, CannotRun, and what starting a network raises."""
        if self._folder.state.exists():
            raise FolderError(f"{self._data} holds a network already; this one breaks only its own: choose another --data")
        kept, hosts, disks = self._options.data is not None, None, None
        try:
            processes.raise_file_limit()
            options = self._options
            network = Network(
                self._folder,
                options.port_base,
                options.committees,
                options.committee_size,
                options.gateways,
                options.epoch_seconds,
            )
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
        self._began = time.monotonic()
        saboteur = Saboteur(network, disks, hosts, self._sitting)
        if options.epoch_seconds:
            seed, observer = options.seed, self._observer
            self._turnover = Turnover(network, observer, disks, self._burden, seed, options.epoch_seconds, options.committees)
            self._deposing = Deposing(network, observer, seed)
            self._is_changing = True
        for episode in episodes(options.seed, len(shards), options.committee_size, options.kinds):
            if time.monotonic() + episode.seconds > self._began + options.minutes * 60:
                break
            if not self._episode(episode, saboteur):
                break
        return self._conclude()

    def _sitting(self, seats: Sequence[Seat]) -> list[str]:
        """Who has these seats now. Which committee a seat's first number means changes with the epochs, so that each is meant."""
        document = self._observer.document
        assert document is not None
        count, turn = len(document.committees), document.number - 1
        return [document.committees[(place + turn) % count].members[member].name for place, member in seats]

    def _victims(self, fault: Fault, saboteur: Saboteur) -> list[str]:
        """As far as the committees bear it. Nobody else? Then one who is a burden anyway."""
        names = saboteur.victims(fault)
        document = self._observer.document
        if self._turnover is None or document is None or fault.kind not in (*SEVERAL, *SINGLE):
            return names
        names = [name for name in names if name not in self._burden.down]
        if borne := self._burden.bearable(names, self._observer.documents):
            return borne
        burdens = sorted(self._observer.answering & (self._burden.of(document.number) - self._burden.down))
        return self._burden.bearable(burdens, self._observer.documents)[:1]

    def _begin(self, fault: Fault, saboteur: Saboteur) -> tuple[list[str], str]:
        """Whom it befell, and what was done, in words."""
        names = self._victims(fault, saboteur)
        if not names:
            return [], f"no {fault.kind}: no committee could bear it now"
        did = saboteur.begin(fault, names)
        self._hit[fault] = names
        if self._turnover is not None and fault.kind in (*SEVERAL, *SINGLE):
            self._burden.down.update(names)
            document = self._observer.document
            if fault.kind in LOSING and document is not None:
                has_told = self._observer.phase not in (Phase.MINING, Phase.REGISTRATION)
                for name in names:
                    self._burden.lose_vote(name, document.number + has_told)
        return names, did

    def _end(self, fault: Fault, saboteur: Saboteur) -> None:
        if names := self._hit.pop(fault, None):
            saboteur.end(fault, names)
            self._burden.down.difference_update(names)

    def _relieve(self, saboteur: Saboteur) -> None:
        """A coming committee is known, and has more members down than it bears: some come back at once."""
        over = self._burden.overburdened(self._observer.documents)
        for fault in [fault for fault, names in self._hit.items() if over.intersection(names)]:
            if over & self._burden.overburdened(self._observer.documents):
                self._screen.say(
                    f"{self._clock()}  over earlier, for the sake of a coming committee: {', '.join(self._hit[fault])}"
                )
                self._end(fault, saboteur)

    def _episode(self, episode: Episode, saboteur: Saboteur) -> bool:
        """Do it all, undo it all, and wait until the network goes on. Whether it does."""
        record, logs = Record(time.time(), []), list[Tail]()
        self._records.append(record)
        began = time.monotonic()
        steps = [(fault.after, False, fault) for fault in episode.faults] + [(f.until, True, f) for f in episode.faults]
        for moment, ends, fault in sorted(steps, key=lambda step: step[:2]):
            while time.monotonic() < began + moment:
                self._tick()
                self._relieve(saboteur)
            if ends:
                self._end(fault, saboteur)
                continue
            names, did = self._begin(fault, saboteur)
            if fault.kind in SINGLE:
                self._excused.update(names)
                logs += [Tail(name, self._folder.log(name)) for name in names]
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
        document = self._observer.document
        return self._load is not None and document is not None and self._load.flows(since, document.shards)

    def _tick(self) -> None:
        """A moment passes. Raises Interrupted."""
        if self._stop.wait(0.05):
            raise Interrupted
        for name, how in self._network.keep():
            self._screen.say(f"{self._clock()}  {name} {how}")
            (self._notes if name in self._excused else self._violations).append(f"{name} ended by itself: {how}")
        self._change()
        if self._began:
            done = min(1.0, (time.monotonic() - self._began) / (self._options.minutes * 60))
            load = self._load
            paid = f"{len(load.taken)} payments, {len(load.committed)} seen committed" if load else ""
            heights = ", ".join(
                f"{f'epoch {chain.epoch} ' if self._turnover else ''}shard {chain.shard} at {height}"
                for chain, height in self._observer.heights().items()
            )
            self._screen.status(f"{bar(done)} {self._clock()}  {paid}  {heights}  {self._doing}")

    def _change(self) -> None:
        """What goes with the change of epochs."""
        if self._turnover is None or self._deposing is None:
            return
        now = time.monotonic()
        acts: list[Iterable[str]] = [self._turnover.gone()]
        if self._is_changing:
            acts += [self._turnover.tick(now), self._deposing.tick(now)]
        for said in (one for act in acts for one in act):
            self._screen.say(f"{self._clock()}  {said}")

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
        self._is_changing = False
        self._wait_for_leavers()
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
            self._wait(
                lambda: self._observer.agreement(settled) is not None,
                AGREEMENT_SECONDS,
                "all nodes of each committee at one height",
            )
        if (roots := self._observer.agreement(settled)) is None:
            silent = self._observer.silent(settled)
            self._violations.append(f"the nodes of a committee do not agree on height and state (silent: {silent or 'none'})")
        self._observer.end()
        self._violations += self._observer.forks
        times = verdict.commit_times(load, views)
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
            "epochs": self._epochs(),
            "states": {
                str(chain.shard): {"epoch": chain.epoch, "height": h, "root": root} for chain, (h, root) in (roots or {}).items()
            },
            "states_compared": self._observer.compared,
            "violations": self._violations,
        }

    def _wait_for_leavers(self) -> None:
        """Nothing is broken any more, so whoever was told to leave can."""
        if (turnover := self._turnover) is None:
            return
        self._doing = "waiting until all have left who were told to"
        self._screen.say(f"{self._clock()}  no more faults; {self._doing}: {', '.join(sorted(turnover.stayed)) or 'they have'}")
        try:
            self._wait(lambda: not turnover.stayed, LEAVING_SECONDS, "those who leave")
        except CannotRun:
            stuck = ", ".join(f"{name} (told in epoch {epoch})" for name, epoch in sorted(turnover.stayed.items()))
            self._violations.append(f"have not left within {LEAVING_SECONDS:.0f} s: {stuck}")

    def _epochs(self) -> dict[str, Any]:
        """How the epochs followed one another; nothing where there is one."""
        if self._turnover is None or self._deposing is None:
            return {}
        came = {"joined": self._turnover.joined, "left": self._turnover.left}
        return {**self._observer.story, **came, "coordinator_killed_in": {str(p): n for p, n in self._deposing.kills.items()}}

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
