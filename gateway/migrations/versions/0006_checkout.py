"""Payment intents and exchanges."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_RESERVING = sa.text("status = 'requires_capture'")


def upgrade() -> None:
    _payment_intents()
    _exchanges()


def _payment_intents() -> None:
    op.create_table(
        "payment_intents",
        sa.Column("number", _big, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("wallet_id", sa.String(32), nullable=False),
        sa.Column("asset", sa.String(12), nullable=False),
        sa.Column("amount", _big, nullable=False),
        sa.Column("capture_method", sa.String(10), nullable=False),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("reference", sa.String(200), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("success_url", sa.String(2000)),
        sa.Column("cancel_url", sa.String(2000)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("transfer_id", sa.LargeBinary()),
        sa.Column("capturing", _big, nullable=False),
        sa.Column("amount_captured", _big, nullable=False),
        sa.Column("amount_refunded", _big, nullable=False),
        sa.Column("payer_id", sa.String(32)),
        sa.Column("payer_wallet_id", sa.String(32)),
        sa.Column("payer_address", sa.LargeBinary()),
        sa.Column("reserved", sa.Text(), nullable=False),
        sa.Column("capture_before", _big),
        sa.Column("expires_at", _big, nullable=False),
        sa.Column("created_at", _big, nullable=False),
    )
    for name, columns in (
        ("payment_intents_of_user", ["user_id", "number"]),
        ("payment_intents_by_status", ["user_id", "status", "number"]),
        ("payment_intents_by_reference", ["user_id", "reference", "number"]),
    ):
        op.create_index(name, "payment_intents", columns)
    name = "payment_intents_reserving"
    op.create_index(name, "payment_intents", ["status"], sqlite_where=_RESERVING, postgresql_where=_RESERVING)


def _exchanges() -> None:
    op.create_table(
        "exchanges",
        sa.Column("number", _big, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("wallet_id", sa.String(32), nullable=False),
        sa.Column("give_asset", sa.String(12), nullable=False),
        sa.Column("give_amount", _big, nullable=False),
        sa.Column("want_asset", sa.String(12), nullable=False),
        sa.Column("want_amount", _big, nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("transfer_id", sa.LargeBinary()),
        sa.Column("taker_id", sa.String(32)),
        sa.Column("taker_wallet_id", sa.String(32)),
        sa.Column("expires_at", _big, nullable=False),
        sa.Column("created_at", _big, nullable=False),
    )
    op.create_index("exchanges_of_user", "exchanges", ["user_id", "number"])
    op.create_index("exchanges_of_taker", "exchanges", ["taker_id", "number"])
