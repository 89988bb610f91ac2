"""What stands in a node's folder when it is to leave the network, and when it has left. It looks there once a second: so nobody
need know whether it runs, or is just starting, a restart goes on leaving, and whoever starts nodes knows which to leave alone."""

from pathlib import Path

_LEAVING, _LEFT = "leaving", "left"


def is_leaving(folder: Path) -> bool:
    """Whether the node in this folder is to leave."""
    return (folder / _LEAVING).exists()


def begin_to_leave(folder: Path) -> None:
    """It is to leave, from now on and after each restart."""
    (folder / _LEAVING).touch()


def note_left(folder: Path) -> None:
    """It is out of the network for good."""
    (folder / _LEFT).touch()
    (folder / _LEAVING).unlink(missing_ok=True)


def has_left(folder: Path) -> bool:
    """Whether the node in this folder has left."""
    return (folder / _LEFT).exists()
