"""What checkout says and does when an account is closed."""

from sqlalchemy import Connection, exists, or_, select, update

from gateway.checkout.states import ExchangeStatus, IntentStatus
from gateway.checkout.tables import Exchange, PaymentIntent


def under_way(connection: Connection, user_id: str) -> bool:
    """Whether somebody waits for a user's payment, capture or exchange."""
    involved = or_(PaymentIntent.user_id == user_id, PaymentIntent.payer_id == user_id)
    waiting = PaymentIntent.status.in_([IntentStatus.PROCESSING, IntentStatus.REQUIRES_CAPTURE])
    trades = or_(Exchange.user_id == user_id, Exchange.taker_id == user_id)
    either = or_(exists().where(involved, waiting), exists().where(trades, Exchange.status == ExchangeStatus.PROCESSING))
    return bool(connection.execute(select(either)).scalar())


def erase(connection: Connection, user_id: str) -> None:
    """Cancel what nobody has paid or accepted, and forget what a shop wrote about its customers."""
    intents = update(PaymentIntent).where(PaymentIntent.user_id == user_id)
    unpaid = intents.where(PaymentIntent.status == IntentStatus.REQUIRES_PAYMENT)
    connection.execute(unpaid.values(status=IntentStatus.CANCELED))
    connection.execute(intents.values(description="", reference="", labels="{}", success_url=None, cancel_url=None))
    withdraw_offers(connection, user_id)


def withdraw_offers(connection: Connection, user_id: str) -> None:
    """Cancel the exchanges that a user has offered and nobody has accepted."""
    offers = update(Exchange).where(Exchange.user_id == user_id, Exchange.status == ExchangeStatus.OFFERED)
    connection.execute(offers.values(status=ExchangeStatus.CANCELED))
