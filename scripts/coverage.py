"""A pytest plugin: which share of each package's lines the tests ran, as a table above pytest's summary line.

Only pytest and its workers are measured, not the nodes and scripts that tests start. By SlipCover: it takes its probes out once
they have been hit, and so costs a few percent where a tracer doubles the time.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover

Files = dict[str, dict[str, list[int]]]
"""By file: its ``executed_lines`` and ``missing_lines``."""
PACKAGES = ["config", "demo", "gateway", "node", "scripts", "signaling"]

_measured = Slipcover(source=PACKAGES)
ImportManager(_measured, FileMatcher(PACKAGES)).__enter__()  # for good: from before the first test module is imported


def table(files: Files) -> Iterator[str]:
    """A line for each folder, and one for all: lines that can run, and the share of them that did."""
    lines, ran = Counter[str](), Counter[str]()
    for path, found in files.items():
        for package in (str(PurePath(path).parent), "all"):
            lines[package] += len(found["executed_lines"]) + len(found["missing_lines"])
            ran[package] += len(found["executed_lines"])
    width = max(map(len, lines))
    for package in sorted(lines, key=lambda name: (name == "all", name)):
        if lines[package]:
            yield f"{package:<{width}} {lines[package]:>6} lines {ran[package] / lines[package]:>5.0%}"


def merge(files: Files, others: Files) -> None:
    """Add what another process ran."""
    for path, found in others.items():
        if (known := files.get(path)) is None:
            files[path] = found
        else:
            ran = {*known["executed_lines"], *found["executed_lines"]}
            missing = {*known["missing_lines"], *found["missing_lines"]} - ran
            files[path] = {"executed_lines": sorted(ran), "missing_lines": sorted(missing)}


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
        terminalreporter.section("coverage, without started processes")
        for line in table(self._files):
            terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    config.pluginmanager.register(Coverage(config))
