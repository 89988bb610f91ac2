"""A command that runs beside others with what they leave of the processor. What it says is kept, and shown when it is done."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_LOWEST = 19


class Beside:
    """One such command, in a session of its own: an interrupt of the terminal does not reach it."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this lives
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_give_way,
        )

    def interrupt(self) -> None:
        """As Ctrl-C does: it and all that it has started in its session."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait()

    def end(self) -> None:
        """Wait for it, and end what it left behind in its session."""
        self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def show(self) -> None:
        """All that it said."""
        self._said.seek(0)
        sys.stdout.flush()
        shutil.copyfileobj(self._said, sys.stdout.buffer)
        sys.stdout.flush()


def _give_way() -> None:
    """As a session, too: where Linux shares the processor between sessions first, to be nice within one is not enough."""
    os.nice(_LOWEST)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_LOWEST))
