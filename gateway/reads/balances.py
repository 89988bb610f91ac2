"""What a wallet held at a time: on all its addresses, by the blocks that changed them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from gateway.database import AccountBalance, BalanceChange, Cursor, Database, ReceivingAddress
from gateway.epochs import StoredEpochs
from gateway.problems import Problem
from gateway.times import iso
from node.protocol.epoch import EpochDocument


class Purse(NamedTuple):
    """What a wallet's addresses are found by: ``address`` is its own, others are those it received on."""

    id: str
    address: bytes

    def has(self, column: InstrumentedAttribute[bytes]) -> ColumnElement[bool]:
        """Whether an address is one of the wallet's."""
        others = select(ReceivingAddress.address).where(ReceivingAddress.wallet_id == self.id)
        return or_(column == self.address, column.in_(others))


class Held(NamedTuple):
    """Of an asset, in smallest units. ``time``: of the last block that changed it (ms); 0: it was there before the wallet."""

    available: int
    held: int
    time: int

    @property
    def total(self) -> int:
        return self.available + self.held


NOTHING = Held(0, 0, 0)


class Seen(NamedTuple):
    """Up to where the chains of a wallet's shards have been followed: ``heights`` by shard of ``epoch``; all to ``time`` (ms)."""

    epoch: int
    heights: dict[int, int]
    time: int


class Balances:
    """Reads them."""

    def __init__(self, database: Database, epochs: StoredEpochs) -> None:
        self._database, self._epochs = database, epochs

    async def at(self, wallet: Row[Any], time: int | None) -> tuple[Mapping[str, Held], Seen]:
        """By asset, at ``time`` (ms) or now.

        Raises:
            Problem: 409, not all shards have come so far yet, or the wallet was not here then.
        """
        purse, document = Purse(wallet.id, wallet.address), self._epochs.require()

        def read(connection: Connection) -> tuple[Mapping[str, Held], Seen]:
            seen = followed(connection, purse, document)
            if time is not None and time > seen.time:
                raise Problem(409, "not_reached", f"the last blocks seen are of {iso(seen.time)}", retry_after=1)
            return held_at(connection, purse, time), seen

        if time is not None and time < wallet.created_at:
            raise Problem(409, "not_known", f"this wallet is here since {iso(wallet.created_at)}")
        return await self._database.read(read)


def followed(connection: Connection, purse: Purse, document: EpochDocument) -> Seen:
    """Up to which blocks what is read now is true. ``document``: of this epoch."""
    received_on = select(ReceivingAddress.address).where(ReceivingAddress.wallet_id == purse.id)
    touched = {document.shards.shard_of(address) for address in (purse.address, *connection.execute(received_on).scalars())}
    query = select(Cursor.shard, Cursor.height, Cursor.time)
    rows = connection.execute(query.where(Cursor.epoch == document.number, Cursor.shard.in_(touched))).all()
    times = [row.time for row in rows]
    return Seen(document.number, {row.shard: row.height for row in rows}, min(times) if len(times) == len(touched) else 0)


def held_at(connection: Connection, purse: Purse, time: int | None) -> dict[str, Held]:
    """What a wallet held, by asset, right after the last blocks of ``time`` or before; None: of all."""
    changes, latest = BalanceChange.__table__.c, BalanceChange.__table__.alias().c
    same = (latest.address == AccountBalance.address, latest.asset == AccountBalance.asset)
    until = () if time is None else (latest.time <= time,)
    last = select(latest.epoch, latest.height).where(*same, *until)
    last = last.order_by(latest.epoch.desc(), latest.height.desc()).limit(1)
    query = (
        select(changes.asset, changes.available, changes.held, changes.time)
        .join(
            AccountBalance,
            (changes.address == AccountBalance.address)
            & (changes.asset == AccountBalance.asset)
            & (tuple_(changes.epoch, changes.height) == last.scalar_subquery()),
        )
        .where(purse.has(AccountBalance.address))
        .order_by(changes.asset)
    )
    found: dict[str, Held] = {}
    for asset, available, held, changed in connection.execute(query):
        so_far = found.get(asset, NOTHING)
        found[asset] = Held(so_far.available + available, so_far.held + held, max(so_far.time, changed))
    return found
