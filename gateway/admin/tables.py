"""The tables of administration. Times in ms."""

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class Administrator(Base):
    __tablename__ = "administrators"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    granted_at: Mapped[int]


class UserLimit(Base):
    """What one user's purchases may bring, in whole units, where it differs from the settings. ``set_by``: an administrator."""

    __tablename__ = "user_limits"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    purchase: Mapped[int | None]
    purchases_per_day: Mapped[int | None]
    set_by: Mapped[str] = mapped_column(String(32))


class MintApproval(Base):
    """A purchase beyond what the settings allow. ``raised_by``: the administrator who raised its user's limit. ``approved``: None
    while nobody has decided."""

    __tablename__ = "mint_approvals"
    __table_args__ = (Index("mint_approvals_waiting", "approved", "asked_at"),)
    purchase_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    raised_by: Mapped[str] = mapped_column(String(32))
    asked_at: Mapped[int]
    approved: Mapped[bool | None]
    decided_by: Mapped[str | None] = mapped_column(String(32))


class AuditEntry(Base):
    """``actor``: a user's id, or "host". ``details``: a JSON object. ``hash``: of the entry and of the one before."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("audit_log_of_subject", "subject", "number"),)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[int]
    actor: Mapped[str] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(500))
    details: Mapped[str] = mapped_column(Text)
    hash: Mapped[bytes]


class AuditHead(Base):
    """One row: the last entry's number and hash. Whoever adds one takes it first, so that there is one chain."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
    hash: Mapped[bytes]
