"""The figures of a run, and the table that shows them."""

import os
from typing import Any

from scripts.benchmark.load import Sample, percentile
from scripts.benchmark.measure import Usage


def figures(
    load: Sample,
    trickle: Sample,
    before: Usage,
    after: Usage,
    *,
    committees: int,
    committee_size: int,
    check: float,
    delay: float,
    write: float,
    transaction_bytes: float,
) -> dict[str, Any]:
    """All results as plain JSON values; times in ms, CPU in microseconds.

    Per replica means per replica that keeps one of the shards a transaction touches: n of them for a transaction inside a
    shard, 2n for one across two. Signatures are checked by the payer's committee only, so R2 counts n for either.
    """
    done = max(1, load.committed + load.drained)
    keepers = (1 + load.cross / done) * committee_size  # replicas that keep a shard of a transaction, on average
    tps = load.committed / load.seconds
    cpu = (after.cpu - before.cpu) / (done * keepers)
    intra, cross = percentile(trickle.intra_latencies, 0.5), percentile(trickle.cross_latencies, 0.5)
    floor = 3 * delay + 2 * write
    received = (after.bytes_in - before.bytes_in) / (done * keepers) + transaction_bytes * committee_size / keepers
    return {
        "committees": committees,
        "committee_size": committee_size,
        "seconds": round(load.seconds, 2),
        "committed": load.committed,
        "cross_share": round(load.cross / done, 3),
        "failed": dict(load.failed + trickle.failed),
        "tps": round(tps, 1),
        "latency_ms": {
            "intra": {"p50": _ms(intra), "p99": _ms(percentile(trickle.intra_latencies, 0.99))},
            "cross": {"p50": _ms(cross), "p99": _ms(percentile(trickle.cross_latencies, 0.99))},
            "loaded_intra": _spread(load.intra_latencies),
            "loaded_cross": _spread(load.cross_latencies),
        },
        "cpu_per_transaction_us": round(cpu * 1e6, 1),
        "signature_check_us": round(check * 1e6, 1),
        "R1": round(cpu / check, 2),
        "R2": round(tps * committee_size * check / (os.cpu_count() or 1), 3),
        "R3": round(intra / floor, 1) if intra else None,
        "R3_cross_over_intra": round(cross / intra, 2) if intra and cross else None,
        "R4": round(received / transaction_bytes, 2),
        "one_way_delay_ms": _ms(delay),
        "write_ms": _ms(write),
        "transaction_bytes": round(transaction_bytes),
        "memory_per_node_mb": round(after.memory / 2**20, 1),
        "cores": os.cpu_count(),
    }


def table(results: dict[str, Any]) -> str:
    """The figures for a person, each with what it means."""
    latency = results["latency_ms"]
    rows = [
        ("network", f"{results['committees']} committees of {results['committee_size']}, {results['cores']} cores"),
        ("committed", f"{results['committed']} in {results['seconds']} s, {results['cross_share']:.0%} of them cross-shard"),
        ("TPS", f"{results['tps']}"),
        ("latency intra", f"p50 {_shown(latency['intra']['p50'])}  p99 {_shown(latency['intra']['p99'])}   (light load)"),
        ("latency cross", f"p50 {_shown(latency['cross']['p50'])}  p99 {_shown(latency['cross']['p99'])}   (light load)"),
        (
            "CPU",
            f"{results['cpu_per_transaction_us']} us a transaction and replica; a check {results['signature_check_us']} us",
        ),
        ("R1", f"{results['R1']}   that CPU in signature checks (1 is the wall)"),
        ("R2", f"{results['R2']}   share of this machine spent on unavoidable checks"),
        ("R3", f"{results['R3']}   latency over 3 delays and 2 disk writes; cross/intra {results['R3_cross_over_intra']}"),
        ("R4", f"{results['R4']}   bytes received per transaction and replica, in transactions"),
        ("memory", f"{results['memory_per_node_mb']} MB in the largest node"),
    ]
    if "R5" in results:
        rows.append(("R5", f"{results['R5']}   throughput with {results['dead']} dead in each committee, over that with all up"))
    if results["failed"]:
        rows.append(("failed", str(results["failed"])))
    return "\n".join(f"  {name:<14} {text}" for name, text in rows)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"p50": _ms(percentile(values, 0.5)), "p99": _ms(percentile(values, 0.99))}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
