"""Suspending a user: he cannot log in, and nothing he has logged in before is good any more."""

from sqlalchemy import Connection, delete, exists, select, update

from gateway.admin.audit import record
from gateway.checkout.closing import withdraw_offers
from gateway.database import now_ms
from gateway.identity.notices import KEYS_CHANGED, notify
from gateway.identity.sessions import Ended, end
from gateway.identity.tables import ApiKey, User
from gateway.problems import Problem


def is_suspended(connection: Connection, user_id: str) -> bool:
    """For whatever acts for a user while he is not there."""
    return bool(connection.execute(select(exists().where(User.id == user_id, User.suspended_at.is_not(None)))).scalar())


def suspend(connection: Connection, actor: str, user_id: str, reason: str) -> list[Ended]:
    """End a user's sessions, revoke his API keys, withdraw his offers. When it is durable, call ``Sessions.ended`` and
    ``Notices.tell``.

    Raises:
        Problem: 409, he is suspended already.
    """
    _mark(connection, actor, user_id, reason, True)
    connection.execute(delete(ApiKey).where(ApiKey.user_id == user_id))
    notify(connection, KEYS_CHANGED, user_id)
    withdraw_offers(connection, user_id)
    return end(connection, user_id)


def reinstate(connection: Connection, actor: str, user_id: str, reason: str) -> None:
    """Let a user log in again. Raises Problem (409)."""
    _mark(connection, actor, user_id, reason, False)


def _mark(connection: Connection, actor: str, user_id: str, reason: str, suspended: bool) -> None:
    before = User.suspended_at.is_(None) if suspended else User.suspended_at.is_not(None)
    at = now_ms() if suspended else None
    if not connection.execute(update(User).where(User.id == user_id, before).values(suspended_at=at)).rowcount:
        raise Problem(409, "already_decided", f"this user is {'' if suspended else 'not '}suspended")
    record(connection, actor, "user.suspended" if suspended else "user.reinstated", user_id, reason)
