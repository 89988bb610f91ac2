"""What a person sees and does while processes run in a terminal: progress, one live line, Ctrl-C."""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable

from scripts.devnet import processes
from scripts.devnet.layout import MAX_PORT_BASE, Folder, Ports
from scripts.devnet.supervisor import Supervisor

PLAIN_LINE_SECONDS = 10.0
LOG_CHECK_SECONDS = 60.0
MAX_SECONDS = 10**9


class Screen:
    """Lines that stay, and below them one that rewrites itself - in a terminal; elsewhere it is printed now and then."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._shown = ""
        self._printed = 0.0

    def say(self, text: str) -> None:
        self._write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._shown = ""

    def progress(self, text: str) -> None:
        """What is being waited for: shown whenever it changes."""
        if text != self._shown:
            self._write(f"\r\x1b[K{self._fitting(text)}" if self._live else f"{text}\n")
            self._shown = text

    def status(self, text: str) -> None:
        """The live line."""
        if self._live:
            self._write(f"\r\x1b[K{self._fitting(text)}")
        elif time.monotonic() - self._printed >= PLAIN_LINE_SECONDS:
            self._printed = time.monotonic()
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # the terminal or the pipe is gone; what runs goes on, and is still ended in order
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115

    @staticmethod
    def _fitting(text: str) -> str:
        return text[: shutil.get_terminal_size().columns - 1]


def stop_signal() -> threading.Event:
    """Set by Ctrl-C, SIGTERM or a closed terminal. Only for the main thread."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def supervise(folder: Folder, supervisor: Supervisor, screen: Screen, stop: threading.Event, line: Callable[[], str]) -> None:
    """Restart what dies and show the live line, until told to stop; then end everything."""
    logs_checked = time.monotonic()
    while not stop.wait(1.0):
        for text in supervisor.tick():
            screen.say(text)
        if time.monotonic() - logs_checked > LOG_CHECK_SECONDS:
            logs_checked = time.monotonic()
            for log in (folder.data / "logs").glob("*.log"):
                processes.bound_log(log)
        screen.status(line())
    screen.say("Ending everything ...")
    began = time.monotonic()
    with processes.changing(folder):
        ended = processes.stop(folder)
    screen.say(f"Ended {counted(ended)} in {time.monotonic() - began:.1f} s.")


def down(folder: Folder) -> str:
    """End what runs in a folder, the script that supervises it first. Says what it did."""
    if not folder.run.is_dir():
        return f"Nothing runs in {folder.data}."
    names = list(processes.programs_running(folder))
    supervised = processes.end_supervisor(folder)
    with processes.changing(folder):
        names = list(dict.fromkeys([*names, *processes.stop(folder)]))
    if not names:
        return f"Nothing ran in {folder.data}."
    return f"Ended {counted(names)}{' and the script that supervised them' if supervised else ''}."


def port_base(text: str) -> int:
    """The value of --port-base. Raises ArgumentTypeError, which argparse shows."""
    try:
        return Ports(int(text)).base
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number between 1024 and {MAX_PORT_BASE}") from None


def blocks(text: str) -> int:
    """The value of --keep-blocks. Raises ArgumentTypeError, which argparse shows."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a number of blocks, or 0 for all")
    return int(text)


def seconds(text: str) -> int:
    """The value of --epoch-seconds and the like. Raises ArgumentTypeError, which argparse shows."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, at most {MAX_SECONDS}")
    return int(text)


def counted(names: list[str]) -> str:
    """``3 processes: broker, coordinator, node-0``; many nodes are counted rather than named."""
    nodes = [name for name in names if name.rpartition("-")[2].isdigit() and not name.startswith("gateway-")]
    shown = [*(n for n in names if n not in nodes), f"{len(nodes)} nodes"] if len(nodes) > 4 else names
    return f"{len(names)} process{'' if len(names) == 1 else 'es'}{': ' if names else ''}{', '.join(shown)}"
