"""A pytest plugin: which functions of the core the tests of each file call, and how long they take. Written to the file that the
environment variable REACHING names."""

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

_ROOT = str(Path(__file__).parents[2]) + os.sep
_functions: dict[str, set[tuple[str, int]]] = defaultdict(set)
_seconds: dict[str, float] = defaultdict(float)
_now: list[str] = [""]


def _called(frame: FrameType, event: str, argument: object) -> None:
    """For each call of a function; no line is traced."""
    code = frame.f_code
    if code.co_filename.startswith(_ROOT):
        _functions[_now[0]].add((code.co_filename[len(_ROOT) :], code.co_firstlineno))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Called by pytest around each test."""
    _now[0] = item.nodeid.split("::")[0]
    begun = time.process_time()
    threading.settrace(_called)
    sys.settrace(_called)
    try:
        return (yield)
    finally:
        sys.settrace(None)
        _seconds[_now[0]] += time.process_time() - begun


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Called by pytest at the end."""
    core = ("node/", "signaling/")
    found = {
        name: {
            "functions": sorted(f for f in _functions[name] if f[0].startswith(core)),
            "seconds": seconds,
        }
        for name, seconds in _seconds.items()
    }
    Path(os.environ["REACHING"]).write_text(json.dumps(found))
