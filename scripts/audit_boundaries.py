"""Whether money went from one epoch to the next: what the closing blocks of an epoch say there was, its successors begin with.

Closing blocks are in the successions, which prove themselves; what a chain began with, ``carried``, is in the totals of all its
blocks.
"""

from collections.abc import Mapping, Sequence

from node.protocol.amounts import format_amount
from node.protocol.block import AssetTotal, Totals, net
from node.protocol.epoch import EpochDocument
from node.protocol.succession import Succession


def differences(
    documents: Sequence[EpochDocument],
    successions: Sequence[Succession],
    latest: Mapping[int, Totals],
    decimals: Mapping[str, int],
) -> list[str]:
    """What does not add up, in words. ``latest``: of this epoch's shards, after any block."""
    if not successions:
        return []
    totals = [{closing.header.shard: _told(closing.change.totals) for closing in one.closings} for one in successions]
    found = []
    for document, before, after in zip(documents[1:], totals, [*totals[1:], latest], strict=True):
        for origins in sorted(set(document.origins)):
            children = [shard for shard in document.electorates if document.origins_of(shard) == origins]
            closed = _by_asset([before[shard] for shard in origins])
            opened = _by_asset([after[shard] for shard in children])
            for asset in sorted(closed.keys() | opened.keys()):
                if units := _lost(closed.get(asset, []), opened.get(asset, [])):
                    shown = format_amount(abs(units), decimals.get(asset, 0))
                    way = f"from {_listed(origins)} to {_listed(children)}"
                    what = "lost" if units > 0 else "made"
                    found.append(f"{shown} {asset} {what} on the way {way}, as epoch {document.number} began")
    return found


def _told(totals: Totals | None) -> Totals:
    assert totals is not None  # of a closing block: the succession was checked
    return totals


def _by_asset(many: Sequence[Totals]) -> dict[str, list[AssetTotal]]:
    found: dict[str, list[AssetTotal]] = {}
    for totals in many:
        for total in totals.assets:
            found.setdefault(total.asset, []).append(total)
    return found


def _lost(closed: Sequence[AssetTotal], opened: Sequence[AssetTotal]) -> int:
    """Units that were there and are not; negative: the other way round. What was issued until then is not in ``carried``."""
    there = sum(total.available + total.held - total.issued for total in closed)
    return net(there, sum(total.carried for total in opened))


def _listed(shards: Sequence[int]) -> str:
    return "shard " + " and ".join(map(str, shards))
