"""``scripts/test``: lint, formatting, types, tests - and a summary that ends with pytest's own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USAGE = """usage: ./scripts/test [--quick | PYTEST ARGUMENTS...]

Checks lint (ruff), formatting, types (mypy --strict) and runs all tests, with their coverage by package. For the working day:
  ./scripts/test --quick                      the same checks, but of the tests only the folder tests/unit
  ./scripts/test tests/unit -k ledger -x      only pytest, with these arguments
The first use makes .venv/ with the development tools. The exit code is not 0 when anything fails.
"""
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
}
WORKERS = ["-n", "logical", "--dist", "worksteal"]  # the slowest tests are neighbours: who is done takes some of them
"""How many they are says tests/conftest.py."""
ALL_TESTS = {
    "tests": ["pytest", "-p", "scripts.coverage", *WORKERS, "-m", "not alone"],
    "tests that run alone": ["pytest", "-p", "scripts.coverage", "-m", "alone"],
}
QUICK_TESTS = {"tests": ["pytest", *WORKERS, "tests/unit"]}


def run(arguments: list[str]) -> int:
    """The exit code of ``python -m ...``; an interrupt reaches the tool, which ends its own children first."""
    process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))  # pytest then ends what tests started
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def main(arguments: list[str]) -> int:
    if arguments in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    quick = arguments == ["--quick"]
    if arguments and not quick:
        return run(["pytest", *arguments])
    results: list[str] = []
    for name, command in (CHECKS | (QUICK_TESTS if quick else ALL_TESTS)).items():
        print(f"== {name}: {' '.join(command)}", flush=True)
        if name.startswith("tests"):  # last: pytest's summary ends the output
            for line in results:
                print(line)
        began = time.monotonic()
        code = run(command)
        results.append(f"   {name}: {'passed' if code == 0 else f'FAILED (exit code {code})'}, {time.monotonic() - began:.0f} s")
        if code in (-signal.SIGINT, -signal.SIGTERM, 130):
            break
    return int(any("FAILED" in line for line in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
