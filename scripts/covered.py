"""Which lines of the project ran, told by several processes, and the table that is made of it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

import msgspec

Files = dict[str, dict[str, list[int]]]
"""By file: its ``executed_lines`` and ``missing_lines``."""


def table(files: Files) -> Iterator[str]:
    """A line for each folder, and one for all: lines that can run, and the share of them that did."""
    lines, ran = Counter[str](), Counter[str]()
    for path, found in files.items():
        for package in (str(PurePath(path).parent), "all"):
            lines[package] += len(found["executed_lines"]) + len(found["missing_lines"])
            ran[package] += len(found["executed_lines"])
    width = max(map(len, lines), default=0)
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


def write(files: Files, folder: Path, name: str) -> None:
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(files))


def read(folder: Path) -> Files:
    """What all have written there."""
    files: Files = {}
    for path in folder.glob("*.json"):
        merge(files, msgspec.json.decode(path.read_bytes(), type=Files))
    return files
