"""Tables of webhooks."""

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base

PENDING = text("next_attempt_at IS NOT NULL")
"""Of deliveries; in these words, so that the index is used."""


class WebhookEndpoint(Base):
    """Where a user's events go. Their secrets are sealed, with the endpoint's id as owner.

    ``events``: the types it wants, separated by spaces, or ``*``. ``after_event``: it wants none of those up to this id.
    ``old_secret``: signs, too, until ``old_secret_until``. ``failing_since``: of the first failure after the last delivery.
    ``disabled``: why it gets nothing, if it does not: ``by_owner`` or ``failing``. ``deleted``: it is removed with its
    deliveries, a few at a time.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("webhook_endpoints_of_user", "user_id", "created_at"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(32))
    url: Mapped[str] = mapped_column(String(600))
    events: Mapped[str] = mapped_column(String(2000))
    after_event: Mapped[int]
    secret: Mapped[bytes]
    old_secret: Mapped[bytes | None]
    old_secret_until: Mapped[int | None]
    failing_since: Mapped[int | None]
    disabled: Mapped[str] = mapped_column(String(12))
    deleted: Mapped[bool]
    created_at: Mapped[int]


class Delivery(Base):
    """An event on its way to an endpoint. ``tries``: since it was made, or replayed. ``next_attempt_at``: while it is pending."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("webhook_deliveries_once", "endpoint_id", "event_id", unique=True),
        Index("webhook_deliveries_due", "next_attempt_at", sqlite_where=PENDING, postgresql_where=PENDING),
        Index("webhook_deliveries_pending", "endpoint_id", sqlite_where=PENDING, postgresql_where=PENDING),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    user_id: Mapped[str] = mapped_column(String(32))
    event_id: Mapped[int]
    type: Mapped[str] = mapped_column(String(40))
    status: Mapped[str] = mapped_column(String(12))
    tries: Mapped[int]
    next_attempt_at: Mapped[int | None]
    created_at: Mapped[int]


class Attempt(Base):
    """What came of trying to deliver."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (Index("webhook_attempts_of_delivery", "delivery_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("webhook_deliveries.id"))
    at: Mapped[int]
    status_code: Mapped[int | None]
    error: Mapped[str] = mapped_column(String(20))
    ms: Mapped[int]


class Consumer(Base):
    """How far somebody has read the events: what follows from those up to ``position`` is in this database."""

    __tablename__ = "consumers"
    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    position: Mapped[int]
