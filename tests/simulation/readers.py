"""Who reads certified blocks beside the gateways: a follower of each shard, and the dashboard.

Whatever a quorum certifies, they go on; what makes no sense they count; what a home shard decided both ways they name. What they
find is held against the bytes of the blocks, read with ``msgpack``.
"""

from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from demo.chain import Chain
from node.client.blocks import read_block
from node.client.follower import Follower
from tests.simulation.violation import violated
from tests.vectors.reference import Invalid, read

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle
    from tests.simulation.world import World

_HEIGHT, _TIME, _PROPOSER = 3, 6, 7
_PREPARED, _COMMITTED = 1, 2


class Readers:
    """They are shown each block of each shard once, in order."""

    def __init__(self, world: "World", oracle: "Oracle") -> None:
        self._world, self._oracle = world, oracle
        self._followers = {shard: Follower(electorate) for shard, electorate in world.document.electorates.items()}
        self._dashboard = Chain(world.genesis)
        self._named: set[tuple[int, bytes]] = set()
        self._nonsense = dict.fromkeys(world.shards, 0)
        self._times = dict.fromkeys(world.shards, 0)
        self._said: dict[tuple[int, bytes], set[bool]] = {}
        """What home shards decided, by home and transaction."""

    def height(self, shard: int) -> int:
        """How far a shard has been read."""
        return self._followers[shard].height

    def read(self, shard: int, encoded: bytes) -> None:
        """A block that the shard's committee certified."""
        certified = msgpack.unpackb(encoded)
        self._judge(shard, certified)
        height, follower = certified[0][0][_HEIGHT], self._followers[shard]
        try:
            follower.published([read_block(encoded, self._world.document.electorates[shard])], self._world.time / 1_000)
            named = self._dashboard.add(shard, encoded, self._world.document)
            self._dashboard.supply(self._world.document)
        except Exception as error:
            violated("reader", f"block {height} of shard {shard} ends a reader: {type(error).__name__}: {error}")
        if follower.height != height:
            violated("reader", f"who follows shard {shard} comes no further than block {height - 1}")
        if follower.nonsense != self._nonsense[shard]:
            odd = f"{follower.nonsense} blocks of shard {shard} are told to make no sense"
            violated("reader", f"{odd}, it is {self._nonsense[shard]}")
        self._named |= {(one.home, one.transaction_id) for one in named}
        both = {key for key, decisions in self._said.items() if len(decisions) == 2}
        if self._named != both:
            home, transaction_id = min(self._named ^ both)
            is_said = "is named for" if (home, transaction_id) in self._named else "is not named, it has"
            violated("evidence", f"shard {home} {is_said} deciding transaction {transaction_id.hex()[:8]} both ways")

    # -- the second opinion ----------------------------------------------------------------------------------------

    def _judge(self, shard: int, certified: list[Any]) -> None:
        (header, bundles, transactions, _), _, (receipts, _, _) = certified
        is_odd = header[_TIME] < self._times[shard] or header[_PROPOSER] >= self._world.plan.size
        self._times[shard] = header[_TIME]
        for encoded in bundles:
            if (bundle := _readable(encoded)) is None:
                is_odd = True
                continue
            is_odd |= not all(_is_transaction(record[1]) for record in bundle[0][3] if record[0] == 1)
            if self._oracle.is_proven(bundle):
                for kind, *rest in bundle[0][3]:
                    if kind == 3:
                        self._said.setdefault((bundle[0][0], rest[0]), set()).add(rest[1])
        is_odd |= not all(map(_is_transaction, transactions))
        self._nonsense[shard] += is_odd
        for transaction_id, outcome, _ in receipts:
            key = shard, transaction_id
            if outcome == _PREPARED:
                self._said.setdefault(key, set())
            elif key in self._said:
                self._said[key].add(outcome == _COMMITTED)


def _readable(encoded: bytes) -> Any:
    """A bundle, or None."""
    try:
        bundle = msgpack.unpackb(encoded)
    except (ValueError, msgpack.UnpackException):
        return None
    return bundle if isinstance(bundle, list) and len(bundle) == 4 else None


def _is_transaction(encoded: bytes) -> bool:
    try:
        read(encoded)
    except (Invalid, TypeError, ValueError, AttributeError, msgpack.UnpackException):
        return False
    return True
