"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("email", sa.String(254), nullable=False, unique=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("created_at", _big, nullable=False),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("family", sa.String(32), nullable=False, index=True),
        sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("expires_at", _big, nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "wallets",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary()),
        sa.Column("created_at", _big, nullable=False),
    )
    op.create_index("wallets_of_user", "wallets", ["user_id", "created_at"])
    op.create_table(
        "transfers",
        sa.Column("transaction_id", sa.LargeBinary(), primary_key=True),
        sa.Column("user_id", sa.String(32)),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("home_shard", _big, nullable=False),
        sa.Column("shards", sa.String(200), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("hint", sa.String(32), nullable=False),
        sa.Column("height", _big),
        sa.Column("committed_in", sa.String(1000), nullable=False),
        sa.Column("valid_until", _big, nullable=False),
        sa.Column("created_at", _big, nullable=False),
        sa.Column("finalized_at", _big),
    )
    under_way = sa.text("status IN ('queued', 'submitted', 'prepared')")
    op.create_index("transfers_under_way", "transfers", ["valid_until"], sqlite_where=under_way, postgresql_where=under_way)
    op.create_table(
        "postings",
        sa.Column("id", _big, primary_key=True, autoincrement=True),
        sa.Column("wallet_id", sa.String(32), sa.ForeignKey("wallets.id"), nullable=False),
        sa.Column("transaction_id", sa.LargeBinary(), sa.ForeignKey("transfers.transaction_id"), nullable=False),
        sa.Column("leg", _big, nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
    )
    op.create_index("postings_once", "postings", ["wallet_id", "transaction_id", "leg"], unique=True)
    op.create_index("postings_of_transaction", "postings", ["transaction_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_id", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _big, nullable=False),
    )
    op.create_table(
        "balances",
        sa.Column("address", sa.LargeBinary(), primary_key=True),
        sa.Column("asset", sa.String(12), primary_key=True),
        sa.Column("available", _big, nullable=False),
        sa.Column("held", _big, nullable=False),
        sa.Column("frozen", sa.Boolean(), nullable=False),
        sa.Column("height", _big, nullable=False),
    )
    op.create_table(
        "cursors",
        sa.Column("shard", _big, primary_key=True, autoincrement=False),
        sa.Column("height", _big, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("time", _big, nullable=False),
    )
    op.create_table(
        "epochs",
        sa.Column("number", _big, primary_key=True, autoincrement=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
