"""The epochs, kept in the database: after a restart the gateway knows the committees whoever is away."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy import select

from gateway.database import Database, EpochRecord, insert
from gateway.problems import Problem
from gateway.seldom import Seldom
from node.chronicle import Refused
from node.client.epochs import Epochs, NewDocument, News
from node.client.line import BrokerUnavailable, Line
from node.protocol.bulletins import GetSuccession
from node.protocol.chain import Chain
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
        is_latest: whether nobody knew of a later epoch when this process came, or came back, to the broker.
    """

    def __init__(self, genesis: Genesis, database: Database, on_document: Callable[[EpochDocument], None]) -> None:
        super().__init__(genesis)
        self._network = genesis.network
        self._database, self._seldom = database, Seldom()
        self._on_document = on_document
        self._saved = 0
        self._came = asyncio.Event()
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
            known, is_asked = len(self.documents), await self._ask(line)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ASK_EVERY):
                    await self._came.wait()
            self.is_latest = is_asked and (self.is_latest or len(self.documents) == known > 0)

    async def _ask(self, line: Line) -> bool:
        """Whether it could be asked."""
        asks = self.asks(time.monotonic_ns() // 1_000_000)
        following = encode(GetSuccession(len(self.documents) + 1))
        if self.documents and not self.is_latest and following not in asks:
            asks.append(following)
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
            elif isinstance(one, Refused):
                self._seldom.warn(f"announcement or bulletin refused: {one.reason}")
