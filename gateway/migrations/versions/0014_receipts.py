"""Receipts of the latest blocks, for transactions that are handed in after the block that has them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "receipts",
        sa.Column("id", _big, primary_key=True, autoincrement=True),
        sa.Column("epoch", _big, nullable=False),
        sa.Column("shard", _big, nullable=False),
        sa.Column("height", _big, nullable=False),
        sa.Column("time", _big, nullable=False),
        sa.Column("receipts", sa.LargeBinary(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("receipts_by_time", "receipts", ["time"])
