"""The parts of money in and out, wired together."""

from gateway.database import Database
from gateway.epochs import StoredEpochs
from gateway.events.outbox import Outbox
from gateway.jobs import Jobs
from gateway.money.coins import Coins
from gateway.money.faucet import Faucet
from gateway.money.limits import Limits
from gateway.money.payouts import Payouts
from gateway.money.purchases import Purchases
from gateway.money.reconciliation import Reconciliation
from gateway.money.records import Records
from gateway.money.refunds import PurchaseRefunds, Refunds
from gateway.money.testbank import TestBank
from gateway.money.testcards import TestProcessor
from gateway.payments import Payments
from gateway.queries import Queries
from gateway.vault import Vault
from gateway.waiting import Waiting
from gateway.wallets import Wallets


class Money:
    """The test processor and the test bank stand in for other companies on development networks; elsewhere there are none yet."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        outbox: Outbox,
        waiting: Waiting,
        wallets: Wallets,
        payments: Payments,
        epochs: StoredEpochs,
        queries: Queries,
        vault: Vault,
        limits: Limits,
        devnet: bool,
    ) -> None:
        self.coins = coins = Coins(database, payments, waiting)
        processor, rail = (TestProcessor(database), TestBank(database)) if devnet else (None, None)
        self._jobs = jobs
        self.records = records = Records(database, jobs, outbox, payments.assets)
        self.faucet = Faucet(payments, wallets, limits)
        self.purchases = Purchases(database, records, coins, jobs, payments, wallets, processor, limits)
        self.payouts = Payouts(database, records, coins, jobs, payments, wallets, vault, rail)
        self.refunds = Refunds(database, records, coins, jobs)
        self.refunds.sources["purchase_id"] = PurchaseRefunds(
            database, records, coins, payments, wallets, self.purchases, self.refunds
        )
        self.reconciliation = Reconciliation(database, payments.assets, epochs, queries, processor, rail)

    async def start(self) -> None:
        """The jobs that go on for ever."""
        await self.purchases.watch()
        await self.reconciliation.keep(self._jobs)
