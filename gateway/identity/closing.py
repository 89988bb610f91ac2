"""Closing an account: who it was is erased, what the ledger needs stays."""

from collections.abc import Callable

from sqlalchemy import Connection, Select, delete, exists, select, update

from gateway.admin import audit
from gateway.database import UNDER_WAY, AccountBalance, Database, IdempotencyKey, ReceivingAddress, Transfer, Wallet, now_ms
from gateway.events.outbox import Event
from gateway.identity.accounts import Accounts
from gateway.identity.notices import KEYS_CHANGED, notify
from gateway.identity.sessions import Ended, Sessions, end
from gateway.identity.tables import ApiKey, User
from gateway.identity.tokens import Tokens
from gateway.problems import Problem
from gateway.projection import Status

Check = Callable[[Connection, str], bool]
Eraser = Callable[[Connection, str], None]


class Closing:
    """Asks the other parts of the gateway, all in one database transaction.

    Attributes:
        checks: whether something of a user is under way, so that he has to wait.
        erasers: each deletes what a part knows of a person.
    """

    def __init__(self, database: Database, accounts: Accounts, sessions: Sessions, tokens: Tokens) -> None:
        self._database, self._accounts, self._sessions, self._tokens = database, accounts, sessions, tokens
        self.checks: list[Check] = [_pays, _waits]
        self.erasers: list[Eraser] = [_forget_habits]

    async def close(self, user_id: str, password: str) -> None:
        """Close an account.

        Raises:
            Problem: 403, wrong password; 409, a wallet whose key is here holds money, or something is under way.
        """
        await self._accounts.check_password(user_id, password)

        def save(connection: Connection) -> list[Ended]:
            if _has_money(connection, user_id):
                raise Problem(409, "wallets_not_empty", "a wallet still holds money: pay it out first")
            if any(check(connection, user_id) for check in self.checks):
                raise Problem(409, "under_way", "a payment is still under way, or may still come back")
            for erase in self.erasers:
                erase(connection, user_id)
            gone = end(connection, user_id)
            _erase_person(connection, user_id)
            audit.record(connection, user_id, "account.closed", user_id)
            return gone

        self._sessions.ended(await self._database.write(save))
        self._tokens.forget_keys(user_id)


def _has_money(connection: Connection, user_id: str) -> bool:
    own = select(Wallet.address).where(Wallet.user_id == user_id, Wallet.sealed_key.is_not(None))
    received = select(ReceivingAddress.address).where(ReceivingAddress.wallet_id.in_(_wallets_of(user_id)))
    here = AccountBalance.address.in_(own) | AccountBalance.address.in_(received)
    held = (AccountBalance.available > 0) | (AccountBalance.held > 0)
    return bool(connection.execute(select(exists().where(here, held))).scalar())


def _wallets_of(user_id: str) -> Select[str]:
    return select(Wallet.id).where(Wallet.user_id == user_id)


def _pays(connection: Connection, user_id: str) -> bool:
    return bool(connection.execute(select(exists().where(Transfer.user_id == user_id, UNDER_WAY))).scalar())


def _waits(connection: Connection, user_id: str) -> bool:
    """Whether a payment to an e-mail address is nobody's yet, so that it may come back."""
    paid = (Transfer.user_id == user_id, Transfer.status == Status.COMMITTED.value)
    waiting = (ReceivingAddress.wallet_id.is_(None), ReceivingAddress.returned.is_(None))
    query = select(ReceivingAddress.address).join(Transfer, Transfer.transaction_id == ReceivingAddress.transaction_id)
    return connection.execute(query.where(*paid, *waiting).limit(1)).first() is not None


def _forget_habits(connection: Connection, user_id: str) -> None:
    for table in (ApiKey, Event, IdempotencyKey):
        connection.execute(delete(table).where(table.user_id == user_id))
    notify(connection, KEYS_CHANGED, user_id)
    connection.execute(update(Wallet).where(Wallet.user_id == user_id).values(label=""))
    received = ReceivingAddress.wallet_id.in_(_wallets_of(user_id))
    connection.execute(update(ReceivingAddress).where(received).values(email=""))


def _erase_person(connection: Connection, user_id: str) -> None:
    """What is left of a user: an id, and times. No e-mail address has such a form."""
    nobody = {"email": f"closed {user_id}", "name": "", "password_hash": "", "default_wallet": None, "verified_at": None}
    connection.execute(update(User).where(User.id == user_id).values(**nobody, language="en", closed_at=now_ms()))
