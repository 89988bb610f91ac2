"""Runs the system's own tools: mount, ip, tc."""

import subprocess

SECONDS = 10


def run(*command: str) -> None:
    """Raises OSError with what the tool said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} does not come back") from None
    if done.returncode:
        raise OSError(f"{' '.join(command[:6])}: {done.stderr.strip() or done.returncode}")


def succeeds(*command: str) -> bool:
    try:
        run(*command)
    except OSError:
        return False
    return True
