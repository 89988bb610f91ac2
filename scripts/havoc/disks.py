"""Fills one node's disk. As root each node's folder is a small file system of its own; otherwise the kernel refuses to let
its files grow (RLIMIT_FSIZE), which fails the same writes with another error number."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scripts.havoc.tools import run, succeeds

MOUNT_OPTIONS = "size=1g,mode=700"
SLACK_BYTES = 64 << 10


class Disks:
    """``mounted``: whether folders are file systems of their own."""

    def __init__(self, homes: dict[str, Path], logs: dict[str, Path]) -> None:
        self._homes, self._logs = homes, logs
        self._limits: dict[str, tuple[int, tuple[int, int]]] = {}
        self.mounted = False

    def mount(self) -> bool:
        """Whether it could be done: needs root on Linux."""
        for name, home in self._homes.items():
            if not _mount(name, home):
                self.release(keep=False)
                return False
            self.mounted = True
        return True

    def add(self, homes: dict[str, Path], log: Callable[[str], Path]) -> None:
        """Nodes more, with nothing on their disks yet. Raises OSError."""
        self._homes |= homes
        self._logs |= {name: log(name) for name in homes}
        for name, home in homes.items():
            if self.mounted and not _mount(name, home):
                raise OSError(f"no file system for {name}")

    def fill(self, name: str, pid: int) -> None:
        """Leave no room. Raises OSError."""
        if self.mounted:
            self._shrink(self._homes[name])
        else:
            before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            log = self._logs[name]
            limit = (log.stat().st_size if log.exists() else 0) + SLACK_BYTES  # the log shall tell of it
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, before[1]))
            self._limits[name] = pid, before

    def _shrink(self, home: Path) -> None:
        """Make the file system as small as what is in it; that grows meanwhile, then it is refused."""
        for slack in (0, SLACK_BYTES, 4 * SLACK_BYTES, 16 * SLACK_BYTES):
            space = os.statvfs(home)
            size = (space.f_blocks - space.f_bfree + 1) * space.f_frsize + slack
            if succeeds("mount", "-o", f"remount,size={size}", str(home)):
                return
        raise OSError(f"cannot fill the disk of {home}")

    def free(self, name: str) -> None:
        """Make room again. Does nothing when nothing was filled."""
        if self.mounted:
            run("mount", "-o", f"remount,{MOUNT_OPTIONS}", str(self._homes[name]))
        elif name in self._limits:
            pid, limit = self._limits.pop(name)
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)

    def release(self, keep: bool) -> None:
        """Take the file systems away; with ``keep`` what was in them stays, as ordinary files."""
        for home in self._homes.values():
            if not os.path.ismount(home):
                continue
            copy = home.with_name(home.name + ".kept")
            if keep:
                shutil.copytree(home, copy)
            if not succeeds("umount", str(home)):
                subprocess.run(["umount", "-l", str(home)], check=False)
            if keep:
                home.rmdir()
                copy.rename(home)


def _mount(name: str, home: Path) -> bool:
    """Whether it could be done."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return succeeds("mount", "-t", "tmpfs", "-o", MOUNT_OPTIONS, f"shardpay-{name}", str(home))
