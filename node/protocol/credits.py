"""Credits: what each shard can have, at most, when an epoch begins. By them a captured shard is not believed to have more.

Of all but the issuer's shard, for which there is no limit. Recomputed from the closing totals of all shards, but the own ones.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from node.protocol.block import net
from node.protocol.change import Bulletin
from node.protocol.epoch import EpochDocument

Credits = Mapping[tuple[int, str], int]
"""Units by (shard, asset)."""


def next_credits(
    before: Credits, previous: EpochDocument, document: EpochDocument, closings: Sequence[Bulletin]
) -> dict[tuple[int, str], int]:
    """When ``document`` takes effect. ``before``: when ``previous`` did. ``closings``: of all its shards."""
    earned = _earned(before, closings)
    found: defaultdict[tuple[int, str], int] = defaultdict(int)
    for (shard, asset), units in earned.items():
        children = document.children_of(shard)
        if len(children) == 1:
            found[children[0], asset] += units
            continue
        upper = next(child for child in children if child != shard)
        told = next(dict(closing.change.upper) for closing in closings if closing.header.shard == shard)
        share = max(0, min(told.get(asset, 0), units))
        found[upper, asset] += share
        found[shard, asset] += units - share
    return dict(found)


def _earned(before: Credits, closings: Sequence[Bulletin]) -> dict[tuple[int, str], int]:
    """With what all others say they passed to it, less what they took in from there."""
    found = defaultdict(int, before)
    for closing in closings:
        for total in closing.change.totals.assets if closing.change.totals is not None else ():
            for peer in total.peers:
                if peer.shard != closing.header.shard:
                    found[peer.shard, total.asset] += net(peer.exported, peer.imported)
    return dict(found)
