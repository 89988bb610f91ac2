"""Keeps a folder's programs running: restarts what dies, ever more slowly when it keeps dying."""

import time
from collections.abc import Collection, Sequence

from node.leaving import has_left
from scripts.devnet import processes
from scripts.devnet.layout import Folder, Program
from scripts.devnet.processes import ProcessError, Running

FIRST_DELAY = 0.5
MAX_DELAY = 15.0
HEALTHY_SECONDS = 30.0
"""A program that ran this long is started again without delay to speak of."""


class Supervisor:
    """``tick`` now and then; it returns a line for each thing it noticed or did."""

    def __init__(self, folder: Folder, programs: Sequence[Program], running: dict[str, Running]) -> None:
        self.running = running
        self._folder = folder
        self._programs: dict[str, Program] = {}
        self._delay: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._know(programs)

    def take_on(self, programs: Sequence[Program]) -> None:
        """Look after these from now on, whoever started them, beside those that it looks after already."""
        more = [program for program in programs if program.name not in self._programs]
        self._know(more)
        self._due |= {program.name: time.monotonic() for program in more}

    def _know(self, programs: Sequence[Program]) -> None:
        self._programs |= {program.name: program for program in programs}
        self._delay |= {program.name: FIRST_DELAY for program in programs}
        self._since |= {program.name: time.monotonic() for program in programs}

    @property
    def names(self) -> Collection[str]:
        """Of all that it looks after."""
        return self._programs

    def tick(self) -> list[str]:
        now = time.monotonic()
        return self._notice_the_dead(now) + self._start_the_due(now)

    def _notice_the_dead(self, now: float) -> list[str]:
        lines = []
        for name, program in self._programs.items():
            child = self.running.get(name)
            how = child.ended() if child else None
            if how is None:
                continue
            del self.running[name]
            if has_left(self._folder.home(name)):
                lines.append(f"{name} has left the network")
                continue
            if now - self._since[name] > HEALTHY_SECONDS:
                self._delay[name] = FIRST_DELAY
            self._due[name] = now + self._delay[name]
            lines.append(f"{name} {how}; starting it again in {self._delay[name]:g} s{last_words(program)}")
            self._delay[name] = min(self._delay[name] * 2, MAX_DELAY)
        return lines

    def _start_the_due(self, now: float) -> list[str]:
        due = [name for name, moment in self._due.items() if moment <= now]
        if not due:
            return []
        lines = []
        for name in due:
            try:
                with processes.changing(self._folder):  # another script may have started it meanwhile
                    running, started = processes.start_missing(self._folder, [self._programs[name]])
                self.running[name] = running[name]
                self._since[name] = now
                del self._due[name]
                how = "started again" if started else "runs, and is looked after, too"
                lines.append(f"{name} {how} (process {self.running[name].pid})")
            except ProcessError as error:
                self._due[name] = now + MAX_DELAY
                lines.append(str(error))
        return lines


def last_words(program: Program) -> str:
    """Where to look for the reason, with the log's last line."""
    said = processes.last_lines(program.log, 1)
    return f"\n    {program.log}: {said[0]}" if said else f" (its log is empty: {program.log})"
