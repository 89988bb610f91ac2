"""What histories are searched by, and balances at any time. The lines of histories begin anew: no gateway is in use yet."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("transfers", sa.Column("text", sa.String(420), nullable=False, server_default=""))
    op.drop_table("postings")
    op.create_table(
        "postings",
        sa.Column("id", _big, primary_key=True, autoincrement=True),
        sa.Column("wallet_id", sa.String(32), sa.ForeignKey("wallets.id"), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("transaction_id", sa.LargeBinary(), sa.ForeignKey("transfers.transaction_id"), nullable=False),
        sa.Column("leg", _big, nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("asset", sa.String(12), nullable=False),
        sa.Column("counterparty", sa.LargeBinary(), nullable=False),
        sa.Column("at", _big, nullable=False),
    )
    op.create_index("postings_once", "postings", ["transaction_id", "leg", "direction"], unique=True)
    op.create_index("postings_of_wallet", "postings", ["wallet_id", "at", "id"])
    op.create_index("postings_of_user", "postings", ["user_id", "at", "id"])
    op.create_table(
        "balance_changes",
        sa.Column("address", sa.LargeBinary(), primary_key=True),
        sa.Column("asset", sa.String(12), primary_key=True),
        sa.Column("height", _big, primary_key=True, autoincrement=False),
        sa.Column("time", _big, nullable=False),
        sa.Column("available", _big, nullable=False),
        sa.Column("held", _big, nullable=False),
        sqlite_with_rowid=False,
    )
