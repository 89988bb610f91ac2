"""The receipts of the latest blocks as rows of the database, one for each block, and back.

They are there for transactions that are handed in after the block that has them. Who hands one in does so before its
``valid_until`` is past, and no block takes it earlier than the validity window before that; so twice the window is kept.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from gateway.projection import Seen
from gateway.statements import FORGET_RECEIPTS, RECEIPTS, RECEIPTS_AT_ONCE
from node.client.blocks import ProvenBlock
from node.protocol.block import Receipt
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.limits import MAX_SHARDS

_read = msgspec.msgpack.Decoder(tuple[Receipt, ...]).decode


def receipts_rows(chain: Chain, blocks: Iterable[ProvenBlock]) -> list[dict[str, Any]]:
    """Of blocks of a chain, those without receipts left out."""
    return [
        {
            "epoch": chain.epoch,
            "shard": chain.shard,
            "height": block.header.height,
            "time": block.header.time,
            "receipts": encode(receipts),
        }
        for block in blocks
        if (receipts := block.certified.effects.receipts)
    ]


def seen_after(connection: Connection, last: int, ids: Collection[bytes]) -> tuple[list[Seen], int]:
    """What the next rows after one say of some transactions, in the order in which blocks were taken in; and the last of these
    rows, the same when none follow."""
    found, rows = list[Seen](), RECEIPTS.run(connection, {"last": last}).fetchall()
    for _, epoch, shard, height, encoded in rows:
        about = [one for one in _read(encoded) if one.transaction_id in ids]
        found += [Seen(Chain(epoch, shard), height, one) for one in about]
    return found, rows[-1][0] if rows else last


def seen_since(connection: Connection, last: int, ids: Collection[bytes]) -> list[Seen]:
    """What all rows after one say."""
    found, before = list[Seen](), -1
    while last > before:
        before = last
        more, last = seen_after(connection, before, ids)
        found += more
    return found


def forget_receipts(connection: Connection, front: Sequence[tuple[Chain, int]]) -> bool:
    """Remove rows that nobody asks about any more, a few at once; whether there may be more. ``front``: the chains that go on,
    and the earliest block time whose receipts are kept. Those of chains before all of them are kept as long as any's."""
    first = min(chain.epoch for chain, _ in front)
    over = [{"first": 1, "last": first - 1, "lowest": 0, "highest": MAX_SHARDS, "before": min(time for _, time in front)}]
    for chain, time in front:
        over.append({"first": chain.epoch, "last": chain.epoch, "lowest": chain.shard, "highest": chain.shard, "before": time})
    return any(FORGET_RECEIPTS.run(connection, one).rowcount == RECEIPTS_AT_ONCE for one in over)
