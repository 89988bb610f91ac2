"""Credits: what each shard can have when an epoch begins, by what the others said when the one before closed.

A shard's own word counts for nothing, but for two things: at which of its accounts what it can have is, when it is split; and how
much there is of an asset whose issuer's account it keeps, since it may issue any amount.
"""

from collections.abc import Mapping, Sequence

from node.protocol.block import AssetTotal, net
from node.protocol.change import Bulletin
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_AMOUNT

Credits = Mapping[tuple[int, str], int]
"""Units by (shard, asset); those that are not there are 0. Below 0 is who was taken in from more than it could have."""


def next_credits(
    before: Credits,
    previous: EpochDocument,
    document: EpochDocument,
    closings: Sequence[Bulletin],
    issuers: Mapping[str, bytes],
) -> dict[tuple[int, str], int]:
    """The credits of the epoch of ``document``, which follows on ``previous``, where ``before`` were those.

    ``closings``: of all shards of ``previous``. ``issuers``: each asset's issuer address.
    """
    totals = {bulletin.header.shard: _by_asset(bulletin) for bulletin in closings}
    upper = {bulletin.header.shard: dict(bulletin.change.upper) for bulletin in closings}
    found: dict[tuple[int, str], int] = {}
    for asset, issuer in issuers.items():
        issued_in = previous.shards.shard_of(issuer)
        for origin in previous.shards.shards:
            shards = sorted(document.children_of(origin), key=document.shards.range_of)
            if origin == issued_in:
                units = totals[origin][asset].available if asset in totals[origin] else 0
            else:
                others = [total[asset] for shard, total in totals.items() if shard != origin and asset in total]
                units = _received(before.get((origin, asset), 0), origin, others)
            moved = min(upper[origin].get(asset, 0), units) if len(shards) > 1 else 0
            for shard, part in zip(shards, (units - moved, moved), strict=False):
                found[shard, asset] = max(-MAX_AMOUNT, min(MAX_AMOUNT, found.get((shard, asset), 0) + part))
    return {key: units for key, units in found.items() if units}


def _by_asset(closing: Bulletin) -> dict[str, AssetTotal]:
    """An honest shard tells them all."""
    totals = closing.change.totals
    return {total.asset: total for total in totals.assets} if totals is not None else {}


def _received(before: int, shard: int, others: Sequence[AssetTotal]) -> int:
    """What a shard had, with what others passed to it, less what they took in from there."""
    peers = [peer for total in others for peer in total.peers if peer.shard == shard]
    return net(before + sum(peer.exported for peer in peers), sum(peer.imported for peer in peers))
