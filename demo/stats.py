"""What processes say about themselves: untrusted, so typed, bounded and cleaned before anything looks at it.

Events are not signed: whoever reaches the broker can send one. What does not fit these types is refused as a whole;
unknown keys are ignored, so that a newer process does not vanish from an older dashboard.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from node.protocol.codec import DecodeError, decode
from node.protocol.reports import Event

MAX_EVENT_BYTES = 64 << 10
MAX_SOURCE_NAME = 32
MAX_TEXT = 160

Count = Annotated[int, Meta(ge=0, le=2**53)]
Gauge = Annotated[float, Meta(ge=0, le=1e15)]
Text = Annotated[str, Meta(max_length=4096)]


class Stats(Struct, frozen=True, kw_only=True):
    """Of any process. ``cpu``: seconds of CPU since it started; ``memory``: resident bytes; ``doing``: one short sentence."""

    epoch: Count = 0
    phase: Text = ""
    cpu: Gauge = 0.0
    memory: Count = 0
    pid: Count = 0
    doing: Text = ""

    @classmethod
    def counters(cls) -> tuple[str, ...]:
        """The fields that only grow while the process lives."""
        return ("cpu",)


class NodeStats(Stats, frozen=True, kw_only=True):
    """``latency_ms``: proposal to finalization of its own blocks, mean of the last second, 0 when there was none."""

    height: Count = 0
    view: Count = 0
    leader: Annotated[int, Meta(ge=-1, le=2**53)] | None = None
    state_root: Text = ""
    mempool: Count = 0
    pending_commits: Count = 0
    committed: Count = 0
    rejected: Count = 0
    blocks: Count = 0
    peers: Count = 0
    hash_rate: Gauge = 0.0
    bytes_in: Count = 0
    bytes_out: Count = 0
    latency_ms: Gauge = 0.0

    @classmethod
    def counters(cls) -> tuple[str, ...]:
        return ("cpu", "committed", "rejected", "blocks", "bytes_in", "bytes_out")


class CoordinatorStats(Stats, frozen=True, kw_only=True):
    registered: Count = 0
    wanted: Count = 0
    acknowledged: Count = 0
    ready: Count = 0


class GatewayStats(Stats, frozen=True, kw_only=True):
    """Latencies over the last minute, 0 when there was nothing to measure."""

    registrations: Count = 0
    logins: Count = 0
    purchases: Count = 0
    transfers: Count = 0
    balance_reads: Count = 0
    pending: Count = 0
    latency_p50_ms: Gauge = 0.0
    latency_p99_ms: Gauge = 0.0
    cross_latency_p50_ms: Gauge = 0.0
    cross_latency_p99_ms: Gauge = 0.0

    @classmethod
    def counters(cls) -> tuple[str, ...]:
        return ("cpu", "registrations", "logins", "purchases", "transfers", "balance_reads")


KINDS: dict[str, type[Stats]] = {
    "node": NodeStats,
    "coordinator": CoordinatorStats,
    "gateway": GatewayStats,
    "dashboard": Stats,
}


class Malformed(ValueError):
    """A message that is not what its channel carries, or breaks a bound."""


def read_event(body: bytes) -> Event:
    """Decode an event of a known role with a presentable name.

    Raises:
        Malformed: anything else.
    """
    try:
        event = decode(Event, body, MAX_EVENT_BYTES)
    except DecodeError as error:
        raise Malformed(str(error)) from None
    if event.role not in KINDS:
        raise Malformed("unknown role")
    if not 1 <= len(event.source) <= MAX_SOURCE_NAME or not event.source.isprintable():
        raise Malformed("not a name")
    return event


def read_stats(role: str, data: dict[str, Any]) -> Stats:
    """The numbers in a ``stats`` event of ``role``.

    Raises:
        Malformed: a value of the wrong type or out of bounds.
    """
    try:
        return msgspec.convert(data, KINDS[role], strict=False)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        raise Malformed(str(error)) from None


def read_text(data: dict[str, Any]) -> str:
    """The sentence of a ``notable`` event. Raises Malformed when there is none."""
    text = data.get("text")
    if not isinstance(text, str) or not (cleaned := clean(text)):
        raise Malformed("no text")
    return cleaned


def clean(text: str) -> str:
    """One line of printable characters, shortened: no control characters, nothing that turns the direction of writing."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).strip()
    return printable if len(printable) <= MAX_TEXT else printable[: MAX_TEXT - 1] + "…"
