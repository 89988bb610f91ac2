"""``scripts/test``: lint, formatting, types, tests - and a summary that ends with pytest's own.

Tests of networks mostly wait: what only computes runs beside them, and beside the unit tests with another Python, with what they
leave of the processor.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.beside import Beside
from scripts.covered import read, table

ROOT = Path(__file__).resolve().parent.parent
USAGE = """usage: ./scripts/test [--quick | --also-with PYTHON | PYTEST ARGUMENTS...]

Checks lint (ruff), formatting, types (mypy --strict) and runs all tests, with their coverage by package. For the working day:
  ./scripts/test --quick                      the same checks, but of the tests only the folder tests/unit, without the long ones
  ./scripts/test --also-with python3.13       everything, and these with another Python, in an environment made for it
  ./scripts/test tests/unit -k ledger -x      only pytest, with these arguments
The first use makes .venv/ with the development tools. The exit code is not 0 when anything fails.
"""
Commands = dict[str, list[str]]
PYTHON = [sys.executable, "-m"]
PYTEST = [*PYTHON, "pytest"]
COVERED = [*PYTEST, "-p", "scripts.coverage"]
WORKERS = ["-n", "logical", "--dist", "worksteal"]  # the slowest tests are neighbours: who is done takes some of them
"""How many they are says tests/conftest.py."""
FEWER_WORKERS = ["-n", "auto", "--dist", "worksteal"]  # of what others leave
STYLE = {"lint": [*PYTHON, "ruff", "check", "."], "format": [*PYTHON, "ruff", "format", "--check", "."]}
TYPES = {"types": [*PYTHON, "mypy"]}
UNCACHED = ["-p", "no:cacheprovider"]
MEASURING, NETWORK, COMPUTING = ["tests/bench"], ["tests/network"], ["tests/mutation", "tests/simulation"]
SHORT = ["-m", "not long", "tests/unit"]
QUICK_TESTS = {"tests": [*PYTEST, *WORKERS, *SHORT]}
MEASURING_TESTS = {"tests that measure": [*PYTEST, *MEASURING]}
NETWORK_TESTS = {"tests of whole networks": [*COVERED, *NETWORK]}
COMPUTING_TESTS = {"tests that compute": [*COVERED, *FEWER_WORKERS, *COMPUTING]}
OTHER_TESTS = {"tests": [*COVERED, *WORKERS, *(f"--ignore={folder}" for folder in MEASURING + NETWORK + COMPUTING)]}


def run(command: list[str], environment: dict[str, str] | None = None) -> int:
    """Its exit code. ``environment``: beside the own one. Raises KeyboardInterrupt after an interrupt: the tool hears of it,
    too, and ends its own children first."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})})
    interrupted = False

    def terminated(*_: object) -> None:
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminated)
    while process.returncode is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            interrupted = True
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode


class Checks:
    """What has run, and how it ended.

    Attributes:
        results: a line for each.
    """

    def __init__(self) -> None:
        self.results: list[str] = []
        self._beside: dict[str, Beside] = {}
        self._finished: dict[str, Beside] = {}

    @property
    def failed(self) -> bool:
        return any("FAILED" in line for line in self.results)

    def run(self, commands: Commands, environment: dict[str, str] | None = None) -> None:
        """One after the other. Raises KeyboardInterrupt after an interrupt."""
        for name, command in commands.items():
            print(f"== {name}: {' '.join(command[2:])}", flush=True)
            began = time.monotonic()
            self._note(name, run(command, environment), f", {time.monotonic() - began:.0f} s")

    def begin_beside(self, commands: Commands, environment: dict[str, str] | None = None) -> None:
        """Each at once, with what others leave of the processor."""
        for name, command in commands.items():
            print(f"== beside what follows, and shown at the end: {name}", flush=True)
            self._beside[name] = Beside(command, ROOT, {**os.environ, **(environment or {})})

    def finish_beside(self) -> None:
        """Wait for them, and end what they left behind."""
        for name, one in self._beside.items():
            print(f"== waiting for: {name}", flush=True)
            self._note(name, one.wait(), "")
            one.end()
        self._finished |= self._beside
        self._beside = {}

    def show_beside(self) -> None:
        """What they said, the last one's at the end."""
        for name, one in self._finished.items():
            print(f"== {name}", flush=True)
            one.show()

    def end(self) -> None:
        """All that still runs, as Ctrl-C does."""
        for one in self._beside.values():
            one.interrupt()
        for one in self._beside.values():
            one.end()

    def _note(self, name: str, code: int, seconds: str) -> None:
        self.results.append(f"   {name}: {'passed' if code == 0 else f'FAILED (exit code {code})'}{seconds}")


def check_all(checks: Checks, other_python: str | None) -> None:
    """Everything. What measures runs when nothing is beside it; the output of what computes comes last."""
    with tempfile.TemporaryDirectory() as coverage, tempfile.TemporaryDirectory() as environment:
        os.environ["SHARDPAY_COVERAGE"] = coverage
        other = [other_python or "", "scripts/_bootstrap.py", "dev", "pytest"]
        place = {"SHARDPAY_ENVIRONMENT": environment}
        try:
            if other_python:
                checks.begin_beside({f"environment for {other_python}": [*other, "--version"]}, place)
            checks.begin_beside(TYPES)
            checks.run(STYLE | OTHER_TESTS)
            checks.finish_beside()
            checks.begin_beside(COMPUTING_TESTS)
            if other_python:
                checks.run({f"unit tests with {other_python}": [*other, *WORKERS, *UNCACHED, *SHORT]}, place)
            checks.run(NETWORK_TESTS)
            checks.finish_beside()
            checks.run(MEASURING_TESTS)
        finally:
            checks.end()
        print("== coverage, without started processes", *table(read(Path(coverage))), sep="\n")
    print("== results", *checks.results, sep="\n", flush=True)
    checks.show_beside()


def check_quickly(checks: Checks) -> None:
    checks.run(STYLE | TYPES)
    print(*checks.results, sep="\n")
    checks.run(QUICK_TESTS)


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
    checks = Checks()
    try:
        match arguments:
            case ["--help" | "-h"]:
                print(USAGE, end="")
            case []:
                check_all(checks, None)
            case ["--also-with", python]:
                check_all(checks, python)
            case ["--quick"]:
                check_quickly(checks)
            case _:
                return run([*PYTEST, *arguments])
    except KeyboardInterrupt:
        print("interrupted", *checks.results, sep="\n")
        return 130
    return int(checks.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
