"""A pytest plugin: which share of each package's lines the tests ran, as a table above pytest's summary line.

Only pytest's own process is measured, not the nodes and scripts that tests start. By SlipCover: it takes its probes out once
they have been hit, and so costs a few percent where a tracer doubles the time.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover

PACKAGES = ["config", "demo", "gateway", "node", "scripts", "signaling"]

_measured = Slipcover(source=PACKAGES)
ImportManager(_measured, FileMatcher(PACKAGES)).__enter__()  # for good: from before the first test module is imported


def table(files: dict[str, dict[str, list[int]]]) -> Iterator[str]:
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Called by pytest before its summary line."""
    terminalreporter.section("coverage, without started processes")
    for line in table(_measured.get_coverage()["files"]):
        terminalreporter.write_line(line)
