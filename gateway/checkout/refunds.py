"""Refunds of payment intents: the shop pays the buyer back, at most what it has captured."""

from typing import Any

from sqlalchemy import Connection, Row, update

from gateway.acceptance import Accepted
from gateway.checkout.intents import Intents, load_intent
from gateway.checkout.settling import refuse
from gateway.checkout.tables import PaymentIntent
from gateway.database import Database
from gateway.idempotency import Idempotency
from gateway.money.refunds import Refunds
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.wallets import Wallets
from node.protocol.codes import Code

FIELD = "payment_intent_id"


class IntentRefunds:
    """A ``money.refunds.Source``. Each refund is a transfer from the shop's wallet to the wallet that paid."""

    def __init__(self, database: Database, wallets: Wallets, payments: Payments, refunds: Refunds, intents: Intents) -> None:
        self._database, self._wallets, self._payments = database, wallets, payments
        self._refunds, self._intents = refunds, intents

    async def begin(self, user_id: str, source_id: str, amount: str | None, key: Idempotency | None) -> Accepted:
        """See ``Source``. Raises Problem (409) also when the shop's wallet has too little: then there is no refund."""
        intent = await self._intents.of_shop(user_id, source_id)
        left = await self._database.read(lambda c: self._left(c, source_id))
        units = left if amount is None else self._payments.units(intent.asset, amount)
        if not 0 < units <= left:
            raise _not_refundable()
        shop = await self._wallets.wallet(user_id, intent.wallet_id)

        def also(connection: Connection, transaction_id: bytes, code: Code) -> None:
            if code is not Code.OK:
                refuse(code)
            if units > self._left(connection, source_id):
                raise _not_refundable()
            self._refunds.add(connection, user_id, FIELD, source_id, intent.asset, units, transaction_id, code)

        pairs, legs = await self._payments.draw(shop, intent.payer_address, intent.asset, units)
        return await self._payments.pay(user_id, "refund", pairs, legs, key=key, also=also)

    async def settle(self, refund: Row[Any]) -> float | None:
        """See ``Source``."""
        await self._database.write(lambda c: self._settle(c, refund))
        return None

    def _settle(self, connection: Connection, refund: Row[Any]) -> None:
        if self._refunds.finish(connection, refund, "succeeded"):
            more = {"amount_refunded": PaymentIntent.amount_refunded + refund.units}
            connection.execute(update(PaymentIntent).where(PaymentIntent.id == refund.payment_intent_id).values(**more))
            self._intents.tell(connection, load_intent(connection, refund.payment_intent_id), "refunded")

    def _left(self, connection: Connection, intent_id: str) -> int:
        """Units that were captured and are neither refunded nor about to be."""
        captured: int = load_intent(connection, intent_id).amount_captured
        return captured - self._refunds.taken(connection, FIELD, intent_id)


def _not_refundable() -> Problem:
    return Problem(409, "not_refundable", "that is more than was captured and is neither refunded nor about to be")
