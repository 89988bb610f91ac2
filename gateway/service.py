"""The gateway without HTTP: its parts, wired together, and the tasks that keep them going."""

import asyncio
from functools import partial

import structlog
from sqlalchemy import Engine

from gateway.batches import Batches
from gateway.checkout import closing as checkout_closing
from gateway.checkout.exchanges import Exchanges
from gateway.checkout.intents import Intents
from gateway.checkout.refunds import FIELD, IntentRefunds
from gateway.checkout.views import Views
from gateway.database import Database
from gateway.epochs import StoredEpochs
from gateway.events.deliveries import Deliveries
from gateway.events.fanout import FanOut
from gateway.events.outbox import Outbox
from gateway.events.posting import Poster
from gateway.events.shown import Shower
from gateway.events.stream import Streams
from gateway.events.targets import Targets
from gateway.events.webhooks import Webhooks
from gateway.follower import ShardFollower
from gateway.history import History
from gateway.identity.accounts import Accounts
from gateway.identity.api_keys import ApiKeys
from gateway.identity.closing import Closing
from gateway.identity.mailer import Mailbox, Mailer
from gateway.identity.mails import Mails
from gateway.identity.passwords import Passwords
from gateway.identity.second_factor import SecondFactor
from gateway.identity.sessions import Sessions
from gateway.identity.throttle import Limit, Throttle
from gateway.identity.tokens import Tokens
from gateway.identity.verification import Verification
from gateway.jobs import Jobs
from gateway.ledger import Ledger
from gateway.money import records as money_records
from gateway.money.desk import Money
from gateway.money.limits import Limits
from gateway.network_view import NetworkView
from gateway.payments import Payments
from gateway.proofs.making import Proofs
from gateway.queries import Queries
from gateway.reads.balances import Balances
from gateway.reads.lines import Lines
from gateway.reads.statement import Statements
from gateway.receiving import Receiving
from gateway.relay import Relay
from gateway.returns import Returns
from gateway.vault import Vault
from gateway.wallets import Wallets
from node.client.follower import Follower
from node.client.line import Line
from node.client.refusals import RefusalTally
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_FRAME_BYTES, MAX_REFUSALS_BYTES
from node.protocol.topics import blocks_topic, epoch_topic, refusals_topic

log = structlog.get_logger()
_PURGE_EVERY = 3600.0
_DROPS = 360
"""How often keys that are not used any more are dropped meanwhile."""


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
        self.ledger = Ledger(self.database, self.outbox)
        self.relay = Relay(line, self.ledger, genesis.network)
        self.view = NetworkView(self.queries)
        self.tokens = Tokens(token_secret, token_lifetime)
        self.sessions, self.api_keys = Sessions(self.database, self.tokens), ApiKeys(self.database, self.tokens)
        self.passwords, self.mailbox = Passwords(), Mailbox(self.database) if mailer is None else None
        self.mails = Mails(self.database, self.jobs, mailer or Mailbox(self.database), public_url)
        self.second_factor = SecondFactor(self.database, vault, throttle)
        self.accounts = Accounts(self.database, self.passwords, self.second_factor, self.sessions, self.mails, must_verify)
        self.verification = Verification(self.passwords, self.sessions, self.mails)
        self.closing = Closing(self.database, self.accounts, self.sessions, self.tokens)
        self.closing.erasers += [self.mails.forget, self.second_factor.forget]
        self.wallets = Wallets(self.database, vault, self.epochs, self.ledger, self.queries)
        self.receiving = Receiving(self.database, vault, self.epochs, self.ledger, self.outbox, self.jobs, devnet)
        self.payments = Payments(
            genesis,
            self.database,
            self.wallets,
            self.receiving,
            self.epochs,
            self.ledger,
            self.relay,
            issuers,
            transaction_lifetime,
        )
        self.batches = Batches(self.database, self.wallets, self.receiving, self.payments)
        self.returns = Returns(self.jobs, self.receiving, self.payments)
        self.money = Money(
            self.database,
            self.jobs,
            self.outbox,
            self.ledger,
            self.wallets,
            self.payments,
            self.epochs,
            self.queries,
            vault,
            limits,
            devnet,
        )
        self.refunds = self.money.refunds
        self.history = History(self.database, self.payments.assets, self.ledger.under_way)
        self.throttle, self.from_client = throttle, from_client
        shower = Shower(self.history.view)
        self.streams = Streams(self.database, self.outbox, shower)
        self.webhooks = Webhooks(self.database, vault, targets)
        self.deliveries = Deliveries(self.database, shower, Poster(targets), self.webhooks.secrets, devnet)
        self.fanout = FanOut(self.database, self.outbox, self.deliveries.wake)
        views = Views(self.payments.assets, public_url)
        checkout = (self.database, self.jobs, self.outbox, self.ledger, self.wallets, self.payments, views)
        self.intents, self.exchanges = Intents(*checkout), Exchanges(*checkout)
        self.closing.checks += [money_records.under_way, checkout_closing.under_way]
        self.closing.erasers += [money_records.forget, checkout_closing.erase, self.webhooks.forget]
        self.refunds.sources[FIELD] = IntentRefunds(self.database, self.wallets, self.payments, self.refunds, self.intents)
        self.followers: dict[int, ShardFollower] = {}
        self.lines = Lines(self.database, self.history, self.payments.assets, lambda: self.ledger.shards)
        self.balances = Balances(self.database, lambda: self.epochs.require().shards)
        self.statements = Statements(self.database, self.payments.assets, lambda: self.epochs.require().shards)
        self.proofs = Proofs(genesis, self.database, self.epochs, self.followers)
        self._refusals: dict[int, RefusalTally] = {}
        self._formed = asyncio.Event()

    async def run(self, started: asyncio.Event) -> None:
        """Work until cancelled; sets ``started`` when requests can be taken."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self.ledger.on_final = self._forget
                self.sessions.on_end = self.wallets.keyring.forget
                await self.sessions.load()
                await self.api_keys.load()
                for tracked in await self.ledger.load():
                    self.relay.add(tracked)
                await self.intents.load()
                await self.epochs.load()
                await self.money.start()
                self.broker.subscribe(epoch_topic(self.genesis.network), MAX_FRAME_BYTES, self.epochs.hear)
                for work in (
                    self.broker.run,
                    self.queries.run,
                    self.relay.run,
                    self.ledger.mark_submitted,
                    self.jobs.run,
                    self.streams.run,
                    self.fanout.run,
                    self.deliveries.run,
                    self._purge,
                ):
                    tasks.create_task(work())
                started.set()
                await self._formed.wait()
                await self.epochs.save()
                for shard, electorate in self.epochs.electorates.items():
                    tasks.create_task(self.followers[shard].run())
                    tasks.create_task(self.view.watch(electorate))
        finally:
            await self.throttle.close()
            self.database.close()

    def stop_waiting(self) -> None:
        """The process ends: whoever waits gets what is known now, and streams end."""
        self.ledger.stop_waiting()
        self.streams.close()

    def missing(self) -> list[str]:
        """What is not ready, in words; empty when all is."""
        lacking = []
        if not self.broker.connected:
            lacking.append("broker not connected")
        if self.epochs.document is None:
            lacking.append("epoch document not known")
        lacking += [f"shard {shard} not caught up" for shard, f in sorted(self.followers.items()) if not f.caught_up]
        return lacking

    def _form(self, document: EpochDocument) -> None:
        """The committees are known: listen to each."""
        network = self.genesis.network
        self.ledger.shards = document.shards
        for shard, electorate in document.electorates.items():
            chain = Follower(electorate, *self.ledger.cursors.get(shard, (0, b"")))
            follower = self.followers[shard] = ShardFollower(chain, electorate, self.queries, self.ledger.apply)
            self._refusals[shard] = RefusalTally(electorate)
            self.broker.subscribe(blocks_topic(network, shard), MAX_BROKER_BODY_BYTES, follower.hear)
            self.broker.subscribe(refusals_topic(network, shard), MAX_REFUSALS_BYTES, partial(self._hear_refusals, shard))
        self._formed.set()

    def _hear_refusals(self, shard: int, body: bytes) -> None:
        for transaction_id, code in self._refusals[shard].hear(body, self.ledger.projection.active):
            self.ledger.projection.hint(transaction_id, code, shard)

    def _forget(self, transaction_id: bytes) -> None:
        self.relay.forget(transaction_id)
        for tally in self._refusals.values():
            tally.forget(transaction_id)

    async def _purge(self) -> None:
        while True:
            await self.sessions.purge()
            await self.mails.purge()
            await self.outbox.purge()
            await self.deliveries.purge()
            for _ in range(_DROPS):
                await asyncio.sleep(_PURGE_EVERY / _DROPS)
                self.wallets.keyring.drop_old()
