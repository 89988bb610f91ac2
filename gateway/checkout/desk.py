"""The parts of checkout, wired together."""

from gateway.checkout.exchanges import Exchanges
from gateway.checkout.intents import Intents
from gateway.checkout.refunds import FIELD, IntentRefunds
from gateway.checkout.views import Views
from gateway.database import Database
from gateway.events.outbox import Outbox
from gateway.jobs import Jobs
from gateway.money.refunds import Refunds
from gateway.payments import Payments
from gateway.waiting import Waiting
from gateway.wallets import Wallets


class Checkout:
    """Payment intents and exchanges; ``refunds`` learns to refund intents."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        outbox: Outbox,
        waiting: Waiting,
        wallets: Wallets,
        payments: Payments,
        refunds: Refunds,
        public_url: str,
    ) -> None:
        parts = (database, jobs, outbox, waiting, wallets, payments, Views(payments.assets, public_url))
        self.intents, self.exchanges = Intents(*parts), Exchanges(*parts)
        refunds.sources[FIELD] = IntentRefunds(database, wallets, payments, refunds, self.intents)
