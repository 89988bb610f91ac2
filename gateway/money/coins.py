"""Coins minted and burned for money that moves elsewhere: payments by the issuer, and what payments have come to."""

from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, select, update

from gateway.database import Database, Transfer
from gateway.money.tables import Payout, Purchase, Refund
from gateway.payments import Payments
from gateway.projection import Status
from gateway.waiting import Waiting

log = structlog.get_logger()
LOOK_AGAIN = 0.5
"""Seconds between looks at a payment that is under way, beyond those in which its end is waited for."""
_MINT_AGAIN = 60.0
_WAIT = 2.0


class End(NamedTuple):
    """How a payment ended, for good: what a block or the time says of it is not taken back."""

    status: Status
    code: str

    @property
    def is_good(self) -> bool:
        return self.status is Status.COMMITTED


class Coins:
    """Mints for records. A record and its payment are bound in the database transaction that accepts the payment, so that whoever
    repeats a step finds it."""

    def __init__(self, database: Database, payments: Payments, waiting: Waiting) -> None:
        self._database, self._payments, self._waiting = database, payments, waiting

    async def end(self, transfer_id: bytes) -> End | None:
        """How a payment ended; None when it has not, after a moment."""
        await self._waiting.end(transfer_id, _WAIT)
        query = select(Transfer.status, Transfer.code).where(Transfer.transaction_id == transfer_id)
        row = await self._database.read(lambda c: c.execute(query).one())
        return End(Status(row.status), row.code) if Status(row.status).is_final else None

    async def mint_purchase(self, purchase: Row[Any]) -> None:
        """Begin to mint what was bought."""

        def bind(connection: Connection, transfer_id: bytes, _: object) -> None:
            free = (Purchase.id == purchase.id, Purchase.status == "minting", Purchase.transfer_id.is_(None))
            values = {"transfer_id": transfer_id, "mints": Purchase.mints + 1}
            _expect_one(connection.execute(update(Purchase).where(*free).values(values)).rowcount)

        what = (purchase.address, purchase.asset, purchase.units, "purchase")
        await self._payments.mint(purchase.user_id, "purchase", *what, also=bind)

    async def bring_back(self, model: type[Payout] | type[Refund], record: Row[Any], address: bytes) -> float | None:
        """Mint again what a payout or refund burned, as often as it takes: it is the user's money. Returns None when that is
        done, else after how many seconds to go on."""
        if record.return_transfer_id is None:

            def bind(connection: Connection, transfer_id: bytes, _: object) -> None:
                free = (model.id == record.id, model.return_transfer_id.is_(None))
                _expect_one(connection.execute(update(model).where(*free).values(return_transfer_id=transfer_id)).rowcount)

            what = (address, record.asset, record.units, "reversal")
            await self._payments.mint(record.user_id, "reversal", *what, also=bind)
            return 0.0
        end = await self.end(record.return_transfer_id)
        if end is None:
            return LOOK_AGAIN
        if end.is_good:
            return None
        log.error("burned coins could not be minted again yet", record=record.id, status=end.status.value, code=end.code)
        mine = (model.id == record.id, model.return_transfer_id == record.return_transfer_id)
        await self._database.write(lambda c: c.execute(update(model).where(*mine).values(return_transfer_id=None)) and None)
        return _MINT_AGAIN


def _expect_one(rows: int) -> None:
    """Raises RuntimeError, which undoes the payment: another was bound meanwhile."""
    if rows != 1:
        raise RuntimeError("minted meanwhile")
