"""What processes tell of themselves over the broker, for the dashboard."""

from typing import Any

from msgspec import Struct

from node.protocol.transaction import Milliseconds


class Event(Struct, array_like=True, frozen=True):
    """What a process is doing; nothing depends on it, so it is not signed.

    kind ``stats``: once a second, ``data`` holds counters since start and gauges of now (the same keys each time).
    kind ``notable``: something worth a line in a feed, ``data["text"]`` says what.
    """

    role: str
    """node, coordinator, gateway."""
    source: str
    """The process's name."""
    kind: str
    time: Milliseconds
    data: dict[str, Any]
