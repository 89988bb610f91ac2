"""What histories are searched by, and balances at any time from now on."""

import json

import sqlalchemy as sa
from alembic import op

from gateway.rows import searched
from node.protocol.transaction import decode_transaction

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _heights(op.get_bind())
    op.add_column("transfers", sa.Column("text", sa.String(420), nullable=False, server_default=""))
    op.drop_index("postings_once", "postings")
    op.drop_index("postings_of_transaction", "postings")
    op.rename_table("postings", "postings_before")
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
    _copy(op.get_bind())
    op.drop_table("postings_before")
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


def _heights(connection: sa.Connection) -> None:
    """Where transfers were committed, with the heights; those of other shards than the home were not kept."""
    change = sa.text("UPDATE transfers SET committed_in = :heights WHERE transaction_id = :id")
    for row in connection.execute(sa.text("SELECT transaction_id, home_shard, height, committed_in FROM transfers")).all():
        shards = json.loads(row.committed_in)
        heights = {str(shard): row.height if shard == row.home_shard else 0 for shard in shards}
        connection.execute(change, {"id": row.transaction_id, "heights": json.dumps(heights)})


def _copy(connection: sa.Connection) -> None:
    """The lines there were, with what their transfers say of them."""
    tables = "postings_before p JOIN wallets w ON w.id = p.wallet_id JOIN transfers t ON t.transaction_id = p.transaction_id"
    old = f"SELECT p.*, w.user_id, t.payload, t.created_at, t.finalized_at FROM {tables} ORDER BY p.id"
    rows = connection.execute(sa.text(old)).mappings().all()
    names = ("wallet_id", "user_id", "transaction_id", "leg", "direction", "asset", "counterparty", "at")
    new = sa.text(f"INSERT INTO postings ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})")
    text = sa.text("UPDATE transfers SET text = :text WHERE transaction_id = :transaction_id")
    for row in rows:
        order = decode_transaction(row["payload"]).order
        leg, sent = order.legs[row["leg"]], row["direction"] == "sent"
        at = row["created_at"] if sent else row["finalized_at"] or row["created_at"]
        more = {"asset": leg.asset, "counterparty": leg.payee if sent else leg.payer, "at": at}
        connection.execute(new, {name: {**row, **more}[name] for name in names})
        connection.execute(text, {"text": searched(order.memo), "transaction_id": row["transaction_id"]})
