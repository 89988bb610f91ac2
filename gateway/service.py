"""The gateway without HTTP: its parts, wired together, and the tasks that keep them going."""

import asyncio
from functools import partial

import structlog
from sqlalchemy import Engine, delete

from gateway.acceptance import Acceptance
from gateway.admin.desk import Administration
from gateway.admin.desk import forget as forget_administrator
from gateway.batches import Batches
from gateway.checkout import closing as checkout_closing
from gateway.checkout.exchanges import Exchanges
from gateway.checkout.intents import Intents
from gateway.checkout.refunds import FIELD, IntentRefunds
from gateway.checkout.views import Views
from gateway.database import Database, Owed
from gateway.epochs import StoredEpochs
from gateway.events.deliveries import Deliveries
from gateway.events.fanout import FanOut
from gateway.events.outbox import Outbox
from gateway.events.posting import Poster
from gateway.events.shown import Shower
from gateway.events.stream import Streams
from gateway.events.targets import Targets
from gateway.events.webhooks import Webhooks
from gateway.following import Following
from gateway.history import History
from gateway.identity.accounts import Accounts
from gateway.identity.api_keys import ApiKeys
from gateway.identity.closing import Closing
from gateway.identity.mailer import Mailbox, Mailer
from gateway.identity.mails import Mails
from gateway.identity.notices import Notices
from gateway.identity.passkeys import Passkeys
from gateway.identity.passkeys import forget as forget_passkeys
from gateway.identity.passwords import Passwords
from gateway.identity.second_factor import SecondFactor
from gateway.identity.sessions import Sessions
from gateway.identity.throttle import Limit, Throttle
from gateway.identity.tokens import Tokens
from gateway.identity.verification import Verification
from gateway.jobs import Jobs
from gateway.lease import Lease
from gateway.ledger import Ledger
from gateway.money import records as money_records
from gateway.money.desk import Money
from gateway.money.limits import Limits
from gateway.network_view import NetworkView
from gateway.owners import Owners
from gateway.payments import Payments
from gateway.plans import closing as plans_closing
from gateway.plans.desk import Plans
from gateway.projection import Tracked
from gateway.proofs.making import Proofs
from gateway.queries import Queries
from gateway.reads.balances import Balances
from gateway.reads.lines import Lines
from gateway.reads.statement import Statements
from gateway.receiving import Receiving
from gateway.relay import Relay
from gateway.returns import Returns
from gateway.vault import Vault
from gateway.waiting import Waiting
from gateway.wakeups import Wakeups
from gateway.wallets import Wallets
from node.client.line import Line
from node.client.refusals import RefusalTally
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_FRAME_BYTES, MAX_REFUSALS_BYTES
from node.protocol.terms import Terms
from node.protocol.topics import epoch_topic, refusals_topic

log = structlog.get_logger()
_PURGE_EVERY = 3600.0
_DROP_EVERY = 10.0
"""Keys that are not used any more."""


class Gateway:
    """All the parts. ``run`` keeps them going; the HTTP layer calls them."""

    def __init__(
        self,
        name: str,
        genesis: Genesis,
        engine: Engine,
        line: Line,
        vault: Vault,
        token_secret: bytes,
        issuers: dict[str, KeyPair],
        token_lifetime: int,
        transaction_lifetime: int,
        devnet: bool,
        *,
        limits: Limits,
        public_url: str,
        mailer: Mailer | None,
        must_verify: bool,
        throttle: Throttle,
        from_client: Limit,
        targets: Targets,
    ) -> None:
        self.name, self.genesis, self.devnet, self.broker = name, genesis, devnet, line
        self.database = Database(engine)
        self.epochs = StoredEpochs(genesis, self.database, self._form)
        self.queries = Queries(line, self.epochs, genesis.network)
        self.outbox, self.jobs = Outbox(self.database), Jobs(self.database)
        owners = Owners()
        self.ledger, self.waiting = Ledger(self.database, self.outbox, owners), Waiting(self.database)
        self.relay = Relay(self.database, line, genesis.network)
        self.lease = Lease(self.database, name)
        self.following = Following(self.database, line, genesis.network, self.lease, self.ledger, self.relay)
        self.followers = self.following.chains
        self.view = NetworkView(self.queries)
        self.tokens = Tokens(token_secret, token_lifetime)
        self.sessions, self.notices = Sessions(self.database, self.tokens), Notices(self.database, self.tokens)
        self.api_keys = ApiKeys(self.database, self.tokens, self.notices)
        self.passwords, self.mailbox = Passwords(), Mailbox(self.database) if mailer is None else None
        self.mails = Mails(self.database, self.jobs, mailer or Mailbox(self.database), public_url)
        self.second_factor = SecondFactor(self.database, vault, throttle)
        self.accounts = Accounts(self.database, self.passwords, self.second_factor, self.sessions, self.mails, must_verify)
        self.passkeys = Passkeys(self.database, self.mails, self.sessions, token_secret, public_url)
        self.verification = Verification(self.passwords, self.sessions, self.mails)
        self.closing = Closing(self.database, self.accounts, self.sessions, self.tokens)
        self.closing.erasers += [self.mails.forget, self.second_factor.forget, forget_passkeys]
        self.wallets = Wallets(self.database, vault, self.epochs, self.ledger, self.queries)
        self.receiving = Receiving(self.database, vault, self.epochs, self.outbox, self.jobs, devnet)
        self.payments = Payments(
            genesis,
            self.database,
            Acceptance(self.database, self.outbox, owners, Terms(genesis)),
            self.wallets,
            self.receiving,
            self.epochs,
            self.ledger,
            self.relay,
            issuers,
            transaction_lifetime,
        )
        self.batches = Batches(self.wallets, self.receiving, self.payments)
        self.returns = Returns(self.jobs, self.receiving, self.payments)
        self.money = Money(
            self.database,
            self.jobs,
            self.outbox,
            self.waiting,
            self.wallets,
            self.payments,
            self.epochs,
            self.queries,
            vault,
            limits,
            devnet,
        )
        self.refunds = self.money.refunds
        self.history = History(self.database, self.payments.assets, self.relay)
        self.throttle, self.from_client = throttle, from_client
        shower = Shower(self.history.view)
        self.streams = Streams(self.database, self.outbox, shower)
        self.webhooks = Webhooks(self.database, vault, targets)
        self.deliveries = Deliveries(self.database, shower, Poster(targets), self.webhooks.secrets, devnet)
        self.fanout = FanOut(self.database, self.outbox, self.deliveries.wake)
        views = Views(self.payments.assets, public_url)
        checkout = (self.database, self.jobs, self.outbox, self.waiting, self.wallets, self.payments, views)
        self.intents, self.exchanges = Intents(*checkout), Exchanges(*checkout)
        self.closing.checks += [money_records.under_way, checkout_closing.under_way, plans_closing.under_way]
        self.closing.erasers += [money_records.forget, checkout_closing.erase, plans_closing.erase]
        self.closing.erasers += [self.webhooks.forget, forget_administrator]
        self.administration = Administration(self.database, self.jobs, self.sessions, self.notices, self.payments)
        self.refunds.sources[FIELD] = IntentRefunds(self.database, self.wallets, self.payments, self.refunds, self.intents)
        paying = (self.database, self.jobs, self.outbox, self.wallets, self.payments, self.batches)
        self.plans = Plans(*paying, mailer or Mailbox(self.database), public_url)
        self.lines = Lines(self.database, self.history, self.payments.assets, lambda: self.ledger.shards)
        self.balances = Balances(self.database, lambda: self.epochs.require().shards)
        self.statements = Statements(self.database, self.payments.assets, lambda: self.epochs.require().shards)
        self.proofs = Proofs(genesis, self.database, self.epochs, self.followers)
        self._refusals: dict[int, RefusalTally] = {}
        self._formed = asyncio.Event()
        self.wakeups = Wakeups(line, genesis.network, token_secret, self._look)
        self.following.duties = (self.jobs.run, self.fanout.run, self.deliveries.run, self._purge)
        self._connect()

    def _connect(self) -> None:
        """What one part tells the others."""
        self.ledger.on_final = self._forget
        self.sessions.on_end = self.notices.on_end = self.wallets.keyring.forget
        self.sessions.ring = self.notices.ring = self.outbox.ring = self.wakeups.ring
        self.jobs.ring = self.deliveries.ring = partial(self.wakeups.ring, jobs=True)

    async def run(self, started: asyncio.Event) -> None:
        """Work until cancelled; sets ``started`` when requests can be taken."""
        try:
            await self._load()
            async with asyncio.TaskGroup() as tasks:
                self.broker.subscribe(epoch_topic(self.genesis.network), MAX_FRAME_BYTES, self.epochs.hear)
                for work in (
                    self.broker.run,
                    self.queries.run,
                    self.relay.run,
                    self.wakeups.run,
                    self.following.run,
                    self.streams.run,
                    self._drop_keys,
                ):
                    tasks.create_task(work())
                started.set()
                await self._formed.wait()
                await self.epochs.save()
                for shard, electorate in self.epochs.electorates.items():
                    tasks.create_task(self.view.watch(electorate, self.followers[shard]))
        finally:
            await self.throttle.close()
            self.database.close()

    async def _load(self) -> None:
        """Learn what the database has to say before the first request."""
        await self.notices.begin()
        await self.sessions.load()
        await self.api_keys.load()
        await self.ledger.look()
        await self.epochs.load()
        await self.money.start()
        await self.plans.start()

    def stop_waiting(self) -> None:
        """The process ends: whoever waits gets what is known now, and streams end."""
        self.waiting.stop()
        self.streams.close()

    def missing(self) -> list[str]:
        """What is not ready, in words; empty when all is."""
        lacking = []
        if not self.broker.connected:
            lacking.append("broker not connected")
        if self.epochs.document is None:
            lacking.append("epoch document not known")
        return lacking + self.view.without_quorum(self.epochs.electorates) + self.following.missing()

    def _form(self, document: EpochDocument) -> None:
        """The committees are known: listen to each."""
        self.following.form(document, self.queries)
        for shard, electorate in document.electorates.items():
            self._refusals[shard] = RefusalTally(electorate)
            topic = refusals_topic(self.genesis.network, shard)
            self.broker.subscribe(topic, MAX_REFUSALS_BYTES, partial(self._hear_refusals, shard))
        self._formed.set()

    def _hear_refusals(self, shard: int, body: bytes) -> None:
        for transaction_id, code in self._refusals[shard].hear(body, self.relay):
            self.relay.hint(transaction_id, code, shard)

    def _forget(self, tracked: Tracked) -> None:
        """A transaction is final, durably."""
        self.waiting.tell(tracked)
        if tracked.hint is Code.OK:
            self.relay.forget(tracked.id)
        for tally in self._refusals.values():
            tally.forget(tracked.id)

    async def _look(self, jobs: bool) -> None:
        """See what other processes have written."""
        await asyncio.gather(self.notices.look(), self.lease.look(), self.waiting.look())
        if not self.lease.held:
            await self.ledger.look()
        elif jobs:
            self.jobs.look()
            self.deliveries.look()
        self.outbox.look()
        self.money.records.look()

    async def _drop_keys(self) -> None:
        while True:
            await asyncio.sleep(_DROP_EVERY)
            self.wallets.keyring.drop_old()

    async def _purge(self) -> None:
        while True:
            for part in (self.sessions, self.notices, self.mails, self.outbox, self.deliveries):
                await part.purge()
            await self.database.write(lambda c: c.execute(delete(Owed).where(Owed.units == 0)) and None)
            await asyncio.sleep(_PURGE_EVERY)
