"""Administrators, what they decide, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _user() -> sa.Column[str]:
    return sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id"), primary_key=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("suspended_at", _big))
    op.add_column("totp_secrets", sa.Column("confirmed_at", _big))
    op.execute("UPDATE totp_secrets SET confirmed_at = 0 WHERE confirmed")
    op.drop_column("totp_secrets", "confirmed")
    op.create_table("administrators", _user(), sa.Column("granted_at", _big, nullable=False))
    op.create_table(
        "user_limits",
        _user(),
        sa.Column("purchase", _big),
        sa.Column("purchases_per_day", _big),
        sa.Column("set_by", sa.String(32), nullable=False),
    )
    op.create_table(
        "mint_approvals",
        sa.Column("purchase_id", sa.String(32), primary_key=True),
        sa.Column("raised_by", sa.String(32), nullable=False),
        sa.Column("asked_at", _big, nullable=False),
        sa.Column("approved", sa.Boolean()),
        sa.Column("decided_by", sa.String(32)),
    )
    op.create_index("mint_approvals_waiting", "mint_approvals", ["approved", "asked_at"])
    op.create_table(
        "audit_log",
        sa.Column("number", _big, primary_key=True, autoincrement=False),
        sa.Column("at", _big, nullable=False),
        sa.Column("actor", sa.String(32), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.create_index("audit_log_of_subject", "audit_log", ["subject", "number"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", _big, primary_key=True, autoincrement=False),
        sa.Column("number", _big, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "number": 0, "hash": bytes(32)}])
