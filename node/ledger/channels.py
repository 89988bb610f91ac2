"""Channels: cursors say which bundles were taken, sequences which were sent, the outbox collects what a block sends."""

from collections import defaultdict

from node.ledger.reader import Reader
from node.ledger.rows import CURSOR, SEQUENCE, channel_key
from node.ledger.rules import Rules
from node.ledger.state import Overlay
from node.protocol.channel import Bundle, Record


def misfit(view: Reader, rules: Rules, bundle: Bundle) -> str | None:
    """Why the bundle cannot be taken next; None when it can."""
    if bundle.destination != rules.shard:
        return f"a bundle for shard {bundle.destination}"
    if bundle.source not in rules.peers:
        return f"a bundle from unknown shard {bundle.source}"
    if bundle.sequence != view.cursor(bundle.source) + 1:
        return f"bundle {bundle.sequence} of shard {bundle.source} is not the next after {view.cursor(bundle.source)}"
    return None


def advance(overlay: Overlay, bundle: Bundle) -> None:
    """The bundle is taken: never take it again."""
    overlay.records[channel_key(bundle.source, CURSOR)] = bundle.sequence


class Outbox:
    """What the block sends, by destination shard."""

    def __init__(self) -> None:
        self._records: defaultdict[int, list[Record]] = defaultdict(list)

    def send(self, destination: int, record: Record) -> None:
        self._records[destination].append(record)

    def close(self, overlay: Overlay) -> tuple[Bundle, ...]:
        """One bundle for each destination that gets anything, numbered, in the order of the shards."""
        bundles = []
        for destination in sorted(self._records):
            sequence = overlay.sequence(destination) + 1
            overlay.records[channel_key(destination, SEQUENCE)] = sequence
            bundles.append(Bundle(overlay.rules.shard, destination, sequence, tuple(self._records[destination])))
        return tuple(bundles)
