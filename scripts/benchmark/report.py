"""The figures of a run, and the table that shows them to a person."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from scripts.benchmark.checks import Cost
from scripts.benchmark.load import Sample, percentile
from scripts.benchmark.measure import Usage


class Costs(Struct, frozen=True):
    """What a full load took: the nodes' usage at its ends, a check during it and on an idle machine, bytes of a transaction."""

    before: Usage
    after: Usage
    check: Cost
    idle_check: Cost
    transaction_bytes: float


def engine_figures(load: Sample, trickle: Sample, costs: Costs, committees: int, committee_size: int) -> dict[str, Any]:
    """All results as plain JSON values; times in ms, CPU in microseconds.

    Per replica means per replica that keeps one of the shards a transaction touches: n of them for a transaction inside a
    shard, 2n for one across two. Signatures are checked by the payer's committee only, so R2 counts n for either.
    """
    done = max(1, load.done)
    keepers = (1 + load.cross / done) * committee_size  # replicas that keep a shard of a transaction, on average
    tps = rate(load)
    cpu = (costs.after.cpu - costs.before.cpu) / (done * keepers)
    received = (costs.after.bytes_in - costs.before.bytes_in) / (done * keepers)
    received += costs.transaction_bytes * committee_size / keepers
    return {
        "committees": committees,
        "committee_size": committee_size,
        "seconds": round(load.seconds, 2),
        "committed": load.committed,
        "cross_share": round(load.cross / done, 3),
        "failed": dict(load.failed + trickle.failed),
        "tps": round(tps, 1),
        "latency_ms": {
            "intra": spread_ms(trickle.intra_latencies),
            "cross": spread_ms(trickle.cross_latencies),
            "loaded_intra": spread_ms(load.intra_latencies),
            "loaded_cross": spread_ms(load.cross_latencies),
        },
        "cpu_per_transaction_us": round(cpu * 1e6, 1),
        "check_us": {"loaded": cost_us(costs.check), "idle": cost_us(costs.idle_check)},
        "R1": round(cpu / costs.check.median, 2),
        "R2": round(tps * committee_size * costs.check.median / (os.cpu_count() or 1), 3),
        "R4": round(received / costs.transaction_bytes, 2),
        "transaction_bytes": round(costs.transaction_bytes),
        "memory_mb": memory_mb(costs.after.memory),
        "cores": os.cpu_count(),
    }


def rate(load: Sample) -> float:
    """Commits a second."""
    return load.committed / load.seconds if load.committed else 0.0


def cost_us(cost: Cost) -> dict[str, float]:
    return {"median": round(cost.median * 1e6, 1), "p10": round(cost.low * 1e6, 1), "p90": round(cost.high * 1e6, 1)}


def memory_mb(memory: Sequence[int]) -> dict[str, float]:
    """Of a node, given the bytes of each: the mean and the largest."""
    memory = memory or (0,)
    return {"mean": round(sum(memory) / len(memory) / 2**20, 1), "largest": round(max(memory) / 2**20, 1)}


def spread_ms(seconds: list[float]) -> dict[str, float | None]:
    shares = {"p50": 0.5, "p99": 0.99}
    found = {name: percentile(seconds, share) for name, share in shares.items()}
    return {name: None if value is None else round(value * 1e3, 3) for name, value in found.items()}


def table(results: dict[str, Any]) -> str:
    """The figures for a person, each with what it means."""
    rows = engine_rows(results)
    if "empty" in results:
        rows += empty_rows(results["empty"])
    if "gateway" in results:
        rows += gateway_rows(results["gateway"])
    for mode, rate in results.get("pgbench", {}).items():
        text = f"{rate['ratio']} times PostgreSQL's TPC-B, {mode}: {rate['before']}/s before, {rate['after']}/s after"
        rows.append(("pgbench", text))
    rows += profile_rows("nodes, of a block with one payment", results.get("empty", {}).get("busy", {}).get("profile", []))
    rows += profile_rows("nodes, full load, of a payment", results.get("profile", []))
    for loop in results.get("gateway", {}).get("waiting", [])[-1:]:
        rows += profile_rows(f"gateway, HTTP {loop['clients']}, of a payment", loop.get("profile", []))
    return "\n".join(f"  {name:<14} {text}" for name, text in rows)


def engine_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    latency, check, memory = results["latency_ms"], results["check_us"], results["memory_mb"]
    busy = check["loaded"]
    rows = [
        ("network", f"{results['committees']} committees of {results['committee_size']}, {results['cores']} cores"),
        ("committed", f"{results['committed']} in {results['seconds']} s, {results['cross_share']:.0%} of them cross-shard"),
        ("TPS", f"{results['tps']}"),
        *((f"latency {kind}", latency_text(latency[kind], latency[f"loaded_{kind}"])) for kind in ("intra", "cross")),
        ("check", f"{busy['median']} us under full load ({busy['p10']} to {busy['p90']}), {check['idle']['median']} us idle"),
        ("CPU", f"{results['cpu_per_transaction_us']} us a transaction and replica"),
        ("R1", f"{results['R1']}   that CPU in signature checks (1 is the wall)"),
        ("R2", f"{results['R2']}   share of this machine spent on unavoidable checks"),
        ("R4", f"{results['R4']}   bytes received per transaction and replica, in transactions"),
        ("memory", f"{memory['mean']} MB a node, {memory['largest']} MB the largest"),
    ]
    if "R5" in results:
        rows.append(("R5", f"{results['R5']}   throughput with {results['dead']} dead in each committee, over that with all up"))
    if results["failed"]:
        rows.append(("failed", str(results["failed"])))
    return rows


def empty_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("R6", f"{results['R6']}   CPU of a block with one payment in a node, in signature checks")]
    for name in ("busy", "idle"):
        part = results[name]
        share, cost = f"{part['cpu_share']:.1%} of a core a node", f"{part['checks_per_block']} checks a block"
        text = f"{part['blocks_per_s']} blocks/s in each of {part['nodes']} nodes: {share}, {cost}"
        rows.append((name, f"{text} of {part['check_us']['median']} us, {part['memory_mb']['mean']} MB"))
    return rows


def gateway_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    check = results["waiting"][-1]["check_us"]
    rows = [
        ("R7", f"{results['R7']}   CPU of an HTTP payment in the gateway, in signature checks ({check['median']} us meanwhile)")
    ]
    rows.append(("gateway", f"processes: {results['processes']}, database: {results['database']}"))
    for loop in results["waiting"]:
        latency = loop["latency_ms"]
        kinds = [f"{kind} p50 {_shown(latency[kind]['p50'])} p99 {_shown(latency[kind]['p99'])}" for kind in ("intra", "cross")]
        rows.append((f"HTTP {loop['clients']}", f"{loop['committed_per_s']} committed/s   {'   '.join(kinds)}"))
        rows.append(("", cpu_text(loop)))
    loop = results["accepting"]
    taken = f"{loop['accepted_per_s']} accepted/s, {loop['committed_per_s']} committed/s until all were"
    rows += [("HTTP no wait", f"{taken}, {loop['clients']} clients"), ("", cpu_text(loop))]
    for loop in (*results["waiting"], results["accepting"]):
        if loop["unexpected"]:
            rows.append((f"WRONG, {loop['clients']}", str(loop["unexpected"])))
    return rows


def profile_rows(whose: str, parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """CPU by part; ``whose``, and of what. The last column names the files it is spent in."""
    lines = [f"{part['share']:>6.1%} {part['us']:>8.1f} us  {part['part']:<24} {files_text(part)}" for part in parts]
    rows = [("", line.rstrip()) for line in lines]
    return [("CPU by part", whose), *rows] if rows else []


def files_text(part: dict[str, Any]) -> str:
    return ", ".join(file.removeprefix(f"{part['part']}/") for file in part["dearest"] if file != part["part"])


def cpu_text(loop: dict[str, Any]) -> str:
    return (
        f"CPU a payment: gateway {loop['gateway_cpu_us']} us, nodes {loop['nodes_cpu_us']} us, clients {loop['client_cpu_us']} us"
    )


def latency_text(light: dict[str, float | None], full: dict[str, float | None]) -> str:
    return f"p50 {_shown(light['p50'])}  p99 {_shown(light['p99'])}   (full load {_shown(full['p50'])}, {_shown(full['p99'])})"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
