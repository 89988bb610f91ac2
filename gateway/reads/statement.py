"""A wallet's statement: what came in and went out between two times, and what it held before and after.

What it held is what blocks said, at their times; the lines are the committed transfers that this gateway knows. Where the two do
not agree, the difference is a line of its own: a statement always adds up.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from gateway.database import BalanceChange, Database, Posting, Transfer
from gateway.epochs import StoredEpochs
from gateway.problems import Problem
from gateway.projection import Status
from gateway.reads.balances import NOTHING, Purse, Seen, followed, held_at
from gateway.rows import read_heights
from node.protocol.address import encode_address
from node.protocol.genesis import Asset
from node.protocol.shards import ShardTable
from node.protocol.transaction import decode_transaction

MAX_LINES = 5000
"""Looked at for one asset of a statement: of lines, and of changes of the balance."""
_END = 1 << 60
_DAY = 24 * 3600 * 1000
_EARLIER, _LATER = _DAY, 31 * _DAY
"""A line may be older than the block that carried it out, which it was handed in before, and younger: when the gateway was away,
or the payment waited to be claimed."""


class Entry(NamedTuple):
    """A line. ``units``: what came in, negative: went out; ``balance``: of the asset after it; both in smallest units. ``kind``:
    of the transfer; ``unexplained``: changes of the balance without a transfer known here. ``shard``, ``height``, ``epoch``: its
    block."""

    time: int | None
    kind: str
    units: int
    balance: int
    shard: int | None = None
    height: int | None = None
    transfer_id: str = ""
    counterparty: str = ""
    memo: str = ""
    epoch: int | None = None


class Account(NamedTuple):
    """An asset of the wallet: what it held before and after, in smallest units; oldest entry first."""

    asset: str
    decimals: int
    opening: int
    entries: list[Entry]
    closing: int


class Statement(NamedTuple):
    """``since``, ``until``: ms, ``until`` exclusive; None: from the beginning, and up to the last block seen."""

    wallet: Row[Any]
    since: int | None
    until: int | None
    seen: Seen
    accounts: list[Account]


class _Found(NamedTuple):
    """Of an asset: ``times`` of the blocks that changed it, by address, epoch and height; ``rows``: lines that may be theirs."""

    asset: str
    opening: int
    closing: int
    times: Mapping[tuple[bytes, int, int], int]
    rows: Sequence[Row[Any]]


class Statements:
    """Makes them."""

    def __init__(self, database: Database, assets: Mapping[str, Asset], epochs: StoredEpochs) -> None:
        self._database, self._assets, self._epochs = database, assets, epochs

    async def of(self, wallet: Row[Any], asset: str | None, since: int | None, until: int | None) -> Statement:
        """Of one asset, or of all that the wallet has had. Raises Problem (422): of too many lines."""
        purse, document = Purse(wallet.id, wallet.address), self._epochs.require()

        def read(connection: Connection) -> tuple[Seen, list[_Found]]:
            end = _END if until is None else until
            return followed(connection, purse, document), _read(connection, purse, asset, since, end)

        seen, found = await self._database.read(read)
        known = [one for one in found if one.asset in self._assets]
        tables = {epoch: self._epochs.table(epoch) for epoch in {row.epoch for one in known for row in one.rows}}
        accounts = await asyncio.to_thread(lambda: [_account(tables, one, self._assets[one.asset].decimals) for one in known])
        return Statement(wallet, since, until, seen, accounts)


def _read(connection: Connection, purse: Purse, asset: str | None, since: int | None, until: int) -> list[_Found]:
    """What may be in a statement, by asset."""
    begin = 1 if since is None else max(1, since)
    before, after = (held_at(connection, purse, time - 1) for time in (begin, until))
    codes = sorted(before.keys() | after.keys()) if asset is None else [asset]
    found = []
    for code in codes:
        times, rows = _changes(connection, purse, code, begin, until), _lines(connection, purse, code, begin, until)
        if max(len(times), len(rows)) > MAX_LINES:
            raise Problem(422, "too_many_lines", f"at most {MAX_LINES} lines of an asset: choose a shorter time")
        found.append(_Found(code, before.get(code, NOTHING).total, after.get(code, NOTHING).total, times, rows))
    return found


def _changes(connection: Connection, purse: Purse, asset: str, begin: int, until: int) -> dict[tuple[bytes, int, int], int]:
    query = select(BalanceChange.address, BalanceChange.epoch, BalanceChange.height, BalanceChange.time).where(
        purse.has(BalanceChange.address),
        BalanceChange.asset == asset,
        BalanceChange.time >= begin,
        BalanceChange.time < until,
    )
    rows = connection.execute(query.limit(MAX_LINES + 1))
    return {(address, epoch, height): time for address, epoch, height, time in rows}


def _lines(connection: Connection, purse: Purse, asset: str, begin: int, until: int) -> Sequence[Row[Any]]:
    query = (
        select(Posting.id, Posting.leg, Posting.direction, Posting.counterparty, *Transfer.__table__.c)
        .join(Transfer, Transfer.transaction_id == Posting.transaction_id)
        .where(Posting.wallet_id == purse.id, Posting.asset == asset, Transfer.status == Status.COMMITTED.value)
        .where(Posting.at >= begin - _EARLIER, Posting.at < until + _LATER)
        .order_by(Posting.at, Posting.id)
    )
    return connection.execute(query.limit(MAX_LINES + 1)).all()


def _account(tables: Mapping[int, ShardTable], found: _Found, decimals: int) -> Account:
    """The lines in the order of their blocks, each with the balance after it."""
    placed = []
    for row in found.rows:
        order = decode_transaction(row.payload).order
        leg = order.legs[row.leg]
        own, units = (leg.payee, leg.amount) if row.direction == "received" else (leg.payer, -leg.amount)
        shard = tables[row.epoch].shard_of(own)
        height = read_heights(row.committed_in).get(shard, 0)
        time = found.times.get((own, row.epoch, height))
        if units and time is not None:
            where = (shard, height, row.transaction_id.hex(), encode_address(row.counterparty), order.memo, row.epoch)
            placed.append((time, row.id, row.kind, units, where))
    entries, balance = list[Entry](), found.opening
    for time, _, kind, units, where in sorted(placed):
        balance += units
        entries.append(Entry(time, kind, units, balance, *where))
    if difference := found.closing - balance:
        entries.append(Entry(None, "unexplained", difference, found.closing))
    return Account(found.asset, decimals, found.opening, entries, found.closing)
