"""Histories: lines of one wallet or of all of a user's, latest first, page by page, filtered.

Lines are listed by when they came to be, so that what comes later is before the first page, and a cursor goes on where its page
ended. One request looks at a bounded number of lines: a page may hold fewer than asked for, even none, and have a next one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_

from gateway.cursors import read_cursor, write_cursor
from gateway.database import BalanceChange, Cursor, Database, Posting, ReceivingAddress, Transfer, Wallet
from gateway.history import History
from gateway.projection import Status
from gateway.reads.balances import NOTHING, Held, Purse, held_at
from gateway.rows import read_heights, searched
from gateway.times import iso
from node.protocol.amounts import format_amount
from node.protocol.genesis import Asset
from node.protocol.shards import ShardTable
from node.protocol.transaction import decode_transaction

MAX_SCANNED = 2000
"""Lines looked at in one request."""
MAX_ADDRESSES = 2000
"""Addresses looked at for the balances on one page: each line's at its time."""
_WAITING = (Status.QUEUED.value, Status.SUBMITTED.value)


class Wanted(NamedTuple):
    """Which lines: of a user, or of one of its wallets. Times in ms, ``until`` exclusive."""

    user_id: str
    wallet_id: str | None = None
    status: Status | None = None
    asset: str | None = None
    direction: str | None = None
    counterparty: bytes | None = None
    text: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether lines have to be looked at to find those that are wanted: an index finds the rest."""
        return any(one is not None for one in (self.status, self.asset, self.direction, self.counterparty, self.text))


class Page(NamedTuple):
    """``heights``: of each shard of ``epoch``, the block up to which this is true."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    epoch: int
    heights: dict[str, int]


class Lines:
    """Reads histories. ``table`` gives an epoch's shard table; it may raise Problem (503)."""

    def __init__(
        self, database: Database, history: History, assets: Mapping[str, Asset], table: Callable[[int], ShardTable]
    ) -> None:
        self._database, self._history, self._assets, self._table = database, history, assets, table

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> Page:
        """The next lines. Raises Problem (422) on a bad cursor."""
        scope = _scope(wanted, None if cursor is None else read_cursor(cursor, 2))
        rows, balances, last, epoch, heights = await self._database.read(lambda c: self._read(c, wanted, scope, limit))
        items = [self._line(row, balances) for row in rows[:limit]]
        if wanted.status in _WAITING:  # what is published is told at once, and durable a second later
            items = [item for item in items if item["status"] == wanted.status]
        end = rows[limit - 1] if len(rows) > limit else last
        following = None if end is None else write_cursor(end["at"], end["line"] if "line" in end else end["id"])
        return Page(items, following, epoch, heights)

    def _read(
        self, connection: Connection, wanted: Wanted, scope: Select[Any], limit: int
    ) -> tuple[Sequence[Mapping[Any, Any]], dict[int, int], Mapping[Any, Any] | None, int, dict[str, int]]:
        """The lines and one more if there is, the balances after them, and the last one looked at if there may be others."""
        rows = connection.execute(_filtered(wanted, scope, limit + 1)).mappings().all()
        last = None
        if wanted.is_filtered and len(rows) <= limit:
            last = connection.execute(scope.offset(MAX_SCANNED - 1).limit(1)).mappings().first()
        balances = self._balances(connection, rows[:limit])
        epoch = connection.execute(select(func.max(Cursor.epoch))).scalar() or 1
        cursors = connection.execute(select(Cursor.shard, Cursor.height).where(Cursor.epoch == epoch))
        return rows, balances, last, epoch, {str(shard): height for shard, height in cursors}

    def _balances(self, connection: Connection, rows: Sequence[Mapping[Any, Any]]) -> dict[int, int]:
        """What the wallets held after the committed lines, by line, as far as there is room to look at all their addresses."""
        blocks = {row["line"]: block for row in rows if (block := self._block_of(row)) is not None}
        known = BalanceChange.address, BalanceChange.asset, BalanceChange.epoch, BalanceChange.height
        query = select(*known, BalanceChange.time).where(tuple_(*known).in_(set(blocks.values())))
        times = {tuple(block): time for *block, time in connection.execute(query)}
        room, found = MAX_ADDRESSES, dict[int, int]()
        held: dict[tuple[str, int], dict[str, Held]] = {}
        counted = select(func.count()).select_from(ReceivingAddress)
        for row in rows:
            if (time := times.get(blocks.get(row["line"], (b"", "", 0, 0)))) is None:
                continue
            place = row["wallet_id"], time
            if place not in held:
                mine = counted.where(ReceivingAddress.wallet_id == row["wallet_id"])
                room -= 1 + connection.execute(mine).scalar_one()
                if room < 0:
                    break
                held[place] = held_at(connection, Purse(row["wallet_id"], row["address"]), time)
            found[row["line"]] = held[place].get(row["asset"], NOTHING).total
        return found

    def _block_of(self, row: Mapping[Any, Any]) -> tuple[bytes, str, int, int] | None:
        """Address, asset, epoch and height of the block that carried out a line."""
        if row["status"] != Status.COMMITTED:
            return None
        leg = decode_transaction(row["payload"]).order.legs[row["leg"]]
        own = leg.payer if row["direction"] == "sent" else leg.payee
        height = read_heights(row["committed_in"]).get(self._table(row["epoch"]).shard_of(own))
        return None if height is None else (own, leg.asset, row["epoch"], height)

    def _line(self, row: Mapping[Any, Any], balances: Mapping[int, int]) -> dict[str, Any]:
        view = self._history.view_of(row)
        leg = view["legs"][row["leg"]]
        counterparty = leg["to"] if row["direction"] == "sent" else leg["from"]
        units = balances.get(row["line"])
        decimals = self._assets[row["asset"]].decimals if row["asset"] in self._assets else 0
        line = {"wallet_id": row["wallet_id"], "direction": row["direction"], "counterparty": counterparty, "at": iso(row["at"])}
        return {**view, **leg, **line, "balance": None if units is None else format_amount(units, decimals)}


def _scope(wanted: Wanted, before: tuple[int, ...] | None) -> Select[Any]:
    """The lines that are looked at, in order: what the indexes find."""
    whose = Posting.user_id == wanted.user_id if wanted.wallet_id is None else Posting.wallet_id == wanted.wallet_id
    conditions: list[ColumnElement[bool]] = [whose]
    if wanted.since is not None:
        conditions.append(Posting.at >= wanted.since)
    if wanted.until is not None:
        conditions.append(Posting.at < wanted.until)
    if before is not None:
        conditions.append(tuple_(Posting.at, Posting.id) < tuple_(*before))
    return select(Posting.__table__).where(*conditions).order_by(Posting.at.desc(), Posting.id.desc())


def _filtered(wanted: Wanted, scope: Select[Any], limit: int) -> Select[Any]:
    line = scope.limit(MAX_SCANNED if wanted.is_filtered else limit).subquery()
    shown = (line.c.id.label("line"), *(line.c[name] for name in ("wallet_id", "leg", "direction", "asset", "at")))
    query = select(Transfer.__table__, *shown, Wallet.address)
    query = query.join(line, line.c.transaction_id == Transfer.transaction_id).join(Wallet, Wallet.id == line.c.wallet_id)
    for name in ("asset", "direction", "counterparty"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(line.c[name] == value)
    if wanted.status is not None:
        query = query.where(Transfer.status.in_(_WAITING if wanted.status in _WAITING else (wanted.status.value,)))
    if wanted.text is not None:
        query = query.where(Transfer.text.contains(searched(wanted.text), autoescape=True))
    return query.order_by(line.c.at.desc(), line.c.id.desc()).limit(limit)
