"""What processes tell of themselves over the broker: their figures once a second, and now and then a line for the feed.

Senders and readers - the dashboard, the terminal's status line, Prometheus - share these structs, so none can miss or misspell
a figure. Nothing depends on a report, so none is signed and anybody may have sent it: ``read_report`` types, bounds and cleans
it before anything else looks at it.
"""

from typing import Annotated

from msgspec import Meta, Struct, structs

from node.protocol.block import ShardNumber
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import Hash
from node.protocol.epoch import Name
from node.protocol.genesis import Phase
from node.protocol.transaction import Milliseconds

MAX_REPORT_BYTES = 16 << 10
MAX_TEXT = 160
"""Characters of a text that are shown."""

Counter = Annotated[int, Meta(ge=0, le=2**53, title="counter")]
"""Grows from zero while the process lives: a reader makes a rate of it."""
Gauge = Annotated[int, Meta(ge=0, le=2**53)]
"""What is now."""
Text = Annotated[str, Meta(max_length=4096)]


class Process(Struct, array_like=True, frozen=True, kw_only=True):
    """Of any process. ``cpu_ms``: of its ended children too; ``memory``: resident bytes; ``doing``: one short sentence."""

    pid: Gauge
    cpu_ms: Counter
    memory: Gauge
    doing: Text


class ReplicaFigures(Struct, array_like=True, frozen=True, kw_only=True):
    """Of a node at work in its committee. ``latency_us``: proposal to finalization of own blocks, mean of those that became
    final since the last report, None when none did. ``leader``: member index."""

    shard: ShardNumber
    height: Gauge
    state_root: Hash
    catching_up: bool
    view: Gauge
    leader: Gauge
    view_timeouts: Counter
    latency_us: Gauge | None
    mempool: Gauge
    mempool_dropped: Counter
    pending_commits: Gauge
    committed: Counter
    rejected: Counter
    expired: Counter
    bundles_in: Counter
    bundles_out: Counter


class NodeFigures(Struct, array_like=True, frozen=True, kw_only=True, tag=1):
    """``replica`` is None until the node works in a committee."""

    process: Process
    epoch: Gauge
    phase: Phase
    peers: Gauge
    bytes_in: Counter
    bytes_out: Counter
    hashes: Counter
    broker_dropped: Counter
    replica: ReplicaFigures | None


class CoordinatorFigures(Struct, array_like=True, frozen=True, kw_only=True, tag=2):
    """Nodes that registered, of those ``wanted``; that accepted the assignment; that are ready to mine."""

    process: Process
    epoch: Gauge
    phase: Phase
    wanted: Gauge
    registered: Gauge
    acknowledged: Gauge
    ready: Gauge


class Latency(Struct, array_like=True, frozen=True, kw_only=True):
    """Percentiles, in microseconds."""

    p50_us: Gauge
    p99_us: Gauge


class GatewayFigures(Struct, array_like=True, frozen=True, kw_only=True, tag=3):
    """``intra``, ``cross``: from accepting a transfer to knowing it committed, over the last minute, None when none did; within
    one shard and across several. ``pending``: transfers under way."""

    process: Process
    sign_ups: Counter
    logins: Counter
    purchases: Counter
    transfers: Counter
    balance_reads: Counter
    pending: Gauge
    intra: Latency | None
    cross: Latency | None


class DashboardFigures(Struct, array_like=True, frozen=True, kw_only=True, tag=4):
    process: Process


class Notable(Struct, array_like=True, frozen=True, tag=5):
    """Worth a line in the log and in the dashboard's feed; as an effect: write it there."""

    text: Text


class Left(Struct, array_like=True, frozen=True, tag=6):
    """A node's last word: it has left the network for good."""


Figures = NodeFigures | CoordinatorFigures | GatewayFigures | DashboardFigures


class Report(Struct, array_like=True, frozen=True):
    """``source``: the process's name; ``time``: by its clock."""

    source: Name
    time: Milliseconds
    content: Figures | Notable | Left


COUNTERS = frozenset(
    field.name
    for kind in (Process, ReplicaFigures, NodeFigures, CoordinatorFigures, GatewayFigures)
    for field in structs.fields(kind)
    if field.type == Counter
)
"""The figures that are counters; the others are gauges."""


def numbers(figures: Struct) -> dict[str, int]:
    """Counters and gauges by name, those of nested structs too; what is absent is left out."""
    found: dict[str, int] = {}
    for name, value in structs.asdict(figures).items():
        if isinstance(value, Struct):
            found |= numbers(value)
        elif isinstance(value, int):
            found[name] = value
    return found


def read_report(body: bytes) -> Report:
    """A report from the broker, its texts cleaned.

    Raises:
        DecodeError: not a report, out of bounds, or a line without text.
    """
    report = decode(Report, body, MAX_REPORT_BYTES)
    content = report.content
    if isinstance(content, Notable):
        if not (text := clean(content.text)):
            raise DecodeError("no text")
        return structs.replace(report, content=Notable(text))
    if isinstance(content, Left):
        return report
    process = structs.replace(content.process, doing=clean(content.process.doing))
    return structs.replace(report, content=structs.replace(content, process=process))


def clean(text: str) -> str:
    """One line of printable characters, shortened: no control characters, nothing that turns the direction of writing."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).strip()
    return printable if len(printable) <= MAX_TEXT else printable[: MAX_TEXT - 1] + "…"
