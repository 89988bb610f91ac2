"""Paying out to a bank account: the coins are burned, then the bank is told; what it returns is minted again.

processing ──► sent ──► paid
    │            └──► returned          the coins are back in the wallet
    └──► failed                         no coin was burned, and the bank was told nothing
"""

import uuid
from typing import Any

from sqlalchemy import Connection, Row, func, select

from gateway.database import Database, now_ms
from gateway.idempotency import Idempotency, claimed
from gateway.jobs import Jobs
from gateway.money.banks import BankRail, BankState, compact_iban, masked_iban
from gateway.money.coins import LOOK_AGAIN, Coins
from gateway.money.limits import DAY_MS, MAX_PAYOUTS, check_least
from gateway.money.purchases import pause
from gateway.money.records import Records
from gateway.money.tables import Payout
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.vault import Vault
from gateway.wallets import Wallets
from node.protocol.address import address_of
from node.protocol.codes import Code


class Payouts:
    """``rail`` is None where nothing is paid out."""

    def __init__(
        self,
        database: Database,
        records: Records,
        coins: Coins,
        jobs: Jobs,
        payments: Payments,
        wallets: Wallets,
        vault: Vault,
        rail: BankRail | None,
    ) -> None:
        self._database, self._records, self._coins = database, records, coins
        self._payments, self._wallets, self._vault, self._rail = payments, wallets, vault, rail
        jobs.handle("payout", self.step)

    def require(self) -> BankRail:
        """The bank. Raises Problem (409) where there is none."""
        if self._rail is None:
            raise Problem(409, "no_bank", "this gateway pays nothing out")
        return self._rail

    async def begin(
        self, user_id: str, wallet_id: str, asset: str, amount: str, iban: str, name: str, key: Idempotency | None
    ) -> str:
        """Burn a wallet's coins and pay to an account; the id of the payout. What the wallet cannot pay fails at once."""
        self.require()
        units, issuer = self._payments.units(asset, amount), address_of(self._payments.issuer(asset).public)
        check_least(self._payments.assets[asset], units)
        account = compact_iban(iban)
        wallet = await self._wallets.wallet(user_id, wallet_id)
        if key is not None and (earlier := await self._database.read(lambda c: claimed(c, user_id, key))) is not None:
            return await self._records.made_by(Payout, earlier)
        payout_id = uuid.uuid4().hex
        row: dict[str, Any] = {
            "id": payout_id,
            "user_id": user_id,
            "wallet_id": wallet_id,
            "asset": asset,
            "units": units,
            "name": name,
        }
        row |= {"iban": masked_iban(account), "address": wallet.address, "return_transfer_id": None, "created_at": now_ms()}
        sealed = self._vault.seal(account.encode(), payout_id.encode())

        def also(connection: Connection, transfer_id: bytes, code: Code) -> None:
            today = select(func.count()).where(Payout.user_id == user_id, Payout.created_at > row["created_at"] - DAY_MS)
            if connection.execute(today).scalar_one() >= MAX_PAYOUTS:
                raise Problem(429, "payout_limit", f"at most {MAX_PAYOUTS} payouts in 24 hours")
            good = code is Code.OK
            what = {"status": "processing" if good else "failed", "code": code.value, "transfer_id": transfer_id}
            self._records.add(connection, Payout, row | what | {"sealed_iban": sealed if good else None})

        pairs, legs = await self._payments.draw(wallet, issuer, asset, units)
        accepted = await self._payments.pay(user_id, "payout", pairs, legs, "payout", key, also)
        self._records.tell(payout_id)
        return await self._records.made_by(Payout, accepted.id)

    async def step(self, payout_id: str) -> float | None:
        """The job: one step, from where the payout stands."""
        payout = await self._records.row(Payout, payout_id)
        match payout.status:
            case "processing":
                return await self._send(payout)
            case "sent":
                return await self._follow(payout)
        return None

    async def _send(self, payout: Row[Any]) -> float | None:
        end = await self._coins.end(payout.transfer_id)
        if end is None:
            return LOOK_AGAIN
        if not end.is_good:
            await self._move(payout, "failed", code=end.code or end.status.value, sealed_iban=None)
            return None
        account = self._vault.open(payout.sealed_iban, payout.id.encode()).decode()
        await self.require().send(payout.id, account, payout.name, payout.asset, payout.units)
        await self._move(payout, "sent", sealed_iban=None)
        return 0.0

    async def _follow(self, payout: Row[Any]) -> float | None:
        match (await self.require().states([payout.id]))[payout.id].state:
            case BankState.PAID:
                await self._move(payout, "paid")
                return None
            case BankState.RETURNED:
                if (again := await self._coins.bring_back(Payout, payout, payout.address)) is not None:
                    return again
                await self._move(payout, "returned", code="returned_by_bank")
                return None
            case BankState.UNKNOWN:
                raise LookupError("the bank does not know a payout that it took")
        return pause(now_ms() - payout.created_at)

    async def _move(self, payout: Row[Any], status: str, **values: Any) -> None:
        await self._records.write(lambda c: self._records.move(c, Payout, payout.id, payout.status, status, **values), payout.id)
