"""The gateway without HTTP: its parts, wired together, and the tasks that keep them going."""

import asyncio
from functools import partial

import structlog
from sqlalchemy import Engine

from gateway.accounts import Accounts, Throttle
from gateway.broker import Broker
from gateway.database import Database
from gateway.epochs import Epochs
from gateway.follower import Follower
from gateway.history import History
from gateway.keys import Vault
from gateway.ledger import Ledger
from gateway.network_view import NetworkView
from gateway.outbox import Outbox
from gateway.payments import Payments
from gateway.queries import Queries
from gateway.refusals import RefusalTally
from gateway.reporter import Reporter
from node.protocol.certificate import Electorate
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.topics import blocks_topic, refusals_topic

log = structlog.get_logger()
_PURGE_EVERY = 3600.0


class Gateway:
    """All the parts. ``run`` keeps them going; the HTTP layer calls them."""

    def __init__(
        self,
        name: str,
        genesis: Genesis,
        engine: Engine,
        broker: Broker,
        vault: Vault,
        token_secret: bytes,
        issuers: dict[str, KeyPair],
        token_lifetime: int,
        transaction_lifetime: int,
        devnet: bool,
    ) -> None:
        self.genesis, self.devnet, self.broker = genesis, devnet, broker
        self.database = Database(engine)
        self.epochs = Epochs(genesis, self.database, broker)
        self.queries = Queries(broker, genesis.network)
        self.ledger = Ledger(self.database)
        self.outbox = Outbox(broker, self.ledger, genesis.network)
        self.refusals = RefusalTally(self.ledger.projection)
        self.view = NetworkView(self.queries)
        self.accounts = Accounts(self.database, token_secret, token_lifetime)
        self.payments = Payments(
            genesis, self.database, vault, self.epochs, self.ledger, self.outbox, self.queries, issuers, transaction_lifetime
        )
        self.history = History(self.database, self.payments.assets)
        self.logins = Throttle(limit=10, window=60)
        self.followers: dict[int, Follower] = {}
        self.reporter = Reporter(self, name)
        self._formed = asyncio.Event()
        self._verdicts: asyncio.Queue[tuple[bytes, Code]] = asyncio.Queue()

    async def run(self, started: asyncio.Event) -> None:
        """Work until cancelled; sets ``started`` when requests can be taken."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.database.run())
                self.ledger.on_final = self._forget
                for tracked in await self.ledger.load():
                    self.outbox.add(tracked)
                await self.epochs.start(self._form)
                for work in (self.broker.run, self.queries.run, self.outbox.run, self.reporter.run, self._refuse, self._purge):
                    tasks.create_task(work())
                started.set()
                await self._formed.wait()
                await self.epochs.save()
                document = self.epochs.require()
                for shard, electorate in document.electorates.items():
                    tasks.create_task(self.followers[shard].run())
                    tasks.create_task(self.view.watch(electorate))
        finally:
            await self.reporter.notable("gateway stopping")
            await self.broker.close()
            self.database.close()

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
            follower = self.followers[shard] = Follower(electorate, self.queries, self.ledger.apply)
            follower.height, follower.hash = self.ledger.cursors.get(shard, (0, b""))
            self.broker.subscribe(blocks_topic(network, shard), follower.hear)
            self.broker.subscribe(refusals_topic(network, shard), partial(self._hear_refusals, electorate))
        self._formed.set()

    def _hear_refusals(self, electorate: Electorate, body: bytes) -> None:
        for id, code in self.refusals.hear(body, electorate):
            self._verdicts.put_nowait((id, code))

    async def _refuse(self) -> None:
        while True:
            await self.ledger.refuse(*await self._verdicts.get())

    def _forget(self, id: bytes) -> None:
        self.outbox.forget(id)
        self.refusals.forget(id)

    async def _purge(self) -> None:
        while True:
            await self.accounts.purge()
            await asyncio.sleep(_PURGE_EVERY)
