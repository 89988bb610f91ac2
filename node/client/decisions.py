"""Home shards that tell two sides of a payment two things, found in certified blocks. Pure functions of bytes, as ``blocks``.

Only a captured home shard can: the decisions it sends are in bundles that its committee certified, each participant's blocks
hold those that it took, and the home's own blocks say what became of the transaction there. Two that differ are evidence that
nobody can deny. What follows for the money is in ``docs/threat-model.md``.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from msgspec import Struct

from node.protocol.block import Outcome
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.channel import CertifiedBundle, Decision
from node.protocol.codec import DecodeError, decode
from node.protocol.limits import MAX_BUNDLE_BYTES

MAX_DECISIONS = 200_000
"""Transactions remembered, the latest ones."""


class Place(Struct, frozen=True):
    """A certified block."""

    shard: int
    height: int
    epoch: int = 1

    def __str__(self) -> str:
        return f"block {self.height} of shard {self.shard}" + (f" in epoch {self.epoch}" if self.epoch > 1 else "")


class Contradiction(Struct, frozen=True):
    """Shard ``home`` decided a transaction both ways: where it is said to be committed, and where aborted."""

    home: int
    transaction_id: bytes
    committed: Place
    aborted: Place

    def __str__(self) -> str:
        where = f"commit in {self.committed}, abort in {self.aborted}"
        return f"shard {self.home} decided transaction {self.transaction_id.hex()} both ways: {where}"


class Decisions:
    """Of an epoch: feed it with proven blocks of all its shards, in any order; it tells of each contradiction once. A transaction
    is decided in the epoch in which it began."""

    def __init__(self, electorates: Mapping[int, Electorate]) -> None:
        self._electorates = electorates
        self._epoch = next(iter(electorates.values())).epoch if electorates else 1
        self._known: OrderedDict[tuple[int, bytes], tuple[bool, Place] | None] = OrderedDict()
        self._told: OrderedDict[tuple[int, bytes], None] = OrderedDict()

    def read(self, certified: CertifiedBlock) -> list[Contradiction]:
        """What a block says that contradicts others read before."""
        header = certified.block.header
        place = Place(header.shard, header.height, self._epoch)
        found = [(*decided, place) for decided in self._taken(certified)]
        for receipt in certified.effects.receipts:
            key = (header.shard, receipt.transaction_id)
            if receipt.outcome is Outcome.PREPARED:
                self._known.setdefault(key, None)  # it is the home shard: what follows is its own decision
            elif key in self._known:
                found.append((*key, receipt.outcome is Outcome.COMMITTED, place))
        contradictions = [said for decided in found if (said := self._compare(*decided)) is not None]
        for memory in (self._known, self._told):
            while len(memory) > MAX_DECISIONS:
                memory.popitem(last=False)
        return contradictions

    def _taken(self, certified: CertifiedBlock) -> Iterator[tuple[int, bytes, bool]]:
        """Home shard, transaction and decision in the bundles that prove themselves: a captured shard may have made others up."""
        for encoded in certified.block.bundles:
            try:
                bundle = decode(CertifiedBundle, encoded, MAX_BUNDLE_BYTES)
            except DecodeError:
                continue
            decisions = [record for record in bundle.bundle.records if isinstance(record, Decision)]
            source = self._electorates.get(bundle.bundle.source)
            if decisions and source is not None and bundle.is_valid(source):
                for decision in decisions:
                    yield bundle.bundle.source, decision.transaction_id, decision.commit

    def _compare(self, home: int, transaction_id: bytes, commit: bool, place: Place) -> Contradiction | None:
        key = (home, transaction_id)
        before = self._known.get(key)
        if before is None:
            self._known[key] = commit, place
            return None
        if before[0] == commit or key in self._told:
            return None
        self._told[key] = None
        committed, aborted = (place, before[1]) if commit else (before[1], place)
        return Contradiction(home, transaction_id, committed, aborted)
