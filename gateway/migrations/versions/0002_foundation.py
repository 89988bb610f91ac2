"""Durable jobs, the outbox of events, receiving addresses, wallets put aside, and idempotency keys for more than transfers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("kind", sa.String(24), primary_key=True),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("due_at", _big, nullable=False),
        sa.Column("turn", _big, nullable=False),
        sa.Column("failures", _big, nullable=False),
    )
    op.create_index("jobs_due", "jobs", ["kind", "due_at"])
    op.create_table(
        "events",
        sa.Column("id", _big, primary_key=True, autoincrement=True),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("created_at", _big, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_of_user", "events", ["user_id", "id"])
    op.add_column("wallets", sa.Column("archived", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("ALTER TABLE idempotency_keys RENAME COLUMN transaction_id TO made")
    op.create_table(
        "receiving_addresses",
        sa.Column("address", sa.LargeBinary(), primary_key=True),
        sa.Column("email", sa.String(254), nullable=False, index=True),
        sa.Column("wallet_id", sa.String(32), sa.ForeignKey("wallets.id"), index=True),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_id", sa.LargeBinary(), nullable=False),
        sa.Column("returned", sa.LargeBinary()),
        sa.Column("created_at", _big, nullable=False),
    )
