"""Property tests draw the same examples in every run of continuous integration, and new ones elsewhere. With several workers, one
of them runs all tests that start processes, one after the other and before anything else; the others give way to it."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")

_ALONE = ("bench", "browser", "demo", "gateway", "network")
_NICE = 10


def _starts_processes(item: pytest.Item) -> bool:
    return item.path.relative_to(Path(__file__).parent).parts[0] in _ALONE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest."""
    items.sort(key=lambda item: not _starts_processes(item))
    for item in items:
        if _starts_processes(item):
            item.add_marker(pytest.mark.xdist_group("processes"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Called by pytest."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _starts_processes(item):
        os.nice(_NICE - os.getpriority(os.PRIO_PROCESS, 0))
