"""The parts of plans, wired together."""

from gateway.batches import Batches
from gateway.database import Database
from gateway.events.outbox import Outbox
from gateway.identity.mailer import Mailer
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.plans.files import Files
from gateway.plans.notifications import Notifications
from gateway.plans.payer import Payer
from gateway.plans.paying import Paying
from gateway.plans.running import Running
from gateway.plans.scheduled import Schedules
from gateway.wallets import Wallets


class Plans:
    """Payment files, scheduled payments, and notifications."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        outbox: Outbox,
        wallets: Wallets,
        payments: Payments,
        batches: Batches,
        mailer: Mailer,
        public_url: str,
    ) -> None:
        self.files = Files(database, jobs, wallets, payments)
        self.schedules = Schedules(database, jobs, wallets, payments)
        self.notifications = Notifications(database, jobs, mailer, public_url, payments.assets)
        self.payer = Payer(database, wallets, payments, batches)
        Paying(database, jobs, outbox, self.payer, self.files)
        Running(database, jobs, outbox, self.payer, self.schedules)

    async def start(self) -> None:
        """The job that goes on for ever."""
        await self.notifications.keep()
