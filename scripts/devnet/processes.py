"""Starts, finds and ends the processes of a network's folder.

A process is found by what the operating system knows of it, not by a file of process ids, which may be stale and name
somebody else's process by now: each is started with SHARDPAY_PROCESS="DIR#NAME" in its environment - or, if it was forked, in its
title - and as the leader of a session of its own. Its own children (miners) inherit the mark, so they too are found, even when
their parent is gone.
"""

import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from scripts.devnet.forking import TITLE, can_fork, fork
from scripts.devnet.layout import LOOPBACK, Folder, Program

MARK = "SHARDPAY_PROCESS"
MAX_LOG_BYTES = 32 << 20
_FORKING = "forking"
"""What forks others is found by this name, and so are they until they have their own."""
TERM_SECONDS = 3.0
"""Time to end in order, before SIGKILL."""


class ProcessError(Exception):
    """A process cannot be started; the text says why and what to do."""


class Running:
    """A live process of ours: started by this very script (then its exit code can be told) or found."""

    def __init__(self, pid: int, process: psutil.Process | None, popen: "subprocess.Popen[bytes] | None" = None) -> None:
        """``process``: None if it ended before anybody looked."""
        self.pid = pid
        self._process = process
        self._popen = popen

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""
        if self._popen is None:
            return None if self._process is not None and is_alive(self._process) else "ended"
        code = self._popen.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def is_alive(process: psutil.Process) -> bool:
    """A zombie is dead: it only waits for its parent to take note."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def marked(folder: Folder) -> list[tuple[str, psutil.Process]]:
    """(program's name, process) of everything that runs for this folder, children of programs included."""
    prefix, found = f"{folder.data}#", []
    for process in psutil.process_iter():
        mark = _mark(process)
        if mark.startswith(prefix) and process.pid != os.getpid() and is_alive(process):
            found.append((mark.removeprefix(prefix), process))
    return found


def _mark(process: psutil.Process) -> str:
    """Of a process of ours; else nothing."""
    with suppress(psutil.Error, OSError):
        shown = " ".join(process.cmdline()).rstrip()
        return shown.removeprefix(TITLE) if shown.startswith(TITLE) else str(process.environ().get(MARK, ""))
    return ""


def programs_running(folder: Folder) -> dict[str, Running]:
    """The folder's live programs by name, without their children."""
    return {name: Running(process.pid, process) for name, process in marked(folder) if _leads_session(process)}


def start_missing(folder: Folder, programs: Sequence[Program]) -> tuple[dict[str, Running], list[str]]:
    """Start those of ``programs`` that do not run; end first what is left of their children from an earlier life.

    Returns:
        All programs that now run, and the names of those started.

    Raises:
        ProcessError: a port is taken, or one cannot be executed; then none is started.
    """
    found = marked(folder)
    running = {name: Running(process.pid, process) for name, process in found if _leads_session(process)}
    missing = [program for program in programs if program.name not in running]
    names = [program.name for program in missing]
    for name, orphan in found:
        if name in names:
            with suppress(psutil.Error):
                orphan.kill()
    for program in missing:
        for port in program.ports:
            if not _becomes_free(port):
                raise ProcessError(f"{program.name}: port {port} is taken by another program; choose another --port-base")
    try:
        return running | _start_all(folder, missing), names
    except ProcessError:
        stop(folder, only=[*names, _FORKING])
        raise


def _start_all(folder: Folder, programs: Sequence[Program]) -> dict[str, Running]:
    """Those that are alike from one process, if there are several; it loads what they need while the others load theirs."""
    for program in programs:
        program.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(program.log)
    alike = [program for program in programs if can_fork(program)]
    if len(alike) < 2:
        alike = []
    started = {program.name: _start(folder, program) for program in programs if program not in alike}
    if alike and (forked := _fork(folder, alike)) is not None:
        return started | forked
    return started | {program.name: _start(folder, program) for program in alike}


def _fork(folder: Folder, programs: Sequence[Program]) -> dict[str, Running] | None:
    """None: it did not work, so that they are better executed, each with a log of what is wrong."""
    marks = [f"{folder.data}#{program.name}" for program in programs]
    try:
        pids = fork(programs, MARK, marks, f"{folder.data}#{_FORKING}")
    except OSError:
        return None
    processes: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            processes[pid] = psutil.Process(pid)
    wanted = {processes[pid]: mark for pid, mark in zip(pids, marks, strict=True) if pid in processes}
    deadline = time.monotonic() + 5
    while unmarked := [p for p, mark in wanted.items() if _mark(p) != mark and is_alive(p)]:
        if time.monotonic() > deadline:
            for process in wanted:
                process.kill()
            _wait_until_gone(unmarked, 1)
            return None
        time.sleep(0.001)
    return {program.name: Running(pid, processes.get(pid)) for program, pid in zip(programs, pids, strict=True)}


def _start(folder: Folder, program: Program) -> Running:
    environment = {**os.environ, **dict(program.environment), MARK: f"{folder.data}#{program.name}"}
    try:
        with open(program.log, "ab") as log:
            popen = subprocess.Popen(
                program.argv,
                cwd=program.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = psutil.Process(popen.pid)
        deadline = time.monotonic() + 5
        while popen.poll() is None and not _mark(process) and time.monotonic() < deadline:
            time.sleep(0.001)  # the kernel shows the new environment a moment after the program is executed
        return Running(process.pid, process, popen)
    except (OSError, psutil.NoSuchProcess) as error:
        raise ProcessError(f"cannot start {program.name}: {error}") from None


def stop(folder: Folder, only: Collection[str] | None = None) -> list[str]:
    """End everything that runs for this folder, or only the programs named, within 5 s: all at once asked, then forced.

    Returns:
        The programs' names.
    """

    def concerned() -> list[tuple[str, psutil.Process]]:
        return [(name, process) for name, process in marked(folder) if only is None or name in only]

    running = concerned()
    leaders = [process for _, process in running if _leads_session(process)]
    for process in leaders:
        with suppress(psutil.Error):
            process.terminate()
    _wait_until_gone(leaders, TERM_SECONDS)
    for _ in range(3):  # what a process started while it was being killed is found the next time
        rest = [process for _, process in concerned()]
        for process in rest:
            with suppress(psutil.Error):
                process.kill()
        if not rest:
            break
        _wait_until_gone(rest, 0.5)
    return list(dict.fromkeys(name for name, _ in running))


def _wait_until_gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _leads_session(process: psutil.Process) -> bool:
    try:
        return bool(os.getsid(process.pid) == process.pid)
    except OSError:
        return False


def _becomes_free(port: int) -> bool:
    """Whether the port can be listened on, now or within the second its last user may take to be gone."""
    deadline = time.monotonic() + 1
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port only waiting out TIME_WAIT is free
            try:
                probe.bind((LOOPBACK, port))
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
        time.sleep(0.05)


def bound_log(log: Path) -> None:
    """Begin a log anew when it has grown large, and keep one older one. Its writers append, so they may go on meanwhile. Where
    that cannot be, as on a full disk, the log stays as it is."""
    older = log.with_name(log.name + ".1")
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            try:
                shutil.copyfile(log, older)
            except OSError:
                older.unlink(missing_ok=True)  # the half of it that there was room for
                raise
            os.truncate(log, 0)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, as far as there are any."""
    with suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
        return [line[:400] for line in file.read().decode(errors="replace").splitlines() if line.strip()][-count:]
    return []


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system allows it to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def changing(folder: Folder) -> Iterator[None]:
    """Only one script at a time starts or ends processes of a folder. The kernel lets go of the lock when its holder dies."""
    handle = _open_lock(folder.run / "lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def supervising(folder: Folder) -> Iterator[bool]:
    """Be the one that restarts what dies, as long as the block lasts. Gives False when another script is."""
    handle = _open_lock(folder.run / "supervisor")
    try:
        if mine := _try_lock(handle, fcntl.LOCK_EX, seconds=0.5):  # supervisor() holds it for an instant
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield mine
    finally:
        os.close(handle)


def supervisor(folder: Folder) -> int | None:
    """Process id of the script that restarts what dies, if there is one: it holds a lock as long as it lives."""
    try:
        handle = os.open(folder.run / "supervisor", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        pid = b"" if _try_lock(handle, fcntl.LOCK_SH, seconds=0) else os.read(handle, 20)
        return int(pid) if pid.isdigit() else None
    finally:
        os.close(handle)


def end_supervisor(folder: Folder) -> bool:
    """Ask the supervising script to end, and force it after 6 s. Returns whether there was one."""
    pid = supervisor(folder)
    if pid is None:
        return False
    deadline = time.monotonic() + TERM_SECONDS * 2
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while supervisor(folder) == pid:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    return True


def _open_lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _try_lock(handle: int, kind: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(0.02)
