"""Purchases, payouts, refunds; the faucet's grants; the books of the test processor and the test bank."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _number() -> sa.Column[int]:
    return sa.Column("number", _big, primary_key=True, autoincrement=True)


def _text(name: str, length: int, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _units(name: str) -> sa.Column[int]:
    return sa.Column(name, _big, nullable=False)


def upgrade() -> None:
    op.create_table(
        "purchases",
        _number(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        _text("user_id", 32),
        _text("wallet_id", 32),
        _text("asset", 12),
        _units("units"),
        _text("status", 16),
        _text("brand", 16),
        _text("last4", 4),
        _text("hint", 200),
        _text("code", 32),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("transfer_id", sa.LargeBinary(), unique=True),
        _units("mints"),
        _units("refunded"),
        _units("created_at"),
    )
    op.create_index("purchases_of_user", "purchases", ["user_id", "number"])
    op.create_table(
        "payouts",
        _number(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        _text("user_id", 32),
        _text("wallet_id", 32),
        _text("asset", 12),
        _units("units"),
        _text("status", 16),
        _text("iban", 34),
        sa.Column("sealed_iban", sa.LargeBinary()),
        _text("name", 70),
        _text("code", 32),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("transfer_id", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("return_transfer_id", sa.LargeBinary(), unique=True),
        _units("created_at"),
    )
    op.create_index("payouts_of_user", "payouts", ["user_id", "number"])
    op.create_table(
        "refunds",
        _number(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        _text("user_id", 32),
        _text("purchase_id", 32, nullable=True),
        _text("payment_intent_id", 32, nullable=True),
        _text("asset", 12),
        _units("units"),
        _text("status", 16),
        _text("code", 32),
        sa.Column("transfer_id", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("return_transfer_id", sa.LargeBinary(), unique=True),
        _units("created_at"),
    )
    op.create_index("refunds_of_user", "refunds", ["user_id", "number"])
    op.create_index("refunds_of_purchase", "refunds", ["purchase_id"])
    op.create_index("refunds_of_payment_intent", "refunds", ["payment_intent_id"])
    op.create_table("status_changes", _number(), _text("kind", 10), _text("subject", 32), _text("status", 16), _units("at"))
    op.create_index("status_changes_of", "status_changes", ["subject", "number"])
    op.create_index("status_changes_to", "status_changes", ["status", "at"])
    op.create_table(
        "faucet_grants",
        sa.Column("transaction_id", sa.LargeBinary(), primary_key=True),
        _text("user_id", 32),
        _text("asset", 12),
        _units("units"),
        _units("created_at"),
    )
    op.create_index("faucet_grants_of_user", "faucet_grants", ["user_id", "created_at"])
    op.create_table(
        "test_charges",
        sa.Column("id", sa.String(32), primary_key=True),
        _text("asset", 12),
        _units("units"),
        _text("state", 12),
        _text("code", 32),
        _text("behaviour", 24),
        _units("settles_at"),
        sa.Column("disputed_at", _big),
    )
    op.create_index("test_charges_disputed", "test_charges", ["disputed_at"])
    op.create_table(
        "test_card_refunds", sa.Column("id", sa.String(32), primary_key=True), _text("charge_id", 32), _units("units")
    )
    op.create_index("test_card_refunds_of_charge", "test_card_refunds", ["charge_id"])
    op.create_table(
        "test_bank_transfers",
        sa.Column("id", sa.String(32), primary_key=True),
        _text("asset", 12),
        _units("units"),
        sa.Column("returned", sa.Boolean(), nullable=False),
        _units("settles_at"),
    )
