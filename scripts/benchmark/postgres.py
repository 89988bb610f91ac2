"""PostgreSQL on the same machine in the same minutes: pgbench's TPC-B, for a ratio that says more than a rate.

A server of its own in a temporary folder, on a Unix socket, durable as it comes. It is started for each measurement and is gone
while the network is measured.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmark.load import BenchError
from scripts.benchmark.report import say

PROGRAMS = ("postgres", "initdb", "pgbench")
PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian keeps them, by version: VERSION/bin."""
SCALE = 10
"""Branches, of 100,000 accounts each: with fewer, clients wait for each other's rows."""
CLIENTS = 16
MODES = ("simple", "prepared")
"""How statements are sent: as text each time, or prepared once."""
UNPRIVILEGED = ("postgres", "nobody")
"""Whom root becomes: the server refuses to run as root."""
START_SECONDS = 30.0


def find_programs() -> dict[str, Path]:
    """Where they are: in PATH, or where Debian puts them, the newest. Raises BenchError."""
    found = {}
    for name in PROGRAMS:
        packaged = sorted(PACKAGED.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
        if in_path := shutil.which(name):
            found[name] = Path(in_path)
        elif packaged:
            found[name] = packaged[-1]
    if missing := [name for name in PROGRAMS if name not in found]:
        raise BenchError(f"--pgbench needs PostgreSQL: no {' and no '.join(missing)} in PATH or {PACKAGED}/*/bin")
    return found


def measure_postgres(programs: Mapping[str, Path], seconds: float) -> dict[str, float]:
    """Transactions a second by mode. Raises BenchError."""
    rates = {}
    with _server(programs) as socket:
        pgbench = [str(programs["pgbench"]), "-h", str(socket), "-U", "bench"]
        say("pgbench: filling the tables ...")
        _run([*pgbench, "-i", "-q", "-s", str(SCALE), "postgres"])
        for mode in MODES:
            say(f"pgbench: TPC-B, {mode}, for {seconds:.0f} s ...")
            load = ["-M", mode, "-c", str(CLIENTS), "-j", str(os.cpu_count() or 1), "-T", str(max(1, round(seconds)))]
            rates[mode] = rate_of(_run([*pgbench, *load, "postgres"]))
    return rates


def postgres_figures(before: Mapping[str, float], after: Mapping[str, float], tps: float) -> dict[str, Any]:
    """Plain JSON values. ``ratio``: of this network's rate to the mean of PostgreSQL's."""
    means = {mode: (before[mode] + after[mode]) / 2 for mode in MODES}
    return {
        mode: {"before": round(before[mode], 1), "after": round(after[mode], 1), "ratio": round(tps / means[mode], 2)}
        for mode in MODES
    }


def rate_of(output: str) -> float:
    """What pgbench says it did; of two rates the last, without the time to connect. Raises BenchError."""
    rates = re.findall(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if not rates:
        raise BenchError(f"pgbench told no rate: {output.strip()[-200:]}")
    return float(rates[-1])


@contextlib.contextmanager
def _server(programs: Mapping[str, Path]) -> Iterator[Path]:
    """Run one; gives the folder of its socket. Stopped and removed when the ``with`` ends. Raises BenchError."""
    folder = Path(tempfile.mkdtemp(prefix="shardpay-postgres-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        user = _unprivileged()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data, log = folder / "data", folder / "log"
        _run([str(programs["initdb"]), "-D", str(data), "-U", "bench", "-A", "trust"], user)
        arguments = [str(programs["postgres"]), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
        with log.open("wb") as output:
            server = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True, cwd="/", **_as(user))
        _wait_until_ready(server, data / "postmaster.pid", log)
        yield folder
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(server: subprocess.Popen[bytes], pid_file: Path, log: Path) -> None:
    """The eighth line of its file says so."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, IndexError):
            if pid_file.read_text().splitlines()[7].strip() == "ready":
                return
        if server.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"PostgreSQL does not start: {log.read_text(errors='replace').strip()[-300:]}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Its data is not needed any more: at once."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _run(command: Sequence[str], user: pwd.struct_passwd | None = None) -> str:
    """What a program prints. Raises BenchError when it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, cwd="/", **_as(user))
    if done.returncode:
        raise BenchError(f"{Path(command[0]).name}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _unprivileged() -> pwd.struct_passwd | None:
    """Whose the server shall be, when this is root. Raises BenchError."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise BenchError(f"PostgreSQL does not run as root, and there is no user {' or '.join(UNPRIVILEGED)}")


def _as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
