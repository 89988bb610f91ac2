"""Runs a program and samples where its CPU time goes: ``python -m scripts.benchmark.profiled FILE MODULE ARGUMENTS...``.

Every few milliseconds of its own CPU time a signal interrupts the main thread, and what it has used since is put down to where it
is: to the innermost file of the project on its stack, or to a library called from there. Time in C counts for who called it.
Other threads are only counted. On SIGUSR2 the seconds so far are written to FILE, as a JSON object by place; ``profile`` asks
for that.

The timer is one of Linux that counts one thread's CPU time. One that counts the process's (``setitimer``) would mostly go off
while others work and the main thread waits for events, and show that as the place of all it did before.
"""

import ctypes
import json
import os
import runpy
import signal
import sys
import threading
import time
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import FrameType

INTERVAL = 5_000_000
"""Nanoseconds of the main thread's CPU between samples."""
ROOT = str(Path(__file__).resolve().parent.parent.parent) + os.sep
LIBRARIES = "site-packages" + os.sep
ELSEWHERE = "python"
THREAD = "thread "
NUMBERS = "0123456789-_"
"""At the end of a thread's name."""
_THREAD_ID = 4
"""SIGEV_THREAD_ID of signal.h"""


class Sampler:
    """Attributes:
    seconds: of CPU by place.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._used: dict[int, float] = {}
        self._is_writing = False

    def start(self, output: Path) -> None:
        """Only in the main thread."""
        signal.signal(signal.SIGPROF, lambda _, frame: self.sample(frame))
        signal.signal(signal.SIGUSR2, lambda _, frame: self.write(frame, output))
        start_timer()

    def sample(self, interrupted: FrameType | None) -> None:
        """Put what each thread has used since the last time down to where it is. ``interrupted``: where the main thread is; of
        the others only the name is known, their stacks cannot be looked at safely while they run."""
        before, self._used = self._used, {}
        for thread in threading.enumerate():
            if thread.ident is None:
                continue
            self._used[thread.ident] = used = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            if (spent := used - before.get(thread.ident, 0.0)) > 0:
                is_main = thread is threading.main_thread()
                self.seconds[place(interrupted) if is_main else f"{THREAD}{thread.name.rstrip(NUMBERS).strip()}"] += spent

    def write(self, interrupted: FrameType | None, output: Path) -> None:
        """The seconds so far to ``output``. Does nothing when it interrupted itself: signals come while others are handled."""
        if self._is_writing:
            return
        self._is_writing = True
        self.sample(interrupted)
        draft = output.with_name(output.name + ".draft")
        draft.write_text(json.dumps(self.seconds))
        draft.replace(output)
        self._is_writing = False


class _Event(ctypes.Structure):
    """struct sigevent: a signal to one thread."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("padding", ctypes.c_char * 44),
    )


def start_timer() -> None:
    """SIGPROF to this thread each INTERVAL of its CPU time. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    event = _Event(None, signal.SIGPROF, _THREAD_ID, threading.get_native_id())
    timer = ctypes.c_void_p()
    times = (ctypes.c_long * 4)(0, INTERVAL, 0, INTERVAL)  # struct itimerspec
    if libc.timer_create(time.CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(timer)) or libc.timer_settime(
        timer, 0, times, None
    ):
        raise OSError(ctypes.get_errno(), "no timer of a thread's CPU time")


def place(frame: FrameType | None) -> str:
    """The innermost file of the project, from its root on, or library; the standard library counts for its caller."""
    while frame is not None:
        if found := _place_of(frame.f_code.co_filename):
            return found
        frame = frame.f_back
    return ELSEWHERE


@cache
def _place_of(file: str) -> str | None:
    _, library, inside = file.rpartition(LIBRARIES)
    if library:
        return inside.partition(os.sep)[0].removesuffix(".py")
    if file.startswith(ROOT) and file != __file__:
        return file.removeprefix(ROOT)
    return None


def main() -> None:
    output, module, *arguments = sys.argv[1:]
    Sampler().start(Path(output))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGUSR2})  # without the handlers, they would kill it


if __name__ == "__main__":
    main()
