"""Webhook endpoints, deliveries and their attempts; how far the events are read."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_pending = sa.text("next_attempt_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("url", sa.String(600), nullable=False),
        sa.Column("events", sa.String(2000), nullable=False),
        sa.Column("after_event", _big, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary()),
        sa.Column("old_secret_until", _big),
        sa.Column("failing_since", _big),
        sa.Column("disabled", sa.String(12), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("created_at", _big, nullable=False),
    )
    op.create_index("webhook_endpoints_of_user", "webhook_endpoints", ["user_id", "created_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", _big, primary_key=True, autoincrement=True),
        sa.Column("endpoint_id", sa.String(32), sa.ForeignKey("webhook_endpoints.id"), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("event_id", _big, nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("tries", _big, nullable=False),
        sa.Column("next_attempt_at", _big),
        sa.Column("created_at", _big, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("webhook_deliveries_once", "webhook_deliveries", ["endpoint_id", "event_id"], unique=True)
    for name, column in (("due", "next_attempt_at"), ("pending", "endpoint_id")):
        table = "webhook_deliveries"
        op.create_index(f"{table}_{name}", table, [column], sqlite_where=_pending, postgresql_where=_pending)
    op.create_table(
        "webhook_attempts",
        sa.Column("id", _big, primary_key=True, autoincrement=True),
        sa.Column("delivery_id", _big, sa.ForeignKey("webhook_deliveries.id"), nullable=False),
        sa.Column("at", _big, nullable=False),
        sa.Column("status_code", _big),
        sa.Column("error", sa.String(20), nullable=False),
        sa.Column("ms", _big, nullable=False),
    )
    op.create_index("webhook_attempts_of_delivery", "webhook_attempts", ["delivery_id", "id"])
    op.create_table(
        "consumers",
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("position", _big, nullable=False),
    )
