"""How much one user may buy where an administrator says so, and purchases that a second administrator must approve.

A limit can be raised beyond what the settings allow, by one administrator. What is bought beyond the settings waits, authorized
and not taken from the card, until another administrator approves or rejects it: nobody alone makes coins without end.
"""

from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, select, update

from gateway.admin.audit import record
from gateway.admin.tables import MintApproval, UserLimit
from gateway.database import insert, now_ms
from gateway.money.limits import Limits
from gateway.money.tables import Purchase
from gateway.problems import Problem

MOST = 10**9
"""Whole units."""
WAITS_MS = 6 * 24 * 3600 * 1000
"""Nobody decides: rejected, before the card's authorization ends by itself."""


class Approval(Enum):
    NOT_NEEDED = "not_needed"
    WAITING = "waiting"
    GIVEN = "given"
    REFUSED = "refused"


def limits_of(connection: Connection, user_id: str, general: Limits) -> tuple[Limits, str | None]:
    """A user's limits, and who has set them if they are not the general ones."""
    row = connection.execute(select(UserLimit.__table__).where(UserLimit.user_id == user_id)).first()
    if row is None:
        return general, None
    own = {name: value for name in ("purchase", "purchases_per_day") if (value := getattr(row, name)) is not None}
    return general._replace(**own), row.set_by


def set_limits(
    connection: Connection, actor: str, user_id: str, purchase: int | None, purchases_per_day: int | None, reason: str
) -> None:
    """Set a user's limits; None: as the settings say. Raises Problem (403)."""
    if actor == user_id:
        raise Problem(403, "four_eyes", "another administrator must do this")
    values = {"purchase": purchase, "purchases_per_day": purchases_per_day, "set_by": actor}
    statement = insert(connection, UserLimit).values(user_id=user_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))
    record(connection, actor, "user.limits", user_id, reason, purchase=purchase, purchases_per_day=purchases_per_day)


def ask(connection: Connection, purchase_id: str, raised_by: str) -> None:
    """A purchase waits for an approval."""
    row = {"purchase_id": purchase_id, "raised_by": raised_by, "asked_at": now_ms(), "approved": None, "decided_by": None}
    connection.execute(insert(connection, MintApproval).values(**row))


def approval(connection: Connection, purchase_id: str) -> Approval:
    """Where a purchase stands."""
    row = connection.execute(select(MintApproval.__table__).where(MintApproval.purchase_id == purchase_id)).first()
    if row is None:
        return Approval.NOT_NEEDED
    if row.approved is None:
        return Approval.REFUSED if row.asked_at + WAITS_MS < now_ms() else Approval.WAITING
    return Approval.GIVEN if row.approved else Approval.REFUSED


def waiting(connection: Connection, limit: int) -> list[Row[Any]]:
    """Purchases that wait, the oldest first."""
    query = select(Purchase.__table__, MintApproval.raised_by).join(Purchase, Purchase.id == MintApproval.purchase_id)
    still = (MintApproval.approved.is_(None), MintApproval.asked_at >= now_ms() - WAITS_MS, Purchase.status == "processing")
    return list(connection.execute(query.where(*still).order_by(MintApproval.asked_at).limit(limit)))


def decide(connection: Connection, actor: str, purchase_id: str, approved: bool, reason: str) -> None:
    """Raises Problem: 404, nothing waits; 403, by who raised the limit or bought; 409, decided already."""
    query = select(MintApproval.raised_by, Purchase.user_id, Purchase.asset, Purchase.units)
    query = query.join(Purchase, Purchase.id == MintApproval.purchase_id).where(MintApproval.purchase_id == purchase_id)
    row = connection.execute(query).first()
    if row is None:
        raise Problem(404, "purchase_not_found", "no such purchase needs an approval")
    if actor in (row.raised_by, row.user_id):
        raise Problem(403, "four_eyes", "another administrator must do this")
    free = (
        MintApproval.purchase_id == purchase_id,
        MintApproval.approved.is_(None),
        MintApproval.asked_at >= now_ms() - WAITS_MS,
    )
    if not connection.execute(update(MintApproval).where(*free).values(approved=approved, decided_by=actor)).rowcount:
        raise Problem(409, "already_decided", "this has been decided already")
    action = "mint.approved" if approved else "mint.rejected"
    record(connection, actor, action, row.user_id, reason, purchase=purchase_id, asset=row.asset, units=row.units)
