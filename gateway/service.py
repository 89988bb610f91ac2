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
from gateway.checkout.desk import Checkout
from gateway.database import Database, Owed
from gateway.epochs import StoredEpochs
from gateway.events.desk import Events
from gateway.events.outbox import Outbox
from gateway.events.shown import Shower
from gateway.events.targets import Targets
from gateway.following import Following
from gateway.history import History
from gateway.identity.desk import Identity
from gateway.identity.mailer import Mailbox, Mailer
from gateway.identity.throttle import Limit, Throttle
from gateway.identity.tokens import Tokens
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
from gateway.reads.desk import Reads
from gateway.receiving import Receiving
from gateway.relay import Relay
from gateway.returns import Returns
from gateway.vault import Vault
from gateway.waiting import Waiting
from gateway.wakeups import Wakeups
from gateway.wallets import Wallets
from node.client.line import Line
from node.client.refusals import RefusalTally
from node.protocol.chain import Chain
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_REFUSALS_BYTES
from node.protocol.terms import Terms
from node.protocol.topics import refusals_topic

log = structlog.get_logger()
_PURGE_EVERY = 3600.0
_DROP_EVERY = 10.0
_NEWS_RATE = 16 << 20
"""Bytes read in a second of what is told of the epochs, a message counting for more than it has: on a line of its own, so that a
flood of what has to be verified holds up no block."""
"""Keys that are not used any more."""


class Gateway:
    """All the parts. ``run`` keeps them going; the HTTP layer calls them.

    Attributes:
        queries: what the gateway itself has to know. lookups: what anybody wants to see: as much of it as there may be, members
            answer the former.
    """

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
        self.news = line.beside(_NEWS_RATE)
        self.database = Database(engine)
        self.epochs = StoredEpochs(genesis, self.database, self._form)
        self.queries = Queries(line, self.epochs, genesis.network)
        self.lookups = Queries(line, self.epochs, genesis.network)
        self.outbox, self.jobs = Outbox(self.database), Jobs(self.database)
        owners, window = Owners(), genesis.parameters.validity_window
        self.ledger, self.waiting = Ledger(self.database, self.outbox, owners, window), Waiting(self.database)
        self.relay = Relay(self.database, line, genesis.network)
        self.lease = Lease(self.database, name)
        self.following = Following(self.database, line, self.epochs, genesis.network, self.lease, self.ledger, self.relay)
        self.followers = self.following.chains
        self.view = NetworkView(self.queries)
        tokens = Tokens(token_secret, token_lifetime)
        self.identity = Identity(self.database, self.jobs, vault, tokens, token_secret, throttle, mailer, public_url, must_verify)
        self.from_client = from_client
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
        self.history = History(self.database, self.payments.assets, self.relay)
        self.events = Events(self.database, self.outbox, Shower(self.history.view), vault, targets, devnet)
        shop = (self.database, self.jobs, self.outbox, self.waiting, self.wallets, self.payments)
        self.checkout = Checkout(*shop, self.money.refunds, public_url)
        self.administration = Administration(
            self.database, self.jobs, self.identity.sessions, self.identity.notices, self.payments
        )
        paying = (self.database, self.jobs, self.outbox, self.wallets, self.payments, self.batches)
        self.plans = Plans(*paying, mailer or Mailbox(self.database), public_url)
        self.reads = Reads(self.database, self.history, self.payments.assets, self.epochs)
        self.proofs = Proofs(genesis, self.database, self.epochs, self.followers)
        self._refusals: dict[Chain, RefusalTally] = {}
        self._formed = asyncio.Event()
        self.wakeups = Wakeups(line, genesis.network, token_secret, self._look)
        self.following.duties = (self.jobs.run, self.events.fanout.run, self.events.deliveries.run, self._purge)
        self._connect()

    def _connect(self) -> None:
        """What one part tells the others."""
        self.ledger.on_final = self._forget
        sessions, notices, closing = self.identity.sessions, self.identity.notices, self.identity.closing
        sessions.on_end = notices.on_end = self.wallets.keyring.forget
        sessions.ring = notices.ring = self.outbox.ring = self.wakeups.ring
        self.jobs.ring = self.events.deliveries.ring = partial(self.wakeups.ring, jobs=True)
        closing.checks += [money_records.under_way, checkout_closing.under_way, plans_closing.under_way]
        closing.erasers += [money_records.forget, checkout_closing.erase, plans_closing.erase]
        closing.erasers += [self.events.webhooks.forget, forget_administrator]

    async def run(self, started: asyncio.Event) -> None:
        """Work until cancelled; sets ``started`` when requests can be taken."""
        try:
            await self._load()
            async with asyncio.TaskGroup() as tasks:
                for work in (
                    self.broker.run,
                    self.news.run,
                    partial(self.epochs.follow, self.news),
                    self.queries.run,
                    self.lookups.run,
                    self.relay.run,
                    self.wakeups.run,
                    self.following.run,
                    self.events.streams.run,
                    self._drop_keys,
                ):
                    tasks.create_task(work())
                started.set()
                while True:
                    await self._formed.wait()
                    self._formed.clear()
                    for electorate in self.epochs.current.values():
                        tasks.create_task(self.view.watch(electorate, self.followers[electorate.chain]))
        finally:
            await self.identity.throttle.close()
            self.database.close()

    async def _load(self) -> None:
        """Learn what the database has to say before the first request."""
        await self.identity.load()
        await self.ledger.look()
        await self.epochs.load()
        await self.money.start()
        await self.plans.start()

    def stop_waiting(self) -> None:
        """The process ends: whoever waits gets what is known now, and streams end."""
        self.waiting.stop()
        self.events.streams.close()

    def missing(self) -> list[str]:
        """What is not ready, in words; empty when all is."""
        lacking = []
        if not self.broker.connected:
            lacking.append("broker not connected")
        if self.epochs.document is None:
            lacking.append("epoch document not known")
        elif not self.epochs.is_latest:
            lacking.append("whether a later epoch has begun is not known")
        begun = [one for one in self.epochs.current.values() if not self.following.begins(one.chain)]
        return lacking + self.view.without_quorum(begun) + self.following.missing()

    def _form(self, document: EpochDocument) -> None:
        """An epoch has begun: listen to its committees, and send them what is under way."""
        self.following.form(document, self.queries, self.lookups)
        for chain in self._refusals:
            self.broker.unsubscribe(refusals_topic(self.genesis.network, chain))
        self._refusals = {electorate.chain: RefusalTally(electorate) for electorate in document.electorates.values()}
        for chain, tally in self._refusals.items():
            topic = refusals_topic(self.genesis.network, chain)
            self.broker.subscribe(topic, MAX_REFUSALS_BYTES, partial(self._hear_refusals, chain, tally))
        self.relay.move(document)
        self._formed.set()

    def _hear_refusals(self, chain: Chain, tally: RefusalTally, body: bytes) -> None:
        for transaction_id, code in tally.hear(body, self.relay):
            self.relay.hint(transaction_id, code, chain)

    def _forget(self, tracked: Tracked) -> None:
        """A transaction is final, durably."""
        self.waiting.tell(tracked)
        if tracked.hint is Code.OK:
            self.relay.forget(tracked.id)
        for tally in self._refusals.values():
            tally.forget(tracked.id)

    async def _look(self, jobs: bool) -> None:
        """See what other processes have written."""
        await asyncio.gather(self.identity.notices.look(), self.lease.look(), self.waiting.look())
        if not self.lease.held:
            await self.ledger.look()
        elif jobs:
            self.jobs.look()
            self.events.deliveries.look()
        self.outbox.look()
        self.money.records.look()

    async def _drop_keys(self) -> None:
        while True:
            await asyncio.sleep(_DROP_EVERY)
            self.wallets.keyring.drop_old()

    async def _purge(self) -> None:
        while True:
            identity = self.identity
            for part in (identity.sessions, identity.notices, identity.mails, self.outbox, self.events.deliveries):
                await part.purge()
            await self.database.write(lambda c: c.execute(delete(Owed).where(Owed.units == 0)) and None)
            await asyncio.sleep(_PURGE_EVERY)
