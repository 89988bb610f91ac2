"""A pytest plugin: which share of each package's lines the tests ran, as a table above pytest's summary line; or, where
SHARDPAY_COVERAGE names a folder, as a file there, for those who run pytest more than once.

Only pytest and its workers are measured, not the nodes and scripts that tests start. By SlipCover: it takes its probes out once
they have been hit, and so costs a few percent where a tracer doubles the time.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover

from scripts.covered import Files, merge, table, write

PACKAGES = ["config", "demo", "gateway", "node", "scripts", "signaling"]

_measured = Slipcover(source=PACKAGES)
ImportManager(_measured, FileMatcher(PACKAGES)).__enter__()  # for good: from before the first test module is imported


class Coverage:
    """Each worker tells the process that started it what ran; that shows it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._files: Files = {}

    def pytest_sessionfinish(self) -> None:
        mine = _measured.get_coverage()["files"]
        lines = {path: {name: list(found[name]) for name in ("executed_lines", "missing_lines")} for path, found in mine.items()}
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["coverage"] = lines
        else:
            merge(self._files, lines)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        merge(self._files, getattr(node, "workeroutput", {}).get("coverage", {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if folder := os.environ.get("SHARDPAY_COVERAGE"):
            write(self._files, Path(folder), str(os.getpid()))
            return
        terminalreporter.section("coverage, without started processes")
        for line in table(self._files):
            terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    config.pluginmanager.register(Coverage(config))
