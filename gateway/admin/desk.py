"""What administrators do, each in one database transaction with its entry in the audit log."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, delete, select

from gateway.acceptance import Accepted
from gateway.admin import audit, limits, roles, suspensions
from gateway.admin.tables import Administrator, UserLimit
from gateway.database import Database, ReceivingAddress, Wallet
from gateway.idempotency import Idempotency
from gateway.identity.notices import Notices
from gateway.identity.sessions import Sessions
from gateway.identity.tables import TotpSecret, User
from gateway.identity.tokens import Caller
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.problems import Problem
from node.protocol.address import address_of, encode_address
from node.protocol.codes import Code
from node.protocol.transaction import Action, Leg

T = TypeVar("T")
MAX_ADDRESSES = 500
"""Of a user, shown."""
KINDS = {Action.FREEZE: "freeze", Action.UNFREEZE: "unfreeze"}


class Found(NamedTuple):
    """A user, as administrators see him. ``addresses``: (wallet id, address)."""

    user: Row[Any]
    second_factor: bool
    administrator: bool
    limits: Row[Any] | None
    addresses: Sequence[tuple[str, bytes]]


class Administration:
    def __init__(self, database: Database, jobs: Jobs, sessions: Sessions, notices: Notices, payments: Payments) -> None:
        self._database, self._jobs = database, jobs
        self._sessions, self._notices, self._payments = sessions, notices, payments

    async def require(self, caller: Caller) -> None:
        """Raises Problem (403) unless a login is an administrator's."""
        await self._database.read(lambda c: roles.require(c, caller))

    async def user(self, which: Any) -> Found:
        """The user for whom a condition holds. Raises Problem (404)."""
        return await self._database.read(lambda c: _found(c, which))

    async def suspend(self, actor: str, user_id: str, reason: str) -> None:
        self._sessions.ended(await self._change(user_id, lambda c: suspensions.suspend(c, actor, user_id, reason)))
        await self._notices.tell()

    async def reinstate(self, actor: str, user_id: str, reason: str) -> None:
        await self._change(user_id, lambda c: suspensions.reinstate(c, actor, user_id, reason))

    async def set_limits(self, actor: str, user_id: str, purchase: int | None, per_day: int | None, reason: str) -> None:
        await self._change(user_id, lambda c: limits.set_limits(c, actor, user_id, purchase, per_day, reason))

    async def freeze(
        self, actor: str, action: Action, asset: str, addresses: Sequence[bytes], reason: str, key: Idempotency | None
    ) -> Accepted:
        """Have the asset's issuer freeze or unfreeze addresses: all in one transaction, or none. Raises Problem."""
        issuer = self._payments.issuer(asset)
        legs = [Leg(address_of(issuer.public), address, asset, 0, action) for address in addresses]

        def also(connection: Connection, transfer_id: bytes, _: Code) -> None:
            shown = {"asset": asset, "addresses": [encode_address(address) for address in addresses]}
            what = f"account.{KINDS[action]}"
            audit.record(connection, actor, what, transfer_id.hex(), reason, **shown)

        return await self._payments.pay(actor, KINDS[action], (issuer,), legs, "", key, also)

    async def mints(self, limit: int) -> list[Row[Any]]:
        """Purchases that wait for a second administrator, the oldest first."""
        return await self._database.read(lambda c: limits.waiting(c, limit))

    async def decide(self, actor: str, purchase_id: str, approved: bool, reason: str) -> None:
        """Approve or reject one. Raises Problem (403, 404, 409)."""

        def save(connection: Connection) -> None:
            limits.decide(connection, actor, purchase_id, approved, reason)
            self._jobs.add(connection, "purchase", purchase_id)

        await self._jobs.write(save)

    async def log(self, subject: str | None, cursor: str | None, limit: int) -> tuple[list[Row[Any]], str | None]:
        """A page of the audit log, the latest first. Raises Problem (422)."""
        return await self._database.read(lambda c: audit.page(c, subject, cursor, limit))

    async def _change(self, user_id: str, change: Callable[[Connection], T]) -> T:
        """Raises Problem (404) when there is no such user."""

        def save(connection: Connection) -> T:
            if connection.execute(select(User.id).where(User.id == user_id, User.closed_at.is_(None))).first() is None:
                raise Problem(404, "user_not_found", "there is no such user")
            return change(connection)

        return await self._database.write(save)


def forget(connection: Connection, user_id: str) -> None:
    """A user closes his account: his role and limits end with it. What the audit log has of him is his id."""
    for table in (Administrator, UserLimit):
        connection.execute(delete(table).where(table.user_id == user_id))


def _found(connection: Connection, which: Any) -> Found:
    user = connection.execute(select(User.__table__).where(which, User.closed_at.is_(None))).first()
    if user is None:
        raise Problem(404, "user_not_found", "there is no such user")
    confirmed = select(TotpSecret.confirmed_at).where(TotpSecret.user_id == user.id)
    own = select(UserLimit.__table__).where(UserLimit.user_id == user.id)
    received = select(ReceivingAddress.wallet_id, ReceivingAddress.address).join(Wallet, Wallet.id == ReceivingAddress.wallet_id)
    addresses = (
        select(Wallet.id, Wallet.address).where(Wallet.user_id == user.id).union_all(received.where(Wallet.user_id == user.id))
    )
    return Found(
        user,
        connection.execute(confirmed).scalar() is not None,
        roles.is_administrator(connection, user.id),
        connection.execute(own).first(),
        [(row[0], row[1]) for row in connection.execute(addresses.limit(MAX_ADDRESSES))],
    )
