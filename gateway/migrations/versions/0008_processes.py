"""What several gateway processes share."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "owed",
        sa.Column("address", sa.LargeBinary(), primary_key=True),
        sa.Column("asset", sa.String(12), primary_key=True),
        sa.Column("units", integer, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(24), primary_key=True),
        sa.Column("holder", sa.String(160), nullable=False),
        sa.Column("token", integer, nullable=False),
        sa.Column("expires_at", integer, nullable=False),
        sa.Column("caught_up", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "notices",
        sa.Column("id", integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(32), nullable=False),
        sa.Column("until", integer, nullable=False),
        sa.Column("created_at", integer, nullable=False),
        sqlite_autoincrement=True,
    )
