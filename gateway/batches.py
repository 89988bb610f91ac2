"""Several payments from one wallet in one transaction: all of them happen, or none."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from gateway.acceptance import Accepted, Also
from gateway.idempotency import Idempotency
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.receiving import Fresh, Receiving
from gateway.wallets import Wallets
from node.protocol.codes import Code
from node.protocol.transaction import Leg


class Part(NamedTuple):
    """One of them, as a client names it."""

    to: str
    asset: str
    amount: str


class Batches:
    """What is paid together."""

    def __init__(self, wallets: Wallets, receiving: Receiving, payments: Payments) -> None:
        self._wallets, self._receiving, self._payments = wallets, receiving, payments

    async def pay(
        self,
        user_id: str,
        from_wallet: str,
        parts: Sequence[Part],
        memo: str,
        key: Idempotency | None,
        also: Also | None = None,
    ) -> Accepted:
        """Pay from a user's wallet to addresses, e-mail addresses and wallets. Raises Problem; one about a part names it. What
        ``also`` raises undoes everything."""
        wallet = await self._wallets.wallet(user_id, from_wallet)
        fresh = list[Fresh]()

        def save(connection: Connection, transaction_id: bytes, code: Code) -> None:
            for one in fresh:
                one.save(connection, transaction_id, code)
            if also is not None:
                also(connection, transaction_id, code)

        wanted = [await self._leg(wallet, part, f"/body/legs/{index}", fresh) for index, part in enumerate(parts)]
        pairs, legs = await self._payments.draw_all(wallet, wanted)
        accepted = await self._payments.pay(user_id, "transfer", pairs, legs, memo, key, save)
        self._payments.transfers += 1
        return accepted

    async def _leg(self, wallet: Row[Any], part: Part, pointer: str, fresh: list[Fresh]) -> Leg:
        about = "amount" if part.asset in self._payments.assets else "asset"
        try:
            units, about = self._payments.units(part.asset, part.amount), "to"
            payee = await self._payee(wallet, part.to, fresh)
            if payee == wallet.address:
                raise Problem(422, "same_account", "payer and payee are the same")
        except Problem as problem:
            raise Problem(problem.status, problem.code, problem.detail, pointer=f"{pointer}/{about}") from None
        return Leg(wallet.address, payee, part.asset, units)

    async def _payee(self, wallet: Row[Any], to: str, fresh: list[Fresh]) -> bytes:
        if "@" not in to:
            return await self._wallets.address_of(to)
        fresh.append(await self._receiving.fresh(to, wallet.address))
        return fresh[-1].address
