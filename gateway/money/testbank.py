"""The test bank: stands in for a bank on development networks.

Every account is paid after half a second; one whose IBAN ends in 0002 sends the money back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from gateway.database import Database, insert, now_ms
from gateway.money.banks import BankState, BankTransfer
from gateway.money.tables import TestBankTransfer

RETURNING = "0002"
_PAGE = 500
_SETTLES_AFTER_MS = 500


class TestBank:
    """Its books are a table of its own, written apart from what the gateway makes of them."""

    __test__ = False  # for pytest

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(self, payout_id: str, iban: str, name: str, asset: str, units: int) -> BankTransfer:
        row: dict[str, Any] = {"id": payout_id, "asset": asset, "units": units, "returned": iban.endswith(RETURNING)}
        row["settles_at"] = now_ms() + _SETTLES_AFTER_MS

        def save(connection: Connection) -> BankTransfer:
            connection.execute(insert(connection, TestBankTransfer).values(**row).on_conflict_do_nothing())
            return _transfer(connection, payout_id)

        return await self._database.write(save)

    async def states(self, payout_ids: Iterable[str]) -> Mapping[str, BankTransfer]:
        asked = list(payout_ids)
        return await self._database.read(lambda c: {one: _transfer(c, one) for one in asked})

    async def statement(self, after: str) -> Sequence[tuple[str, BankTransfer]]:
        query = select(TestBankTransfer.id).where(TestBankTransfer.id > after).order_by(TestBankTransfer.id).limit(_PAGE)
        return await self._database.read(lambda c: [(one, _transfer(c, one)) for one in c.execute(query).scalars().all()])


def _transfer(connection: Connection, payout_id: str) -> BankTransfer:
    row = connection.execute(select(TestBankTransfer.__table__).where(TestBankTransfer.id == payout_id)).first()
    if row is None:
        return BankTransfer(BankState.UNKNOWN)
    if now_ms() < row.settles_at:
        return BankTransfer(BankState.PENDING, row.asset, row.units)
    return BankTransfer(BankState.RETURNED if row.returned else BankState.PAID, row.asset, row.units)
