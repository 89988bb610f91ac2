"""What the broker would carry: reports of processes, and blocks whose numbers a test chooses, certified but never executed."""

from collections.abc import Sequence

from node.protocol.block import AssetTotal, Changes, Effects, Outcome, PeerTotal, Receipt, Totals
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH
from node.protocol.reports import Notable, Report
from tests.chains import Network
from tests.figures import GATEWAY, NODE, changed


def node(name: str, time: int, **changes: object) -> bytes:
    """A node's report of its figures, which differ from the example's in ``changes``."""
    return encode(Report(name, time, changed(NODE, **changes)))


def gateway(name: str, time: int, **changes: object) -> bytes:
    return encode(Report(name, time, changed(GATEWAY, **changes)))


def notable(name: str, time: int, text: str) -> bytes:
    return encode(Report(name, time, Notable(text)))


def block(
    network: Network, shard: int, height: int, outcomes: dict[int, Outcome] | None = None, totals: Totals | None = None
) -> bytes:
    """A second after the block before it. ``outcomes`` by the number of a transaction; all in the payload."""
    receipts = tuple(Receipt(number.to_bytes(32, "big"), outcome) for number, outcome in (outcomes or {}).items())
    effects, time = Effects(receipts, Changes((), ZERO_HASH), totals or Totals((), 0)), network.genesis.time + 1_000 * height
    payload, made = [b"x"] * len(receipts), network.shards[shard]
    return encode(
        made.forge(effects=effects, transactions=payload, height=height, view=height + 3, time=time, proposer=height % 4)
    )


def usd(available: int, minted: int, moved: Sequence[PeerTotal] = (), held: int = 0) -> Totals:
    return Totals((AssetTotal("USD", available, held, minted, 0, 0, tuple(moved)),), 0)
