"""Figures for tests: one valid example of each kind, and copies of them that differ."""

from typing import TypeVar

from msgspec import Struct, structs

from node.protocol import reports
from node.protocol.genesis import Phase

S = TypeVar("S", bound=Struct)

PROCESS = reports.Process(pid=100, cpu_ms=1_500, memory=80_000_000, doing="mining block 43")
REPLICA = reports.ReplicaFigures(
    shard=0, height=42, state_root=bytes(range(32)), catching_up=False, view=45, leader=1, view_timeouts=1, latency_us=18_500,
    mempool=7, mempool_dropped=2, pending_commits=3, committed=1_000, rejected=10, expired=4, bundles_in=20, bundles_out=21,
)  # fmt: skip
NODE = reports.NodeFigures(
    process=PROCESS, epoch=1, phase=Phase.MINING, peers=7, bytes_in=100_000, bytes_out=200_000, hashes=5_000, broker_dropped=0,
    replica=REPLICA,
)  # fmt: skip
COORDINATOR = reports.CoordinatorFigures(
    process=PROCESS, epoch=1, phase=Phase.HANDOFF, wanted=8, registered=8, acknowledged=7, ready=6
)
GATEWAY = reports.GatewayFigures(
    process=PROCESS, sign_ups=1, logins=2, purchases=3, transfers=4, balance_reads=5, pending=6,
    intra=reports.Latency(p50_us=20_000, p99_us=40_000), cross=None,
)  # fmt: skip
DASHBOARD = reports.DashboardFigures(process=PROCESS)


def changed(figures: S, **changes: object) -> S:
    """A copy that differs in what is named, in nested figures too. Raises TypeError for a name there is not."""
    for name in figures.__struct_fields__:
        nested = getattr(figures, name)
        if name not in changes and isinstance(nested, Struct):
            inner = {n: changes.pop(n) for n in list(changes) if n in nested.__struct_fields__}
            changes[name] = changed(nested, **inner)
    return structs.replace(figures, **changes)
