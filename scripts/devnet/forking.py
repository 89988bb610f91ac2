"""Starts several nodes from one process that has loaded their program, so that they share its memory and load it once.

``python -m scripts.devnet.forking`` reads from standard input what to start, forks once for each, tells their process ids in that
order, and ends. What it has loaded is in memory once for all of them, but for what one writes to. Linux only: elsewhere libraries
of the system may not be used by a process that was forked and not executed anew.
"""

import gc
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from scripts.devnet.layout import Program

TITLE = "shardpay "
"""With which the title of a forked process begins; what it is found by follows. It cannot show an environment of its own."""
_ROOM = "SHARDPAY_TITLE_ROOM"
"""A variable as long as the longest title: titles lie where the arguments and the environment were."""
_PACKAGES = ("node", "signaling")
"""They load the same libraries. Each has a ``main`` in ``__main__``."""
_SECONDS = 60


def can_fork(program: Program) -> bool:
    """Whether it runs a program of ours as this process would."""
    is_ours = program.argv[:2] == (sys.executable, "-m") and program.argv[2] in _PACKAGES
    return sys.platform == "linux" and is_ours and not program.environment


def fork(programs: Sequence[Program], variable: str, marks: Sequence[str], own_mark: str) -> list[int]:
    """Start programs that ``can_fork``. ``marks``: by which each is found; its own children have it in this environment variable.
    ``own_mark``: by which is found what does this, and what has no title yet.

    Returns:
        Their process ids.

    Raises:
        OSError: they cannot be started so.
    """
    orders = [
        {"argv": program.argv[2:], "log": str(program.log), "cwd": str(program.cwd), "variable": variable, "mark": mark}
        for program, mark in zip(programs, marks, strict=True)
    ]
    room = "-" * max(len((TITLE + mark).encode()) for mark in marks)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "scripts.devnet.forking"],
            input=json.dumps([os.getpid(), orders]),
            capture_output=True,
            text=True,
            cwd=programs[0].cwd,
            env={_ROOM: room, **os.environ, variable: own_mark},
            timeout=_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"not loaded within {_SECONDS} s") from None
    *_, said = done.stdout.splitlines() or [""]
    if done.returncode != 0 or not re.fullmatch(r"[0-9 ]+", said):
        raise OSError((done.stderr.splitlines() or ["ended without a word"])[-1])
    return [int(pid) for pid in said.split()]


def main() -> int:
    starter, orders = json.load(sys.stdin)
    mains = {package: import_module(f"{package}.__main__").main for package in sorted({order["argv"][0] for order in orders})}
    if threading.active_count() > 1:
        raise RuntimeError("only the forking thread survives in a child: nothing may start threads when it is loaded")
    if os.getppid() != starter:
        return 1  # whoever wanted them is gone: nobody would know of them
    gc.collect()
    gc.freeze()  # a collection writes to all that it looks at
    pids = []
    for order in orders:
        if (pid := os.fork()) == 0:
            _become(order)
            return int(mains[order["argv"][0]]())
        pids.append(pid)
    print(*pids, flush=True)
    return 0


def _become(order: dict[str, Any]) -> None:
    """The process that the order is about, as if it had been executed with its arguments."""
    from setproctitle import setproctitle  # where there is none, nothing is forked

    os.setsid()
    setproctitle(TITLE + order["mark"])  # before the environment is changed, whose place it looks for
    os.environ[order["variable"]] = order["mark"]
    del os.environ[_ROOM]
    os.chdir(order["cwd"])
    sys.argv = order["argv"]
    with open(os.devnull, "rb") as nothing, open(order["log"], "ab") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
