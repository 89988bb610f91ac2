"""The faucet of development networks: coins for nothing, to each user only so many a day."""

from sqlalchemy import Connection, func, select

from gateway.acceptance import Accepted
from gateway.database import insert, now_ms
from gateway.idempotency import Idempotency
from gateway.money.limits import DAY_MS, Limits, check_faucet
from gateway.money.tables import FaucetGrant
from gateway.payments import Payments
from gateway.wallets import Wallets


class Faucet:
    def __init__(self, payments: Payments, wallets: Wallets, limits: Limits) -> None:
        self._payments, self._wallets, self._limits = payments, wallets, limits

    async def give(self, user_id: str, wallet_id: str, asset: str, amount: str, key: Idempotency | None) -> Accepted:
        """Mint to a user's wallet. Raises Problem, 429 when that is too much for a day."""
        units = self._payments.units(asset, amount)
        self._payments.issuer(asset)
        wallet = await self._wallets.wallet(user_id, wallet_id)

        def also(connection: Connection, transaction_id: bytes, _: object) -> None:
            now = now_ms()
            mine = (FaucetGrant.user_id == user_id, FaucetGrant.asset == asset, FaucetGrant.created_at > now - DAY_MS)
            given = int(connection.execute(select(func.coalesce(func.sum(FaucetGrant.units), 0)).where(*mine)).scalar_one())
            check_faucet(self._payments.assets[asset], units, given, self._limits)
            row = {"transaction_id": transaction_id, "user_id": user_id, "asset": asset, "units": units, "created_at": now}
            connection.execute(insert(connection, FaucetGrant).values(**row))

        return await self._payments.mint(user_id, "faucet", wallet.address, asset, units, "faucet", key, also)
