"""Hands in a planned payment, bound to what planned it in the database transaction that accepts it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row

from gateway.admin.suspensions import is_suspended
from gateway.batches import Batches, Part
from gateway.checkout.settling import refuse
from gateway.database import Database
from gateway.payments import Payments
from gateway.plans.checking import SOMEBODY
from gateway.problems import Problem
from gateway.wallets import Wallets
from node.protocol.amounts import format_amount
from node.protocol.codes import Code

Bind = Callable[[Connection, bytes], bool]
"""Notes which transfer pays it; false when it is not to be paid any more."""


class Payer:
    """For payment files and scheduled payments. What cannot be paid is no transfer."""

    def __init__(self, database: Database, wallets: Wallets, payments: Payments, batches: Batches) -> None:
        self._database, self._wallets, self._payments, self._batches = database, wallets, payments, batches

    async def pay(self, user_id: str, wallet_id: str, planned: Row[Any], bind: Bind) -> str:
        """Pay ``planned`` (payee, asset, units, memo) from a wallet. Returns why it cannot be paid; empty when it is under way.

        Raises Problem (503) when it is worth trying again.
        """

        def also(connection: Connection, transfer_id: bytes, code: Code) -> None:
            if code is not Code.OK:
                refuse(code)
            if is_suspended(connection, user_id):
                raise Problem(403, "suspended", "this account is suspended")
            if not bind(connection, transfer_id):
                raise Problem(409, "canceled", "it was stopped or paid meanwhile")

        part = Part(planned.payee, planned.asset, format_amount(planned.units, self._payments.assets[planned.asset].decimals))
        try:
            if code := await self._obstacle(user_id, wallet_id, planned):
                return code
            await self._batches.pay(user_id, wallet_id, [part], planned.memo, None, also)
        except Problem as problem:
            if problem.status >= 500:
                raise
            return problem.code
        return ""

    async def _obstacle(self, user_id: str, wallet_id: str, planned: Row[Any]) -> str:
        """Why it would be refused now. Asked before, since a write that is refused undoes all that is written with it first."""
        wallet = await self._wallets.wallet(user_id, wallet_id)
        payee = SOMEBODY if "@" in planned.payee else await self._wallets.address_of(planned.payee)
        _, legs = await self._payments.draw(wallet, payee, planned.asset, planned.units)
        owed = self._payments.with_fees(legs)

        def look(connection: Connection) -> str:
            return "suspended" if is_suspended(connection, user_id) else self._payments.shortfall(connection, owed).value

        return await self._database.read(look)
