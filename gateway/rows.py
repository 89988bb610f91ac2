"""Transfers, their lines and balances as rows of the database, and back."""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, tuple_

from gateway.database import UNDER_WAY, WAITING, Transfer
from gateway.projection import Sent, Status, Tracked
from gateway.statements import ADD_POSTING, TRANSFER_COLUMNS, TRANSFERS
from node.protocol.block import Balance
from node.protocol.chain import Chain
from node.protocol.codes import Code
from node.protocol.transaction import decode_transaction

Place = tuple[int, bytes]
"""Of a transfer among those under way: ``valid_until`` and id, in the order of the index."""
read_heights = msgspec.json.Decoder(dict[int, int]).decode
"""``Transfer.committed_in``."""


def transfer_row(tracked: Tracked, user_id: str | None) -> dict[str, Any]:
    """The row of ``Transfer``, as things stand."""
    return {
        "transaction_id": tracked.id,
        "user_id": user_id,
        "kind": tracked.kind,
        "payload": tracked.encoded,
        "epoch": tracked.home.epoch,
        "home_shard": tracked.home.shard,
        "shards": _listed(tracked.shards),
        "status": tracked.status.value,
        "code": tracked.code.value,
        "hint": tracked.hint.value,
        "height": tracked.height,
        "committed_in": _heights(tracked.committed),
        "text": searched(tracked.memo),
        "valid_until": tracked.valid_until,
        "created_at": tracked.created_at,
        "finalized_at": tracked.finalized_at,
    }


def tracked_row(row: Any) -> Tracked:
    """What ``transfer_row`` wrote."""
    order = decode_transaction(row["payload"]).order
    return Tracked(
        row["transaction_id"],
        order.legs,
        order.memo,
        row["payload"],
        Chain(row["epoch"], row["home_shard"]),
        frozenset(json.loads(row["shards"])),
        row["valid_until"],
        row["user_id"] is not None,
        row["kind"],
        row["created_at"],
        row["finalized_at"],
        Status(row["status"]),
        Code(row["code"]),
        row["height"],
        read_heights(row["committed_in"]),
        Code(row["hint"]),
    )


def known_rows(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, Tracked]:
    """Those of some transactions that are here."""
    found = (tracked_row(dict(zip(TRANSFER_COLUMNS, row, strict=True))) for row in TRANSFERS.run(connection, ids))
    return {tracked.id: tracked for tracked in found}


def rows_left(connection: Connection, home: Chain, most: int) -> list[Tracked]:
    """Transfers handed in here whose home was this chain, and which it has not taken in."""
    query = select(Transfer.__table__).where(UNDER_WAY, WAITING, Transfer.user_id.is_not(None))
    query = query.where(Transfer.epoch == home.epoch, Transfer.home_shard == home.shard)
    return [tracked_row(row) for row in connection.execute(query.limit(most)).mappings()]


def waiting_since(connection: Connection) -> int | None:
    """The first epoch of which some chain has not taken in a transfer handed in here; None: there is none."""
    query = select(func.min(Transfer.epoch)).where(UNDER_WAY, WAITING, Transfer.user_id.is_not(None))
    return connection.execute(query).scalar()


def waiting_rows(
    connection: Connection, after: Place, before: int, most: int, known: Container[bytes]
) -> tuple[list[Tracked], Place | None]:
    """Looks at ``most`` transfers handed in here earlier than ``before`` that no block of their home shard has taken in, those
    that end first. Those beyond ``after`` whose ids are not ``known``, and the place of the last one looked at; None: there is
    none any more."""
    place = Transfer.valid_until, Transfer.transaction_id
    query = select(*place).where(UNDER_WAY, WAITING, Transfer.user_id.is_not(None), Transfer.created_at < before)
    found = connection.execute(query.where(tuple_(*place) > after).order_by(*place).limit(most))
    places = [(valid_until, transaction_id) for valid_until, transaction_id in found]
    rows = known_rows(connection, [transaction_id for _, transaction_id in places if transaction_id not in known])
    return list(rows.values()), places[-1] if places else None


def move_row(tracked: Tracked) -> dict[str, Any]:
    """A transfer's next state. The hint stays what it is: it is not of the chain."""
    return {
        "id": tracked.id,
        "new_epoch": tracked.home.epoch,
        "new_home_shard": tracked.home.shard,
        "new_shards": _listed(tracked.shards),
        "new_status": tracked.status.value,
        "new_code": tracked.code.value,
        "new_height": tracked.height,
        "new_committed_in": _heights(tracked.committed),
        "new_finalized_at": tracked.finalized_at,
    }


def put_postings(connection: Connection, postings: Sequence[Sent], at: int) -> None:
    """Add history lines; those already there stay as they are."""
    ADD_POSTING.run_all(connection, [posting_row(posting, at) for posting in postings])


def posting_row(posting: Sent, at: int) -> dict[str, Any]:
    return {
        "wallet_id": posting.wallet,
        "transaction_id": posting.transaction_id,
        "leg": posting.leg,
        "direction": posting.direction,
        "asset": posting.asset,
        "counterparty": posting.counterparty,
        "at": at,
    }


def balance_row(address: bytes, asset: str, balance: Balance, epoch: int, height: int) -> dict[str, Any]:
    amounts = {"available": balance.available, "held": balance.held, "frozen": balance.frozen}
    return {"address": address, "asset": asset, **amounts, "epoch": epoch, "height": height}


def change_row(address: bytes, asset: str, balance: Balance, epoch: int, height: int, time: int) -> dict[str, Any]:
    amounts = {"available": balance.available, "held": balance.held}
    return {"address": address, "asset": asset, "epoch": epoch, "height": height, "time": time, **amounts}


def owed_rows(due: Iterable[tuple[tuple[bytes, str], int]]) -> list[dict[str, Any]]:
    """Of (account, units); always in the same order."""
    return [{"address": address, "asset": asset, "units": units} for (address, asset), units in sorted(due)]


def searched(text: str) -> str:
    """A text as it is compared: whatever the case of its letters. PostgreSQL keeps no zeros in texts."""
    return text.casefold().replace("\0", "")


@lru_cache(maxsize=1024)
def _listed(shards: frozenset[int]) -> str:
    """As JSON."""
    return json.dumps(sorted(shards))


def _heights(committed: Mapping[int, int]) -> str:
    """As JSON."""
    return msgspec.json.encode(committed).decode()
