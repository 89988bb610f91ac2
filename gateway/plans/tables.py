"""The tables of plans. Amounts in units, times in ms."""

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class PaymentFile(Base):
    """Payments that are checked, confirmed and made together. ``number`` orders them. ``totals``: by asset, as JSON
    (``files.Total``)."""

    __tablename__ = "payment_files"
    __table_args__ = (
        Index("payment_files_of_user", "user_id", "number"),
        Index("payment_files_by_status", "user_id", "status"),
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    wallet_id: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(12))
    totals: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int]
    confirmed_at: Mapped[int | None]
    finished_at: Mapped[int | None]


class PaymentLine(Base):
    """One of them. ``line``: of the file, its first one is 1. ``code``: why it failed."""

    __tablename__ = "payment_lines"
    __table_args__ = (Index("payment_lines_by_status", "file_id", "status", "code", "line"),)
    file_id: Mapped[str] = mapped_column(ForeignKey("payment_files.id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    payee: Mapped[str] = mapped_column(String(254))
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    memo: Mapped[str] = mapped_column(String(140))
    reference: Mapped[str] = mapped_column(String(140))
    status: Mapped[str] = mapped_column(String(12))
    code: Mapped[str] = mapped_column(String(32))
    transfer_id: Mapped[bytes | None]


class ScheduledPayment(Base):
    """A payment that is made by itself, once or again and again. ``number`` orders them. ``starts_at``, ``until``: by clock and
    calendar of ``time_zone``. ``next_at``: when the next run is due, or the one that is being made was; None: none is left."""

    __tablename__ = "scheduled_payments"
    __table_args__ = (
        Index("scheduled_payments_of_user", "user_id", "number"),
        Index("scheduled_payments_by_status", "user_id", "status", "number"),
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    wallet_id: Mapped[str] = mapped_column(String(32))
    payee: Mapped[str] = mapped_column(String(254))
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    memo: Mapped[str] = mapped_column(String(140))
    reference: Mapped[str] = mapped_column(String(140))
    starts_at: Mapped[str] = mapped_column(String(19))
    time_zone: Mapped[str] = mapped_column(String(40))
    repeat: Mapped[str] = mapped_column(String(8))
    interval: Mapped[int]
    times: Mapped[int | None]
    until: Mapped[str | None] = mapped_column(String(10))
    status: Mapped[str] = mapped_column(String(12))
    next_at: Mapped[int | None]
    created_at: Mapped[int]


class ScheduledRun(Base):
    """What became of a scheduled payment at one of its times. ``attempts``: how often it was tried to pay."""

    __tablename__ = "scheduled_runs"
    scheduled_id: Mapped[str] = mapped_column(ForeignKey("scheduled_payments.id"), primary_key=True)
    due_at: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(12))
    code: Mapped[str] = mapped_column(String(32))
    attempts: Mapped[int]
    transfer_id: Mapped[bytes | None]
    updated_at: Mapped[int]


class NotificationChoice(Base):
    """Of what a user wants to be told by mail: types of events, separated by spaces; ``amounts``: and of how much."""

    __tablename__ = "notification_choices"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    events: Mapped[str] = mapped_column(String(1000))
    amounts: Mapped[bool]


class Notification(Base):
    """A mail about an event. ``id``: the mail's. ``is_last``: no further one is sent for a while. ``done``: it was sent, or
    given up."""

    __tablename__ = "notifications"
    __table_args__ = (Index("notifications_of_user", "user_id", "created_at"), Index("notifications_by_age", "created_at"))
    event_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(32))
    user_id: Mapped[str] = mapped_column(String(32))
    is_last: Mapped[bool]
    done: Mapped[bool]
    created_at: Mapped[int]
