"""What ``scripts/test`` makes of commands that run one after the other, and of those beside them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scripts import covered
from scripts.beside import Beside
from scripts.checks import Checks
from scripts.devnet.layout import ROOT
from scripts.devnet.processes import is_alive
from tests.waiting import until

PATIENCE = 240.0
"""What gives way to others may wait for long."""


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_what_runs_beside_gives_way_and_is_shown_when_all_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    checks = Checks()
    checks.begin_beside(
        {"beside": python("import os; print('beside, nice', os.nice(0), os.environ['WHERE'])")}, {"WHERE": "here"}
    )
    checks.run({"first": python("import os; print('first, nice', os.nice(0))")})
    checks.finish_beside()
    checks.finish_beside()
    assert sum("beside: passed" in line for line in checks.results) == 1
    checks.show_beside()
    said = capfd.readouterr().out
    assert f"first, nice {os.nice(0)}\n" in said
    assert said.endswith("== beside\nbeside, nice 19 here\n")
    assert not checks.failed


@pytest.mark.parametrize("beside", [False, True])
def test_one_failure_is_a_failure_of_all(beside: bool) -> None:
    checks = Checks()
    bad = {"bad": python("raise SystemExit(3)")}
    if beside:
        checks.begin_beside(bad)
    else:
        checks.run(bad)
    checks.run({"good": python("")})
    checks.finish_beside()
    assert checks.failed
    assert sum("bad: FAILED (exit code 3)" in line for line in checks.results) == 1


STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
SLOW = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
WHOLE = """
import sys
from scripts import checks
sleeper = [sys.executable, "-c", {slow!r}]
checks.STYLE = checks.TYPES = {{}}
checks.OTHER_TESTS = {{}}
checks.COMPUTING_TESTS = {{"computing": [*sleeper, sys.argv[1]]}}
checks.NETWORK_TESTS = {{"network": [*sleeper, sys.argv[2]]}}
sys.exit(checks.main([]))
"""


def ignore_interrupts() -> None:
    """As what a shell starts in the background does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("before", [None, ignore_interrupts])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything(tmp_path: Path, how: signal.Signals, before: Callable[[], None] | None) -> None:
    files = [tmp_path / "beside", tmp_path / "first"]
    command = [*python(WHOLE.format(slow=SLOW)), *map(str, files)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True, preexec_fn=before) as whole:
        pids = [int(until(lambda file=file: file.exists() and file.read_text(), within=PATIENCE)) for file in files]  # type: ignore[misc]
        if how is signal.SIGINT:
            os.killpg(whole.pid, how)  # as a terminal does
        else:
            whole.send_signal(how)
        assert whole.wait(PATIENCE) == 130
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_a_command_beside_has_started_ends_with_it_even_who_ignores_an_interrupt(tmp_path: Path) -> None:
    file = tmp_path / "child"
    child = [*python(STUBBORN + SLOW), str(file)]
    beside = Beside(python(f"import subprocess, time; subprocess.Popen({child!r}); time.sleep(600)"), ROOT, dict(os.environ))
    pid = int(until(lambda: file.exists() and file.read_text(), within=PATIENCE) or 0)
    child_process = psutil.Process(pid)
    beside.interrupt()
    assert beside.wait() != 0
    assert is_alive(child_process), "it ignores interrupts"
    beside.end()
    until(lambda: not is_alive(child_process))


def test_a_line_is_covered_if_any_process_ran_it(tmp_path: Path) -> None:
    covered.write({"node/a.py": {"executed_lines": [1], "missing_lines": [2, 3]}}, tmp_path, "one")
    covered.write({"node/a.py": {"executed_lines": [2], "missing_lines": [1, 3]}}, tmp_path, "other")
    covered.write({"gateway/b.py": {"executed_lines": [], "missing_lines": [1]}}, tmp_path, "third")
    lines = list(covered.table(covered.read(tmp_path)))
    assert [line.split() for line in lines] == [
        ["gateway", "1", "lines", "0%"],
        ["node", "3", "lines", "67%"],
        ["all", "4", "lines", "50%"],
    ]
