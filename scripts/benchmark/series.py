"""Several networks one after the other, and one Markdown table of what they gave."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

SETTINGS = ((1, 0.0), (2, 0.0), (2, 0.5), (2, 1.0), (4, 0.0), (4, 0.5), (4, 1.0))
"""(committees, share of cross-shard transactions)"""

Results = dict[str, Any]


def settings(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The runs of ``--table``; without it, the one that is asked for."""
    if not options.table:
        return [options]
    return [argparse.Namespace(**vars(options) | {"committees": committees, "cross": cross}) for committees, cross in SETTINGS]


def markdown(runs: Sequence[Results]) -> str:
    """A column for each run, a row for each figure that any of them has."""
    heads = [f"{run['committees']} x {run['committee_size']}, {run['cross_share']:.0%} across" for run in runs]
    lines = [["", *heads], ["---"] * (len(runs) + 1)]
    for name, cell in ROWS:
        cells = [cell(run) for run in runs]
        if any(cells):
            lines.append([name, *(text or "-" for text in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(*path: str | int) -> Callable[[Results], str | None]:
    """The value at a path, or None when there is none."""

    def cell(run: Results) -> str | None:
        value = _find(run, path)
        return None if value is None else str(value)

    return cell


def _latency(*path: str | int) -> Callable[[Results], str | None]:
    """The median and the ninety-ninth percentile of the latencies at a path."""

    def cell(run: Results) -> str | None:
        found = _find(run, path)
        return None if found is None or found["p50"] is None else f"{found['p50']:.0f} / {found['p99']:.0f}"

    return cell


def _share(*path: str | int) -> Callable[[Results], str | None]:
    def cell(run: Results) -> str | None:
        value = _find(run, path)
        return None if value is None else f"{value:.1%}"

    return cell


def _find(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError):
            return None
    return value


_LONE, _MANY = ("gateway", "waiting", 0), ("gateway", "waiting", -1)
ROWS = (
    ("transactions/s", _figure("tps")),
    ("latency inside a shard, light load, p50 / p99 ms", _latency("latency_ms", "intra")),
    ("latency across shards, light load", _latency("latency_ms", "cross")),
    ("latency inside a shard, full load", _latency("latency_ms", "loaded_intra")),
    ("latency across shards, full load", _latency("latency_ms", "loaded_cross")),
    ("a signature check under full load, us", _figure("check_us", "loaded", "median")),
    ("R1: CPU per transaction and replica, in signature checks", _figure("R1")),
    ("R2: share of the machine spent on unavoidable checks", _figure("R2")),
    ("R4: bytes received per transaction and replica, in transactions", _figure("R4")),
    ("R5: throughput with dead members, over that with all up", _figure("R5")),
    ("R6: CPU of a block with one payment in a node, in checks", _figure("empty", "R6")),
    ("an idle node, of a core", _share("empty", "idle", "cpu_share")),
    ("R7: CPU of an HTTP payment in the gateway, in checks", _figure("gateway", "R7")),
    ("HTTP, many clients, committed/s", _figure(*_MANY, "committed_per_s")),
    ("HTTP, many clients, inside a shard, p50 / p99 ms", _latency(*_MANY, "latency_ms", "intra")),
    ("HTTP, many clients, across shards", _latency(*_MANY, "latency_ms", "cross")),
    ("HTTP, one client, inside a shard", _latency(*_LONE, "latency_ms", "intra")),
    ("HTTP, one client, across shards", _latency(*_LONE, "latency_ms", "cross")),
    ("PostgreSQL's TPC-B, simple: times that", _figure("pgbench", "simple", "ratio")),
    ("PostgreSQL's TPC-B, prepared: times that", _figure("pgbench", "prepared", "ratio")),
    ("memory of a node, MB", _figure("memory_mb", "mean")),
)
"""What a row shows, and how it is read from a run's results."""
