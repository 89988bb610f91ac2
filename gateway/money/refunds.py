"""Refunds: of purchases (the coins are burned, then the card gets its money) and of payment intents (the shop pays the buyer).

    processing ──► succeeded
        └──► failed                         whoever pays the refund has its coins still, or again

Each begins with a payment that takes the coins. What comes after it depends on what is refunded: see ``Source``.
"""

import uuid
from typing import Any, Protocol

from sqlalchemy import Connection, Row, func, select, update

from gateway.acceptance import Accepted
from gateway.database import Database, now_ms
from gateway.idempotency import Idempotency, claimed
from gateway.jobs import Jobs
from gateway.money.coins import LOOK_AGAIN, Coins
from gateway.money.limits import MAX_REFUNDS, check_least
from gateway.money.purchases import Purchases
from gateway.money.records import Records
from gateway.money.tables import Purchase, Refund
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.wallets import Wallets
from node.protocol.address import address_of
from node.protocol.amounts import format_amount
from node.protocol.codes import Code


class Source(Protocol):
    """Something that can be refunded."""

    async def begin(self, user_id: str, source_id: str, amount: str | None, key: Idempotency | None) -> Accepted:
        """Accept the payment that takes the coins, and with it (``also``) ``Refunds.add``. ``amount`` None: all that is left.

        Raises:
            Problem: it is not there, or not to be refunded so much.
        """

    async def settle(self, refund: Row[Any]) -> float | None:
        """Called, perhaps again, when that payment has committed, until ``Refunds.finish`` was. Returns seconds, as jobs do."""


class Refunds:
    """``sources``: by the column of ``Refund`` that names them."""

    def __init__(self, database: Database, records: Records, coins: Coins, jobs: Jobs) -> None:
        self._database, self._records, self._coins = database, records, coins
        self.sources: dict[str, Source] = {}
        jobs.handle("refund", self.step)

    async def begin(self, user_id: str, field: str, source_id: str, amount: str | None, key: Idempotency | None) -> str:
        """Refund a user's purchase or payment intent; the id of the refund."""
        if (earlier := await self._earlier(user_id, key)) is not None:
            return earlier
        if (source := self.sources.get(field)) is None:
            raise Problem(404, "payment_intent_not_found", "there is no such payment intent")
        try:
            accepted = await source.begin(user_id, source_id, amount, key)
        except Problem:
            # The same request may have come twice at once, and the other have left nothing to refund.
            if (earlier := await self._earlier(user_id, key)) is not None:
                return earlier
            raise
        refund_id = await self._records.made_by(Refund, accepted.id)
        self._records.tell(refund_id)
        return refund_id

    async def _earlier(self, user_id: str, key: Idempotency | None) -> str | None:
        """The id of the refund that was made under a key, if it was. Raises Problem (409): something else was."""
        if key is None or (made := await self._database.read(lambda c: claimed(c, user_id, key))) is None:
            return None
        return await self._records.made_by(Refund, made)

    def add(
        self,
        connection: Connection,
        user_id: str,
        field: str,
        source_id: str,
        asset: str,
        units: int,
        transfer_id: bytes,
        code: Code,
    ) -> None:
        """Record a refund with the payment that takes the coins; ``code``: why that is rejected at once, if it is."""
        row: dict[str, Any] = {"id": uuid.uuid4().hex}
        row |= {"user_id": user_id, "purchase_id": None, "payment_intent_id": None, field: source_id}
        row |= {"asset": asset, "units": units, "status": "processing" if code is Code.OK else "failed", "code": code.value}
        row |= {"transfer_id": transfer_id, "return_transfer_id": None, "created_at": now_ms()}
        self._records.add(connection, Refund, row)

    def taken(self, connection: Connection, field: str, source_id: str) -> int:
        """Units of the refunds that succeeded or may yet."""
        mine = (getattr(Refund, field) == source_id, Refund.status != "failed")
        return int(connection.execute(select(func.coalesce(func.sum(Refund.units), 0)).where(*mine)).scalar_one())

    def finish(self, connection: Connection, refund: Row[Any], status: str, code: str = "") -> bool:
        """It ``succeeded`` or ``failed``; False when it had ended before."""
        return self._records.move(connection, Refund, refund.id, "processing", status, code=code)

    async def step(self, refund_id: str) -> float | None:
        """The job: one step, from where the refund stands."""
        refund = await self._records.row(Refund, refund_id)
        if refund.status != "processing":
            return None
        end = await self._coins.end(refund.transfer_id)
        if end is None:
            return LOOK_AGAIN
        if not end.is_good:
            code = end.code or end.status.value
            await self._records.write(lambda c: self.finish(c, refund, "failed", code), refund.id)
            return None
        field = "purchase_id" if refund.purchase_id is not None else "payment_intent_id"
        pause = await self.sources[field].settle(refund)
        self._records.tell(refund.id)
        return pause


class PurchaseRefunds:
    """Coins back to the card they were bought with."""

    def __init__(
        self,
        database: Database,
        records: Records,
        coins: Coins,
        payments: Payments,
        wallets: Wallets,
        purchases: Purchases,
        refunds: Refunds,
    ) -> None:
        self._database, self._records, self._coins, self._payments = database, records, coins, payments
        self._wallets, self._purchases, self._refunds = wallets, purchases, refunds

    async def begin(self, user_id: str, source_id: str, amount: str | None, key: Idempotency | None) -> Accepted:
        """See ``Source``."""
        self._purchases.require()
        await self._records.view(Purchase, user_id, source_id)
        purchase = await self._records.row(Purchase, source_id)
        issuer = address_of(self._payments.issuer(purchase.asset).public)
        units = await self._units(purchase, amount)
        check_least(self._payments.assets[purchase.asset], units)
        wallet = await self._wallets.wallet(user_id, purchase.wallet_id)

        def also(connection: Connection, transfer_id: bytes, code: Code) -> None:
            self._check(connection, source_id, units)
            what = ("purchase_id", source_id, purchase.asset, units)
            self._refunds.add(connection, user_id, *what, transfer_id, code)

        pairs, legs = await self._payments.draw(wallet, issuer, purchase.asset, units)
        return await self._payments.pay(user_id, "refund", pairs, legs, "refund", key, also)

    async def settle(self, refund: Row[Any]) -> float | None:
        """See ``Source``. What the card does not take is minted again."""
        minting = refund.return_transfer_id is not None  # then the card has refused it, for good
        if not minting and await self._purchases.require().refund(refund.id, refund.purchase_id, refund.units):
            await self._database.write(lambda c: self._succeed(c, refund))
            return None
        purchase = await self._records.row(Purchase, refund.purchase_id)
        if (again := await self._coins.bring_back(Refund, refund, purchase.address)) is not None:
            return again
        await self._database.write(lambda c: self._refunds.finish(c, refund, "failed", "card_refused"))
        return None

    async def _units(self, purchase: Row[Any], amount: str | None) -> int:
        if amount is not None:
            return self._payments.units(purchase.asset, amount)
        left = int(purchase.units) - await self._database.read(lambda c: self._refunds.taken(c, "purchase_id", purchase.id))
        if left <= 0:
            raise Problem(409, "not_refundable", "all of this purchase is refunded, or is being refunded")
        return left

    def _check(self, connection: Connection, purchase_id: str, units: int) -> None:
        query = select(Purchase.status, Purchase.asset, Purchase.units).where(Purchase.id == purchase_id)
        purchase = connection.execute(query).one()
        if purchase.status != "completed":
            raise Problem(409, "not_refundable", f"this purchase is {purchase.status}")
        made = select(func.count()).where(Refund.purchase_id == purchase_id)
        if connection.execute(made).scalar_one() >= MAX_REFUNDS:
            raise Problem(409, "refund_limit", f"a purchase has at most {MAX_REFUNDS} refunds")
        left = purchase.units - self._refunds.taken(connection, "purchase_id", purchase_id)
        if units > left:
            shown = format_amount(left, self._payments.assets[purchase.asset].decimals)
            raise Problem(409, "amount_too_large", f"of this purchase {shown} {purchase.asset} can be refunded yet")

    def _succeed(self, connection: Connection, refund: Row[Any]) -> None:
        if not self._refunds.finish(connection, refund, "succeeded"):
            return
        purchase = Purchase.id == refund.purchase_id
        connection.execute(update(Purchase).where(purchase).values(refunded=Purchase.refunded + refund.units))
        whole = connection.execute(select(Purchase.id).where(purchase, Purchase.refunded == Purchase.units)).scalar()
        if whole is not None:
            self._records.move(connection, Purchase, whole, "completed", "refunded")
