"""Property tests draw the same examples in every run of continuous integration, and new ones elsewhere. Tests that
measure, and those that start whole networks, are marked: they run one after the other with nothing beside them."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")

_ALONE = ("bench", "network")


def _is_alone(item: pytest.Item) -> bool:
    return item.path.relative_to(Path(__file__).parent).parts[0] in _ALONE


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest."""
    for item in items:
        if _is_alone(item):
            item.add_marker("alone")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests mostly wait. Called by pytest-xdist."""
    return (os.cpu_count() or 1) + 1
