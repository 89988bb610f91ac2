"""PostgreSQL on the same machine in the same minutes: pgbench's TPC-B, for a ratio that says more than a rate.

The server is started for each measurement and is gone while the network is measured.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.benchmark.load import BenchError
from scripts.benchmark.report import say
from scripts.devnet.postgres import USER, run, running_server

SCALE = 10
"""Branches, of 100,000 accounts each: with fewer, clients wait for each other's rows."""
CLIENTS = 16
MODES = ("simple", "prepared")
"""How statements are sent: as text each time, or prepared once."""


def measure_postgres(programs: Mapping[str, Path], seconds: float) -> dict[str, float]:
    """Transactions a second by mode. Raises PostgresError and BenchError."""
    rates = {}
    with running_server(programs) as socket:
        pgbench = [str(programs["pgbench"]), "-h", str(socket), "-U", USER]
        say("pgbench: filling the tables ...")
        run([*pgbench, "-i", "-q", "-s", str(SCALE), "postgres"])
        for mode in MODES:
            say(f"pgbench: TPC-B, {mode}, for {seconds:.0f} s ...")
            load = ["-M", mode, "-c", str(CLIENTS), "-j", str(os.cpu_count() or 1), "-T", str(max(1, round(seconds)))]
            rates[mode] = rate_of(run([*pgbench, *load, "postgres"]))
    return rates


def postgres_figures(before: Mapping[str, float], after: Mapping[str, float], tps: float) -> dict[str, Any]:
    """Plain JSON values. ``ratio``: of this network's rate to the mean of PostgreSQL's."""
    means = {mode: (before[mode] + after[mode]) / 2 for mode in MODES}
    return {
        mode: {"before": round(before[mode], 1), "after": round(after[mode], 1), "ratio": round(tps / means[mode], 2)}
        for mode in MODES
    }


def rate_of(output: str) -> float:
    """What pgbench says it did; of two rates the last, without the time to connect. Raises BenchError."""
    rates = re.findall(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if not rates:
        raise BenchError(f"pgbench told no rate: {output.strip()[-200:]}")
    return float(rates[-1])
