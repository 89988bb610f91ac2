"""The tables of checkout: payment intents and exchanges. Amounts in units, times in ms."""

from sqlalchemy import Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base

_RESERVING = text("status = 'requires_capture'")


class PaymentIntent(Base):
    """What a shop, ``user_id``, wants to be paid into a wallet.

    ``number`` orders them, for lists. ``labels``: the shop's metadata, as JSON. ``code``: why the last payment of it failed.
    ``payer_*``: the wallet that pays it, or in which the amount is reserved until ``capture_before``. ``reserved``: on which of
    its addresses, as JSON (``reservations.Part``). ``capturing``: what the transfer under way will have captured.
    ``amount_refunded``: of refunds that succeeded.
    """

    __tablename__ = "payment_intents"
    __table_args__ = (
        Index("payment_intents_of_user", "user_id", "number"),
        Index("payment_intents_by_status", "user_id", "status", "number"),
        Index("payment_intents_by_reference", "user_id", "reference", "number"),
        Index("payment_intents_reserving", "status", sqlite_where=_RESERVING, postgresql_where=_RESERVING),
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    wallet_id: Mapped[str] = mapped_column(String(32))
    asset: Mapped[str] = mapped_column(String(12))
    amount: Mapped[int]
    capture_method: Mapped[str] = mapped_column(String(10))
    description: Mapped[str] = mapped_column(String(500))
    reference: Mapped[str] = mapped_column(String(200))
    labels: Mapped[str] = mapped_column(Text)
    success_url: Mapped[str | None] = mapped_column(String(2000))
    cancel_url: Mapped[str | None] = mapped_column(String(2000))
    status: Mapped[str] = mapped_column(String(20))
    code: Mapped[str] = mapped_column(String(32))
    transfer_id: Mapped[bytes | None]
    capturing: Mapped[int]
    amount_captured: Mapped[int]
    amount_refunded: Mapped[int]
    payer_id: Mapped[str | None] = mapped_column(String(32))
    payer_wallet_id: Mapped[str | None] = mapped_column(String(32))
    payer_address: Mapped[bytes | None]
    reserved: Mapped[str] = mapped_column(Text)
    capture_before: Mapped[int | None]
    expires_at: Mapped[int]
    created_at: Mapped[int]


class Exchange(Base):
    """An offer of ``user_id`` to give so much of one asset for so much of another; who accepts it is the taker."""

    __tablename__ = "exchanges"
    __table_args__ = (Index("exchanges_of_user", "user_id", "number"), Index("exchanges_of_taker", "taker_id", "number"))
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(String(32))
    wallet_id: Mapped[str] = mapped_column(String(32))
    give_asset: Mapped[str] = mapped_column(String(12))
    give_amount: Mapped[int]
    want_asset: Mapped[str] = mapped_column(String(12))
    want_amount: Mapped[int]
    status: Mapped[str] = mapped_column(String(12))
    code: Mapped[str] = mapped_column(String(32))
    transfer_id: Mapped[bytes | None]
    taker_id: Mapped[str | None] = mapped_column(String(32))
    taker_wallet_id: Mapped[str | None] = mapped_column(String(32))
    expires_at: Mapped[int]
    created_at: Mapped[int]
