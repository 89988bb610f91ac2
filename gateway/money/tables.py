"""The tables of money in and out. Amounts in units, times in ms."""

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class Purchase(Base):
    """Coins bought by card. ``number`` orders them, for lists.

    ``address``: the wallet's. ``transfer_id``: the payment that mints to it, the latest of ``mints``. ``refunded``: went back to
    the card. ``code``: why it was declined or failed. ``hint``: what the cardholder shall do now. Of the card there is nothing
    but ``brand`` and ``last4``.
    """

    __tablename__ = "purchases"
    __table_args__ = (Index("purchases_of_user", "user_id", "number"),)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    wallet_id: Mapped[str] = mapped_column(String(32))
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    brand: Mapped[str] = mapped_column(String(16))
    last4: Mapped[str] = mapped_column(String(4))
    hint: Mapped[str] = mapped_column(String(200))
    code: Mapped[str] = mapped_column(String(32))
    address: Mapped[bytes]
    transfer_id: Mapped[bytes | None] = mapped_column(unique=True)
    mints: Mapped[int]
    refunded: Mapped[int]
    created_at: Mapped[int]


class Payout(Base):
    """Coins paid out to a bank account. ``transfer_id`` burns them, ``return_transfer_id`` mints what the bank returned.

    ``iban``: masked. ``sealed_iban``: encrypted, until the bank has taken the payout.
    """

    __tablename__ = "payouts"
    __table_args__ = (Index("payouts_of_user", "user_id", "number"),)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    wallet_id: Mapped[str] = mapped_column(String(32))
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    iban: Mapped[str] = mapped_column(String(34))
    sealed_iban: Mapped[bytes | None]
    name: Mapped[str] = mapped_column(String(70))
    code: Mapped[str] = mapped_column(String(32))
    address: Mapped[bytes]
    transfer_id: Mapped[bytes] = mapped_column(unique=True)
    return_transfer_id: Mapped[bytes | None] = mapped_column(unique=True)
    created_at: Mapped[int]


class Refund(Base):
    """Of a purchase or of a payment intent. ``transfer_id`` takes the coins, ``return_transfer_id`` mints them again when the
    card does not take the money."""

    __tablename__ = "refunds"
    __table_args__ = (
        Index("refunds_of_user", "user_id", "number"),
        Index("refunds_of_purchase", "purchase_id"),
        Index("refunds_of_payment_intent", "payment_intent_id"),
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    purchase_id: Mapped[str | None] = mapped_column(String(32))
    payment_intent_id: Mapped[str | None] = mapped_column(String(32))
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(String(32))
    transfer_id: Mapped[bytes] = mapped_column(unique=True)
    return_transfer_id: Mapped[bytes | None] = mapped_column(unique=True)
    created_at: Mapped[int]


class StatusChange(Base):
    """One line in the history of a purchase, payout or refund."""

    __tablename__ = "status_changes"
    __table_args__ = (Index("status_changes_of", "subject", "number"), Index("status_changes_to", "status", "at"))
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(10))
    subject: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16))
    at: Mapped[int]


class FaucetGrant(Base):
    """What the faucet gave whom, with the payment that mints it."""

    __tablename__ = "faucet_grants"
    __table_args__ = (Index("faucet_grants_of_user", "user_id", "created_at"),)
    transaction_id: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(32))
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    created_at: Mapped[int]


class TestCharge(Base):
    """The test processor's own record of a charge; nothing else of the gateway reads or writes it.

    ``settles_at``: when a pending one is authorized. ``disputed_at``: when its cardholder takes the money back.
    """

    __tablename__ = "test_charges"
    __table_args__ = (Index("test_charges_disputed", "disputed_at"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    state: Mapped[str] = mapped_column(String(12))
    code: Mapped[str] = mapped_column(String(32))
    behaviour: Mapped[str] = mapped_column(String(24))
    settles_at: Mapped[int]
    disputed_at: Mapped[int | None]


class TestCardRefund(Base):
    """The test processor's own record of money given back on a card."""

    __tablename__ = "test_card_refunds"
    __table_args__ = (Index("test_card_refunds_of_charge", "charge_id"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    charge_id: Mapped[str] = mapped_column(String(32))
    units: Mapped[int]


class TestBankTransfer(Base):
    """The test bank's own record of a credit transfer; it is paid, or returned, from ``settles_at`` on."""

    __tablename__ = "test_bank_transfers"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    asset: Mapped[str] = mapped_column(String(12))
    units: Mapped[int]
    returned: Mapped[bool]
    settles_at: Mapped[int]
