"""Something that happens to a database while it is read: between what a method looks at first, and a query of it."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest


def interrupting(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], object]]:
    """To be filled, of databases that are opened from now on: by words of a query, what is done before it runs, once."""
    meanwhile: dict[str, Callable[[], object]] = {}

    class Interrupted(sqlite3.Connection):
        def execute(self, query: str, *arguments: Any) -> sqlite3.Cursor:
            for words in [words for words in meanwhile if words in query]:
                meanwhile.pop(words)()
            return super().execute(query, *arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **options: connect(*arguments, factory=Interrupted, **options))
    return meanwhile
