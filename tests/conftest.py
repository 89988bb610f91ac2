"""Property tests draw the same examples in every run of continuous integration, and new ones elsewhere."""

import os
import signal
import threading

import pytest
from hypothesis import HealthCheck, settings

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # those that give way to others are slow
settings.register_profile("ci", _PATIENT, derandomize=True)
settings.register_profile("person", _PATIENT)
settings.load_profile("ci" if os.environ.get("CI") else "person")


if threading.current_thread() is threading.main_thread():
    # a shell lets what it starts in the background ignore interrupts, and all processes of tests would, too
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: as many as there are cores; ``-n logical``: two more, as many tests mostly wait. Called by pytest-xdist."""
    return (os.cpu_count() or 1) + (2 if config.option.numprocesses == "logical" else 0)
