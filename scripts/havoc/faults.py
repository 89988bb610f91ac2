"""What each kind of fault does to the network, and what undoes it."""

import random
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from scripts.havoc.disks import Disks
from scripts.havoc.hosts import Hosts
from scripts.havoc.network import Network
from scripts.havoc.plan import SERVICES, Fault, Seat

CLOCK_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
SPOTS, SPOT_BYTES = 64, 16


class Saboteur:
    """Begins faults and ends them. ``sitting``: who sits where. Methods raise OSError, ProcessError."""

    def __init__(
        self, network: Network, disks: Disks, hosts: Hosts | None, sitting: Callable[[Sequence[Seat]], list[str]]
    ) -> None:
        self._network, self._disks, self._hosts, self._sitting = network, disks, hosts, sitting

    def victims(self, fault: Fault) -> list[str]:
        """Whom it would hit now."""
        if fault.kind in ("gateway", "stall"):
            return [random.Random(fault.detail).choice(self._network.devnet.gateway_names)]
        if fault.kind in SERVICES:
            return [fault.kind]
        return self._network.names if fault.kind == "blackout" else self._sitting(fault.nodes)

    def begin(self, fault: Fault, names: Sequence[str]) -> str:
        """Do it to these, at least one; what was done, in words."""
        who, chance = ", ".join(names), random.Random(fault.detail)
        match fault.kind:
            case "pause" | "freeze" | "stall":
                self._network.send(names, signal.SIGSTOP)
                return f"SIGSTOP {who} for {fault.seconds} s"
            case "disk":
                self._disks.fill(names[0], self._network.pid(names[0]))
                return f"no room on the disk of {who} for {fault.seconds} s"
            case "damage":
                self._network.kill(names)
                done = ", ".join(f"{file.name} {damage(file, chance)}" for file in self._databases(names[0])[-1:])
                return f"kill -9 {who}, and its database damaged: {done or 'it has none'}"
            case "delete":
                self._network.kill(names)
                for file in self._network.folder.home(names[0]).glob("*.db*"):
                    file.unlink()
                return f"kill -9 {who}, and its databases deleted"
            case "clock":
                minutes = chance.choice([-5, -2, 2, 5])
                self._network.kill(names)
                self._network.start(names, false_clock(minutes))
                return f"{who} started again with its clock {minutes:+} minutes off, for {fault.seconds} s"
            case "cut":
                self._need_hosts().cut(names)
                return f"{who} cut off for {fault.seconds} s"
            case "split":
                self._need_hosts().part(names)
                return f"{who} in a network apart from the others for {fault.seconds} s"
            case _:
                self._network.kill(names)
                return f"kill -9 {'every process' if fault.kind == 'blackout' else who}, down for {fault.seconds} s"

    def end(self, fault: Fault, names: Sequence[str]) -> None:
        """Undo what was begun with these."""
        match fault.kind:
            case "pause" | "freeze" | "stall":
                self._network.send(names, signal.SIGCONT)
            case "disk":
                self._disks.free(names[0])
            case "cut" | "split":
                self._need_hosts().join(names)
            case "clock":
                self._network.kill(names)
                self._network.start(names)
            case _:
                self._network.start(names)

    def _databases(self, name: str) -> list[Path]:
        """Of its chains, by epoch."""
        return sorted(self._network.folder.home(name).glob("chain-*.db"), key=lambda path: int(path.name.split("-")[1]))

    def _need_hosts(self) -> Hosts:
        assert self._hosts is not None
        return self._hosts


def damage(file: Path, chance: random.Random) -> str:
    """Spoil a database that nobody has open; what was done, in words."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else its log has all that matters once more
    size = file.stat().st_size
    with open(file, "r+b") as raw:
        match chance.choice(["cut", "spots", "start"]):
            case "cut":
                share = chance.uniform(0.1, 0.9)
                raw.truncate(int(size * share))
                return f"cut to {share:.0%}"
            case "spots":
                for _ in range(SPOTS):
                    raw.seek(chance.randrange(size))
                    raw.write(chance.randbytes(SPOT_BYTES))
                return f"overwritten in {SPOTS} places"
            case _:
                raw.write(bytes(100))
                return "without its first 100 bytes"


def false_clock(minutes: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong. Raises OSError without the library that does it."""
    found = clock_libraries()
    if not found:
        raise OSError("libfaketime is not installed")
    return {"LD_PRELOAD": found[0], "FAKETIME": f"{minutes:+}m", "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def clock_libraries() -> Sequence[str]:
    return [str(path) for pattern in CLOCK_LIBRARIES for path in Path("/").glob(pattern[1:])]
