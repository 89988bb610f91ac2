"""The epochs, kept in the database: after a restart the gateway knows the committees whoever is away."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy import select

from gateway.database import Database, EpochRecord, insert, now_ms
from gateway.problems import Problem
from gateway.seldom import Seldom
from node.chronicle import NewBulletin, Refused
from node.client.epochs import Epochs, NewDocument, News
from node.client.line import BrokerUnavailable, Line
from node.protocol.bulletins import GetChange, GetSuccession
from node.protocol.chain import Chain
from node.protocol.change import Stage
from node.protocol.codec import encode
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.shards import ShardTable
from node.protocol.topics import asks_topic, bulletins_topic, epoch_topic

log = structlog.get_logger()
_ASK_EVERY = 1.0


class StoredEpochs(Epochs):
    """``on_document`` is called with each document in force, in order: heard of or restored.

    Attributes:
        is_latest: whether no later epoch had begun when this process came, or came back, to the broker: a quorum of the
            register's committee certified a block made since, by this machine's clock, after which it had not closed.
    """

    def __init__(self, genesis: Genesis, database: Database, on_document: Callable[[EpochDocument], None]) -> None:
        super().__init__(genesis)
        self._network = genesis.network
        self._database, self._seldom = database, Seldom()
        self._on_document = on_document
        self._saved = 0
        self._came = asyncio.Event()
        self._since: int | None = None
        """When this process could ask first, ms; None while it cannot."""
        self.is_latest = False

    async def load(self) -> None:
        """Restore what is stored. Raises ValueError when it is not this network's, or damaged."""
        query = select(EpochRecord.document).order_by(EpochRecord.number)
        for stored in await self._database.read(lambda c: c.execute(query).scalars().all()):
            news = self.restore(stored)
            self._tell(news)
            for one in news:
                if isinstance(one, Refused):
                    raise ValueError(f"stored epoch document: {one.reason}")
        self._saved = len(self.documents)

    async def save(self) -> None:
        """Keep what is known in the database."""
        known = len(self.documents)
        rows = [{"number": number, "document": self.stored(number)} for number in range(self._saved + 1, known + 1)]
        if rows:
            await self._database.write(lambda c: c.execute(insert(c, EpochRecord).values(rows).on_conflict_do_nothing()) and None)
            self._saved = max(self._saved, known)

    async def follow(self, line: Line) -> None:
        """Hear of the epochs, ask for what is missing, and keep it, until cancelled."""
        line.subscribe(epoch_topic(self._network), MAX_FRAME_BYTES, lambda body: self._tell(self.announce(body)))
        line.subscribe(bulletins_topic(self._network), MAX_FRAME_BYTES, lambda body: self._tell(self.hear(body)))
        while True:
            await self.save()
            self._came.clear()
            is_asked = await self._ask(line)
            self._since = (self._since or now_ms()) if is_asked else None
            self.is_latest &= is_asked
            with suppress(TimeoutError):
                async with asyncio.timeout(_ASK_EVERY):
                    await self._came.wait()

    async def _ask(self, line: Line) -> bool:
        """Whether it could be asked."""
        asks = self.asks(time.monotonic_ns() // 1_000_000)
        if self.document is not None and not self.is_latest:
            number = self.document.number
            more = encode(GetSuccession(number + 1)), encode(GetChange(number, self.document.register))
            asks += [ask for ask in more if ask not in asks]
        try:
            for ask in asks:
                await line.publish(asks_topic(self._network), ask)
        except BrokerUnavailable:
            return False
        return line.connected

    def require(self) -> EpochDocument:
        """The document in force. Raises Problem (503) while there is none."""
        if self.document is None:
            raise Problem(503, "not_ready", "the network has not formed its committees yet", retry_after=2)
        return self.document

    def table(self, epoch: int) -> ShardTable:
        """Which shard kept which address. Raises Problem (503) while the epoch is not known here."""
        if epoch > len(self.documents):
            raise Problem(503, "not_ready", f"epoch {epoch} is not known here yet", retry_after=2)
        return self.documents[epoch - 1].shards

    def home_of(self, address: bytes) -> Chain:
        """The chain that keeps an address now. Raises Problem (503) while there is none."""
        document = self.require()
        return Chain(document.number, document.shards.shard_of(address))

    def _tell(self, news: list[News]) -> None:
        for one in news:
            if isinstance(one, NewDocument):
                log.info("epoch document", epoch=one.document.number, committees=len(one.document.committees))
                self._on_document(one.document)
                self._came.set()
            elif isinstance(one, NewBulletin):
                self.is_latest |= self._goes_on()
            elif isinstance(one, Refused):
                self._seldom.warn(f"announcement or bulletin refused: {one.reason}")

    def _goes_on(self) -> bool:
        """Whether the register shows that no later epoch had begun since that was asked."""
        register = self.chronicle.register
        if register is None or self._since is None or register.change.stage is Stage.CLOSED:
            return False
        return register.header.time >= self._since
