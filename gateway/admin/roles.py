"""Who is an administrator: whom a command on the gateway's host has made one, and who has logged in with a second factor."""

from sqlalchemy import Connection, delete, exists, func, select

from gateway.admin.audit import HOST, record
from gateway.admin.tables import Administrator
from gateway.database import insert, now_ms
from gateway.identity.tables import Session, TotpSecret, User
from gateway.identity.tokens import Caller
from gateway.problems import Problem


class RoleError(ValueError):
    """Somebody cannot be made an administrator, or is none; the text says why."""


def require(connection: Connection, caller: Caller) -> None:
    """Raises Problem (403) unless a login is an administrator's, and began with the second factor he has."""
    if connection.execute(select(Administrator).where(Administrator.user_id == caller.user)).first() is None:
        raise Problem(403, "not_administrator", "only administrators may do this")
    since = select(TotpSecret.confirmed_at).where(TotpSecret.user_id == caller.user).scalar_subquery()
    late = select(Session.id).where(Session.id == caller.session, Session.created_at >= since, Session.ended.is_(False))
    if connection.execute(late).first() is None:
        raise Problem(403, "second_factor_needed", "turn on the second factor and log in again")


def grant(connection: Connection, user_id: str, reason: str) -> None:
    """Make a user an administrator. Raises RoleError."""
    # It writes before it reads: other processes that write wait for that.
    record(connection, HOST, "administrator.granted", user_id, reason)
    ready = select(User.verified_at, User.suspended_at, TotpSecret.confirmed_at).where(User.id == user_id)
    user = connection.execute(ready.outerjoin(TotpSecret, TotpSecret.user_id == User.id)).one()
    if user.verified_at is None or user.suspended_at is not None:
        raise RoleError("this user is suspended, or has not verified the e-mail address")
    if user.confirmed_at is None:
        raise RoleError("this user has no second factor: it is turned on in the settings of the wallet page")
    row = {"user_id": user_id, "granted_at": now_ms()}
    if not connection.execute(insert(connection, Administrator).values(**row).on_conflict_do_nothing()).rowcount:
        raise RoleError("this user is an administrator already")


def revoke(connection: Connection, user_id: str, reason: str) -> None:
    """End an administrator's role, at once. Raises RoleError."""
    record(connection, HOST, "administrator.revoked", user_id, reason)
    if not connection.execute(delete(Administrator).where(Administrator.user_id == user_id)).rowcount:
        raise RoleError("this user is no administrator")


def is_administrator(connection: Connection, user_id: str) -> bool:
    return bool(connection.execute(select(exists().where(Administrator.user_id == user_id))).scalar())


def emails(connection: Connection) -> list[str]:
    """All administrators."""
    query = select(User.email).join(Administrator, Administrator.user_id == User.id).order_by(func.lower(User.email))
    return list(connection.execute(query).scalars())


def user_of(connection: Connection, email: str) -> str:
    """The id of who has an e-mail address. Raises RoleError."""
    user_id = connection.execute(select(User.id).where(User.email == email)).scalar()
    if user_id is None:
        raise RoleError("nobody has this e-mail address")
    return user_id
