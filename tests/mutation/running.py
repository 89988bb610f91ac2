"""Whether anybody notices a fault: first the simulator, then the unit tests that run the changed function, the fastest first.

Each fault is planted in a copy of the project. What runs there has a limit of processor time, several times what it takes
without a fault: it does not depend on how busy the machine is. ``python -m tests.mutation.running`` is what simulates there.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib import import_module
from itertools import islice
from pathlib import Path

from msgspec import Struct

from tests.mutation.planting import Fault

ROOT = Path(__file__).parents[2]
RUNS = {"committee": 30, "formation": 28, "network": 33, "liars": 4}
"""How many of each simulator a fault has to survive."""
_TIMES_NORMAL, _AT_LEAST = 6, 20
_MEMORY = 4 << 30
_REACHED = "reached.json"


class Verdict(Enum):
    SIMULATOR = "caught by the simulator"
    TESTS = "caught by tests"
    SURVIVED = "survived"
    BROKEN = "does not start"
    """No fault worth the name: the program cannot even be imported."""


class Result(Struct, frozen=True):
    """``by``: the test or the invariant that noticed. ``seconds``: of processor time."""

    fault: Fault
    verdict: Verdict
    by: str
    seconds: float


class Run(Struct, frozen=True):
    """A process that ended: what it said last, and whether it was stopped at its limit."""

    code: int
    said: str
    seconds: float


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """A copy of the project, in which faults can be planted."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copied = Path(folder, "copy")
        shutil.copytree(root, copied, ignore=shutil.ignore_patterns("__pycache__", ".git", ".venv", ".*_cache", ".cache"))
        yield copied


class Ground:
    """A copy of the project. ``reached``: functions that each test file calls, as (file, line). ``normal``: what each test file
    and each simulator takes when nothing is wrong, s of processor time. ``runs``: of each simulator."""

    def __init__(
        self, folder: Path, reached: dict[str, set[tuple[str, int]]], normal: dict[str, float], runs: dict[str, int] = RUNS
    ) -> None:
        self._folder, self._reached, self._normal, self._runs = folder, reached, normal, runs

    @classmethod
    def measure(cls, folder: Path) -> "Ground":
        """Run everything once without a fault. Raises ValueError when that fails already."""
        normal: dict[str, float] = {}
        for part, runs in RUNS.items():
            run = _simulate(folder, part, runs, 600)
            if run.code:
                raise ValueError(f"the simulator finds a fault before any is planted: {run.said}")
            normal[part] = run.seconds
        arguments = ["pytest", "tests/unit", "-p", "no:cacheprovider", "-p", "tests.mutation.reaching"]
        run = _run(folder, arguments, 600, reaching=_REACHED)
        if run.code:
            raise ValueError(f"tests fail before any fault is planted: {run.said}")
        found = json.loads((folder / _REACHED).read_text())
        reached = {name: {(path, line) for path, line in entry["functions"]} for name, entry in found.items()}
        return cls(folder, reached, normal | {name: entry["seconds"] for name, entry in found.items()})

    def at(self, folder: Path) -> "Ground":
        """The same measures for another copy."""
        return Ground(folder, self._reached, self._normal, self._runs)

    def judge(self, fault: Fault) -> Result:
        """Plant a fault, see who notices, and take it out again."""
        path = self._folder / fault.path
        original = path.read_bytes()
        try:
            path.write_bytes(fault.planted(original))
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
                compiled.unlink()
            return self._judge(fault)
        finally:
            path.write_bytes(original)

    def _judge(self, fault: Fault) -> Result:
        seconds = 0.0
        for part, runs in self._runs.items():
            run = _simulate(self._folder, part, runs, self._limit(part))
            seconds += run.seconds
            if run.code == _NOT_IMPORTED:
                return Result(fault, Verdict.BROKEN, run.said, seconds)
            if run.code:
                return Result(fault, Verdict.SIMULATOR, run.said, seconds)
        chosen = sorted(self._reaching(fault), key=lambda name: self._normal[name])
        if chosen:
            limit = self._limit(*chosen)
            run = _run(self._folder, ["pytest", *chosen, "-x", "-p", "no:cacheprovider", "--no-header"], limit)
            seconds += run.seconds
            if run.code:
                return Result(fault, Verdict.TESTS, run.said, seconds)
        return Result(fault, Verdict.SURVIVED, "", seconds)

    def _reaching(self, fault: Fault) -> list[str]:
        """The test files that call the function with the fault. If none does, it runs while they are imported, or is no function:
        all of the core's."""
        calling = [name for name, found in self._reached.items() if (fault.path, fault.defined) in found]
        return calling or [name for name, found in self._reached.items() if found]

    def _limit(self, *parts: str) -> float:
        return _AT_LEAST + _TIMES_NORMAL * sum(self._normal[part] for part in parts)


def _simulate(folder: Path, part: str, runs: int, limit: float) -> Run:
    return _run(folder, ["tests.mutation.running", part, str(runs)], limit)


def _run(folder: Path, arguments: list[str], limit: float, reaching: str = "") -> Run:
    """``python -m`` with a limit of processor time, s; of time on the wall it has ten times as much."""
    environment = os.environ | {
        "CI": "1",  # property tests draw the same examples each time
        "PYTHONDONTWRITEBYTECODE": "" if reaching else "1",
        "PYTHONHASHSEED": "0",
        "REACHING": reaching,
    }
    seconds = int(limit) + 1

    def bounds() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))

    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=bounds,
            start_new_session=True,  # tests that signal their process group, or faults that do, reach no further
        )
        timer = threading.Timer(10 * limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        _, status, used = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = _last_word(output.read().decode(errors="replace"))
    ended = process.returncode >= 0
    return Run(process.returncode, said if ended else "does not come to an end", used.ru_utime + used.ru_stime)


def _last_word(text: str) -> str:
    """The line that says what failed."""
    lines = [line for line in text.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return (failed or lines or [""])[-1][:300]


# -- in the copy -----------------------------------------------------------------------------------------------------------

_NOT_IMPORTED = 3


def main(part: str, runs: int) -> int:
    """Simulate until somebody notices something. Returns the exit code."""
    try:
        for program in ("node.runtime", "signaling.runtime"):
            import_module(program)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return _NOT_IMPORTED
    try:
        from tests.mutation import simulating

        for name, run in islice(simulating.runs(part), runs):
            if noticed := run():
                print(f"{name}: {noticed}")
                return 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
