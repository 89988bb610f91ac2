"""Makes .venv/ from pyproject.toml and config/constraints.txt when it is absent or out of date, then runs a module in it.

Standard library only: this runs before anything is installed. The environment holds the dependencies; the project itself
runs from the checkout. Called by scripts/_env. SHARDPAY_ENVIRONMENT names another folder than .venv/.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = Path(os.environ.get("SHARDPAY_ENVIRONMENT", ROOT / ".venv"))
PYTHON = ENVIRONMENT / "bin" / "python"
CONSTRAINTS = ROOT / "config" / "constraints.txt"


class BootstrapError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def requirements(level: str) -> list[str]:
    """What pyproject.toml asks for: ``runtime``, or ``dev`` for that and what the tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["dev"] if level == "dev" else []
    return [*project["dependencies"], *extra]


def pinned(level: str) -> list[str]:
    """The exact versions of config/constraints.txt; those below its line "# development" only for ``dev``."""
    runtime, _, development = CONSTRAINTS.read_text().partition("\n# development\n")
    lines = (runtime + "\n" + (development if level == "dev" else "")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def fingerprint(level: str) -> str:
    """Changes whenever the environment has to be brought up to date."""
    return hashlib.sha256("\n".join(requirements(level) + pinned(level)).encode()).hexdigest()


def is_current(level: str) -> bool:
    stamp = ENVIRONMENT / f"installed-{level}"
    return PYTHON.exists() and stamp.is_file() and stamp.read_text() == fingerprint(level)


@contextmanager
def only_one() -> Iterator[None]:
    """Holds the checkout's lock, so that two scripts started at once do not both install."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another script is preparing .venv/; waiting for it ...")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def prepare(level: str) -> None:
    """Bring .venv/ up to date for ``level``. Raises BootstrapError."""
    if is_current(level):
        return
    with only_one():
        if is_current(level):
            return
        if not works(PYTHON):
            say(f"Making .venv/ with Python {sys.version.split()[0]} ...")
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            make_environment()
        say("Installing the dependencies (a minute or two on first use) ...")
        install(level)
        if level == "dev":
            (ENVIRONMENT / "installed-runtime").write_text(fingerprint("runtime"))
        (ENVIRONMENT / f"installed-{level}").write_text(fingerprint(level))


def works(python: Path) -> bool:
    """Whether an interpreter starts, is new enough, and has pip: an interrupted or moved environment does not."""
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", check], capture_output=True).returncode == 0
    except OSError:
        return False


def make_environment() -> None:
    base = getattr(sys, "_base_executable", sys.executable)  # not the broken .venv/ itself
    made = subprocess.run([base, "-m", "venv", ENVIRONMENT], capture_output=True, text=True)
    if made.returncode:
        hint = "On Debian and Ubuntu the package python3-venv is needed: apt install python3-venv"
        raise BootstrapError(f"cannot make .venv/:\n{made.stdout}{made.stderr}{hint}")


def install(level: str) -> None:
    """Install the pinned versions, then whatever pyproject.toml asks for beyond them. Raises BootstrapError."""
    pip(["--no-deps", *pinned(level)])
    pip(["-c", str(CONSTRAINTS), *(r for r in requirements(level) if not r.startswith("libp2p"))])  # why: see constraints.txt


def pip(arguments: list[str]) -> None:
    """Run pip, which takes index, proxy and the like from its own configuration and PIP_* variables."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    last, collected = deque[str](maxlen=20), 0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line)
            if line.startswith("Collecting "):
                collected += 1
                progress(f"  {collected} packages found: {line.split()[1]}", also_plain=collected % 25 == 0)
            elif line.startswith(("Installing collected", "  Building wheel")):
                progress("  " + line.strip()[:60], also_plain=True)
    progress("", also_plain=False)
    if process.returncode:
        raise BootstrapError("".join(last) + "pip could not install the dependencies (its last lines are above)")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def progress(text: str, also_plain: bool) -> None:
    """One line that rewrites itself in a terminal; elsewhere only some lines."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif also_plain:
        say(text)


def main() -> None:
    level, module, *arguments = sys.argv[1:]
    try:
        prepare(level)
    except BootstrapError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; run it again to go on.")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.execve(PYTHON, [str(PYTHON), "-m", module, *arguments], {**os.environ, "PYTHONPATH": path})


if __name__ == "__main__":
    main()
