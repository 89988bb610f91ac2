"""Property tests draw the same examples in every run of continuous integration, and new ones elsewhere."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests mostly wait. Called by pytest-xdist."""
    return (os.cpu_count() or 1) + 1
