"""A PostgreSQL of one's own: in a temporary folder, on a Unix socket, durable as it comes, gone afterwards."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs, by version: VERSION/bin."""
USER = "shardpay"
UNPRIVILEGED = ("postgres", "nobody")
"""Whom root becomes: the server refuses to run as root."""
START_SECONDS = 30.0


class PostgresError(Exception):
    """There is none, or it does not work; the text says why."""


def find_programs(*names: str) -> dict[str, Path]:
    """Where ``postgres``, ``initdb`` and the named ones are: in PATH, or where Debian puts them, the newest.

    Raises:
        PostgresError: not all are there.
    """
    found, wanted = dict[str, Path](), ("postgres", "initdb", *names)
    for name in wanted:
        packaged = sorted(PACKAGED.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
        if in_path := shutil.which(name):
            found[name] = Path(in_path)
        elif packaged:
            found[name] = packaged[-1]
    if missing := [name for name in wanted if name not in found]:
        raise PostgresError(f"PostgreSQL is needed: no {' and no '.join(missing)} in PATH or {PACKAGED}/*/bin")
    return found


@contextlib.contextmanager
def running_server(programs: Mapping[str, Path]) -> Iterator[Path]:
    """Run one; gives the folder of its socket, where ``USER`` may do everything. Stopped and removed when the ``with`` ends.

    Raises:
        PostgresError: it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="shardpay-postgres-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        user = _unprivileged()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data, log = folder / "data", folder / "log"
        run([str(programs["initdb"]), "-D", str(data), "-U", USER, "-A", "trust", "--no-sync"], user)
        arguments = [str(programs["postgres"]), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
        with log.open("wb") as output:
            server = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True, cwd="/", **_as(user))
        _wait_until_ready(server, data / "postmaster.pid", log)
        yield folder
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def url_of(socket: Path) -> str:
    """Of the database of a running server."""
    return f"postgresql://{USER}@/postgres?host={socket}"


def _wait_until_ready(server: subprocess.Popen[bytes], pid_file: Path, log: Path) -> None:
    """The eighth line of its file says so."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, IndexError):
            if pid_file.read_text().splitlines()[7].strip() == "ready":
                return
        if server.poll() is not None or time.monotonic() > deadline:
            raise PostgresError(f"PostgreSQL does not start: {log.read_text(errors='replace').strip()[-300:]}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Its data is not needed any more: at once."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def run(command: Sequence[str], user: pwd.struct_passwd | None = None) -> str:
    """What a program prints. Raises PostgresError when it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, cwd="/", **_as(user))
    if done.returncode:
        raise PostgresError(f"{Path(command[0]).name}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _unprivileged() -> pwd.struct_passwd | None:
    """Whose the server shall be, when this is root. Raises PostgresError."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresError(f"PostgreSQL does not run as root, and there is no user {' or '.join(UNPRIVILEGED)}")


def _as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
