"""Scheduled payments, payment files and notifications."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _number() -> sa.Column[int]:
    return sa.Column("number", _big, primary_key=True, autoincrement=True)


def _text(name: str, length: int, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _integer(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _big, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "payment_files",
        _number(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        _text("user_id", 32),
        _text("wallet_id", 32),
        _text("name", 100),
        _text("status", 12),
        sa.Column("totals", sa.Text(), nullable=False),
        _integer("created_at"),
        _integer("confirmed_at", nullable=True),
        _integer("finished_at", nullable=True),
    )
    op.create_index("payment_files_of_user", "payment_files", ["user_id", "number"])
    op.create_index("payment_files_by_status", "payment_files", ["user_id", "status"])
    op.create_table(
        "payment_lines",
        sa.Column("file_id", sa.String(32), sa.ForeignKey("payment_files.id"), primary_key=True),
        sa.Column("line", _big, primary_key=True, autoincrement=False),
        _text("payee", 254),
        _text("asset", 12),
        _integer("units"),
        _text("memo", 140),
        _text("reference", 140),
        _text("status", 12),
        _text("code", 32),
        sa.Column("transfer_id", sa.LargeBinary()),
    )
    op.create_index("payment_lines_by_status", "payment_lines", ["file_id", "status", "code", "line"])
    op.create_table(
        "scheduled_payments",
        _number(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        _text("user_id", 32),
        _text("wallet_id", 32),
        _text("payee", 254),
        _text("asset", 12),
        _integer("units"),
        _text("memo", 140),
        _text("reference", 140),
        _text("starts_at", 19),
        _text("time_zone", 40),
        _text("repeat", 8),
        _integer("interval"),
        _integer("times", nullable=True),
        _text("until", 10, nullable=True),
        _text("status", 12),
        _integer("next_at", nullable=True),
        _integer("created_at"),
    )
    op.create_index("scheduled_payments_of_user", "scheduled_payments", ["user_id", "number"])
    op.create_index("scheduled_payments_by_status", "scheduled_payments", ["user_id", "status", "number"])
    op.create_table(
        "scheduled_runs",
        sa.Column("scheduled_id", sa.String(32), sa.ForeignKey("scheduled_payments.id"), primary_key=True),
        sa.Column("due_at", _big, primary_key=True, autoincrement=False),
        _text("status", 12),
        _text("code", 32),
        _integer("attempts"),
        sa.Column("transfer_id", sa.LargeBinary()),
        _integer("updated_at"),
    )
    op.create_table(
        "notification_choices",
        sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id"), primary_key=True),
        _text("events", 1000),
        sa.Column("amounts", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "notifications",
        sa.Column("event_id", _big, primary_key=True, autoincrement=False),
        _text("id", 32),
        _text("user_id", 32),
        sa.Column("is_last", sa.Boolean(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        _integer("created_at"),
    )
    op.create_index("notifications_of_user", "notifications", ["user_id", "created_at"])
    op.create_index("notifications_by_age", "notifications", ["created_at"])
