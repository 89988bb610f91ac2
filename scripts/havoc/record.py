"""An episode as it was, and what its victims logged of it."""

import contextlib
import json
from pathlib import Path

import msgspec
from msgspec import Struct

TELLING = ("standing still", "there is room", "set aside", "node stops")
MAX_TOLD, MAX_TAIL_BYTES = 6, 4 << 20


class Record(Struct):
    """An episode as it was. Moments in seconds since 1970; ``recovered``: seconds after its last fault, or None."""

    began: float
    did: list[str]
    said: list[str] = msgspec.field(default_factory=list)
    """What the victims logged of it."""
    recovered: float | None = None
    ended: float = 0.0
    paused: float = 0.0
    """The longest time that some shard was without a committed payment, seconds."""


class Tail:
    """What a process logs from now on."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._from = path.stat().st_size if path.exists() else 0

    def told(self) -> list[str]:
        """The lines that tell of trouble with the disk or the database, and of its end."""
        with open(self._path, "rb") as log:
            log.seek(self._from)
            text = log.read(MAX_TAIL_BYTES).decode(errors="replace")
        found = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if str(said.get("event", "")).startswith(TELLING):
                    found.append(f"{self._name}: {said['event']}{': ' + said['error'] if 'error' in said else ''}")
        return found[:MAX_TOLD]
