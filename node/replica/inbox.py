"""Bundles from other shards that wait for their turn in a block: verified once, taken in sequence."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from node.protocol.certificate import Electorate
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import MAX_BUNDLE_BYTES
from node.replica.witnesses import Verdicts

WINDOW = 64
"""Bundles kept ahead of a channel's cursor; what comes later is asked for when its time has come."""


MAX_CHANNEL_BYTES = 4 << 20
"""Bundles kept of one source, bytes; of those beyond only the next one to be taken is kept."""


class Delivery(Struct, frozen=True):
    """A verified bundle and the bytes it came in."""

    certified: CertifiedBundle
    encoded: bytes


class Unproven(Exception):
    """A bundle that its shard has not certified: no honest node sends one."""


class Inbox:
    """Keeps at most WINDOW bundles and MAX_CHANNEL_BYTES per source shard, and the next one."""

    def __init__(self, shard: int, electorates: Mapping[int, Electorate]) -> None:
        self._shard = shard
        self._electorates = electorates
        self._channels: dict[int, dict[int, Delivery]] = {source: {} for source in electorates if source != shard}
        self._received: dict[bytes, CertifiedBundle] = {}
        self._verdicts: dict[bytes, Verdicts] = {}
        self._latest: dict[int, int] = {}
        """By source, the greatest number of a bundle that came, kept or not, proven or not."""

    def __len__(self) -> int:
        """How many bundles are here, checked or not."""
        return len(self._received)

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(self._channels)

    def receive(self, certified: CertifiedBundle, cursor: int) -> Delivery | None:
        """Keep a bundle if it is valid, new, not too large for a block, and within the window after ``cursor``, and if there is
        room or it is the next one. Returns it if it was kept: its turn comes once its witnesses are checked (``settle``).

        Raises:
            Unproven: it would have been kept, and does not prove itself.
        """
        bundle = certified.bundle
        channel = self._channels.get(bundle.source)
        if channel is None or bundle.destination != self._shard or bundle.sequence in channel:
            return None
        self.heard_of(bundle.source, bundle.sequence)
        encoded = encode(certified)
        if len(encoded) > MAX_BUNDLE_BYTES or not self.has_room(bundle.source, bundle.sequence, cursor, len(encoded)):
            return None
        if not certified.is_valid(self._electorates[bundle.source]):
            raise Unproven
        delivery = channel[bundle.sequence] = Delivery(certified, encoded)
        self._received[encoded] = certified
        return delivery

    def has_room(self, source: int, sequence: int, cursor: int, size: int = 1) -> bool:
        """Whether a bundle of so many bytes would be kept, if it came: it is not here, and within what is kept."""
        channel = self._channels[source]
        if sequence in channel or not cursor < sequence <= cursor + WINDOW:
            return False
        kept = sum(len(delivery.encoded) for delivery in channel.values())
        return kept + size <= MAX_CHANNEL_BYTES or sequence == cursor + 1

    def heard_of(self, source: int, sequence: int) -> None:
        """There is such a bundle, somebody says, which has not come."""
        self._latest[source] = max(self._latest.get(source, 0), sequence)

    def settle(self, delivery: Delivery, verdicts: Verdicts) -> None:
        """The witnesses of what it prepares are checked."""
        if delivery.encoded in self._received:
            self._verdicts[delivery.encoded] = verdicts

    def verdicts(self, encoded: bytes) -> Verdicts | None:
        """What came of checking the witnesses of what a bundle prepares; None: it is not here, or not checked."""
        return self._verdicts.get(encoded)

    def read(self, encoded: bytes) -> CertifiedBundle | None:
        """A bundle in a block; None when it is none from another shard to this one."""
        received = self._received.get(encoded)
        if received is not None:
            return received
        try:
            certified = decode(CertifiedBundle, encoded, MAX_BUNDLE_BYTES)
        except DecodeError:
            return None
        bundle = certified.bundle
        return certified if bundle.source in self._channels and bundle.destination == self._shard else None

    def proves(self, encoded: bytes, certified: CertifiedBundle) -> bool:
        """Whether a bundle that was read proves itself, or is known to."""
        return encoded in self._received or certified.is_valid(self._electorates[certified.bundle.source])

    def following(self, source: int, cursor: int) -> Iterator[Delivery]:
        """The checked deliveries right after ``cursor``, without a gap."""
        channel = self._channels[source]
        while (delivery := channel.get(cursor + 1)) is not None and delivery.encoded in self._verdicts:
            yield delivery
            cursor += 1

    def get(self, source: int, sequence: int) -> CertifiedBundle | None:
        """The bundle, if it is here, checked or not."""
        delivery = self._channels.get(source, {}).get(sequence)
        return delivery.certified if delivery is not None else None

    def next(self, source: int, cursor: int) -> Delivery | None:
        """The checked delivery right after ``cursor``, if it is here."""
        return next(self.following(source, cursor), None)

    def holds(self, source: int, sequence: int) -> bool:
        """Whether the bundle is here, checked or not."""
        return sequence in self._channels[source]

    def lacks_next(self, source: int, cursor: int) -> bool:
        """Whether the bundle after ``cursor`` is not here, though it or a later one has come: it was lost, or had no room."""
        return cursor < self._latest.get(source, 0) and not self.holds(source, cursor + 1)

    def disbelieve(self, source: int) -> None:
        """Nobody has what was said to have come: forget that there was something later than what is here."""
        self._latest[source] = max(self._channels[source], default=0)

    def prune(self, source: int, cursor: int) -> None:
        """Forget what the chain has taken."""
        channel = self._channels.get(source, {})
        for sequence in [sequence for sequence in channel if sequence <= cursor]:
            encoded = channel.pop(sequence).encoded
            del self._received[encoded]
            self._verdicts.pop(encoded, None)
