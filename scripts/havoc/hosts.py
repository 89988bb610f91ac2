"""Each node on a host of its own: a network namespace, joined to the others and to this machine by a bridge.

A second bridge leads nowhere: who is moved there hears only others who were, which makes a partition. Latency and loss need
the kernel's netem.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from config.settings import CoordinatorSettings
from scripts.devnet.layout import LOOPBACK, Devnet, Program, node_settings
from scripts.havoc.tools import run

NETEM = ("delay", "5ms", "2ms", "loss", "0.5%")


class Hosts:
    """Needs root, ``ip`` and a kernel that has bridges and veth pairs. Raises OSError; then nothing is left behind."""

    def __init__(self, names: Sequence[str]) -> None:
        if shutil.which("ip") is None:
            raise OSError("no `ip` here (Debian: iproute2)")
        self._mark = f"sp{os.getpid() % 100_000}"
        self._subnet = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self._index = {name: index for index, name in enumerate(names)}
        self.netem = ""
        """Why there is no latency and loss, or empty."""
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    @property
    def _bridges(self) -> tuple[str, str]:
        return f"{self._mark}b0", f"{self._mark}b1"

    @property
    def here(self) -> str:
        """This machine's address on the bridge."""
        return f"{self._subnet}.1"

    def address(self, name: str) -> str:
        return f"{self._subnet}.{self._index[name] + 2}"

    def _space(self, name: str) -> str:
        return f"{self._mark}-{self._index[name]}"

    def _port(self, name: str) -> str:
        return f"{self._mark}v{self._index[name]}"

    def _build(self) -> None:
        for bridge in self._bridges:
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "link", "set", bridge, "up")
        run("ip", "address", "add", f"{self.here}/24", "dev", self._bridges[0])
        for name in self._index:
            space, port = self._space(name), self._port(name)
            run("ip", "netns", "add", space)
            run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "link", "set", port, "master", self._bridges[0], "up")
            run("ip", "-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
            if not self.netem:
                try:
                    run("ip", "netns", "exec", space, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", *NETEM)
                except OSError as error:
                    self.netem = str(error)

    def settings(self, devnet: Devnet, settings: Mapping[str, msgspec.Struct]) -> dict[str, msgspec.Struct]:
        """With the addresses of the hosts in place of this machine's loopback."""
        coordinator = f"/ip4/{self.here}/tcp/{devnet.ports.coordinator}"
        result = dict(settings)
        assert isinstance(settings["coordinator"], CoordinatorSettings)
        result["coordinator"] = msgspec.structs.replace(settings["coordinator"], listen=coordinator)
        for name, index in self._index.items():
            result[name] = node_settings(
                devnet.folder,
                devnet.ports,
                index,
                name,
                genesis=devnet.folder.genesis,
                coordinator=coordinator,
                broker=f"redis://{self.here}:{devnet.ports.broker}/0",
                host=self.address(name),
                advertise=self.address(name),
                keep_blocks=devnet.keep_blocks,
            )
        return result

    def programs(self, devnet: Devnet, programs: Sequence[Program]) -> list[Program]:
        """Nodes run in their namespaces; the broker listens on the bridge too."""
        result = []
        for program in programs:
            argv = program.argv
            if program.name in self._index:
                argv = ("ip", "netns", "exec", self._space(program.name), *argv)
            elif program.name == "broker":
                at = argv.index(LOOPBACK) + 1
                argv = (*argv[:at], self.here, "--protected-mode", "no", *argv[at:])
            result.append(replace(program, argv=argv))
        return result

    def part(self, names: Sequence[str]) -> None:
        """Move these to the other network, together."""
        for name in names:
            run("ip", "link", "set", self._port(name), "master", self._bridges[1])

    def cut(self, names: Sequence[str]) -> None:
        """Pull each one's cable."""
        for name in names:
            run("ip", "link", "set", self._port(name), "nomaster")

    def join(self, names: Sequence[str]) -> None:
        for name in names:
            run("ip", "link", "set", self._port(name), "master", self._bridges[0])

    def close(self) -> None:
        """Remove all of it; the processes in it have ended."""
        for name in self._index:
            for command in (("ip", "link", "del", self._port(name)), ("ip", "netns", "del", self._space(name))):
                with suppress(OSError):
                    run(*command)
        for bridge in self._bridges:
            with suppress(OSError):
                run("ip", "link", "del", bridge)
