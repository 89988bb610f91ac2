"""Chains of several epochs: what was here is of the first."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table in ("transfers", "balances"):
        op.add_column(table, sa.Column("epoch", _big, nullable=False, server_default="1"))
    _remake(
        "cursors",
        sa.Column("shard", _big, primary_key=True, autoincrement=False),
        sa.Column("height", _big, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("time", _big, nullable=False),
    )
    _remake(
        "balance_changes",
        sa.Column("address", sa.LargeBinary(), primary_key=True),
        sa.Column("asset", sa.String(12), primary_key=True),
        sa.Column("height", _big, primary_key=True, autoincrement=False),
        sa.Column("time", _big, nullable=False),
        sa.Column("available", _big, nullable=False),
        sa.Column("held", _big, nullable=False),
        sqlite_with_rowid=False,
    )


def _remake(table: str, *columns: sa.Column[object], **options: bool) -> None:
    """With the epoch in the primary key, before the height or the shard: SQLite cannot change a key."""
    names = ", ".join(column.name for column in columns)
    op.rename_table(table, f"{table}_before")
    keys = [column for column in columns if column.primary_key]
    others = [column for column in columns if not column.primary_key]
    op.create_table(
        table, *keys[:-1], sa.Column("epoch", _big, primary_key=True, autoincrement=False), keys[-1], *others, **options
    )
    op.execute(f"INSERT INTO {table} (epoch, {names}) SELECT 1, {names} FROM {table}_before")
    op.drop_table(f"{table}_before")
