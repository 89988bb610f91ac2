"""The epoch, kept in the database: after a restart the gateway knows the committees though the coordinator be away."""

from collections.abc import Callable

import structlog
from sqlalchemy import select

from gateway.database import Database, EpochRecord, insert
from gateway.problems import Problem
from gateway.seldom import Seldom
from node.client.epochs import Epochs, NewDocument, News, Refused
from node.protocol.codec import encode
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis

log = structlog.get_logger()


class StoredEpochs(Epochs):
    """``on_document`` is called with the document as soon as there is one, announced or restored."""

    def __init__(self, genesis: Genesis, database: Database, on_document: Callable[[EpochDocument], None]) -> None:
        super().__init__(genesis)
        self._database, self._seldom = database, Seldom()
        self._on_document = on_document

    async def load(self) -> None:
        """Restore the stored document. Raises ValueError when it is not this network's, or damaged."""
        query = select(EpochRecord.document).order_by(EpochRecord.number.desc())
        stored = await self._database.read(lambda c: c.execute(query).scalar())
        if stored is not None:
            news = self.restore(stored)
            self._tell(news)
            for one in news:
                if isinstance(one, Refused):
                    raise ValueError(f"stored epoch document: {one.reason}")

    async def save(self) -> None:
        """Keep the document in the database."""
        row = {"number": self.require().number, "document": encode(self.opening)}
        await self._database.write(lambda c: c.execute(insert(c, EpochRecord).values(**row).on_conflict_do_nothing()) and None)

    def hear(self, body: bytes) -> None:
        """Take in a message of the epoch topic."""
        self._tell(self.announce(body))

    def require(self) -> EpochDocument:
        """The document. Raises Problem (503) while there is none."""
        if self.document is None:
            raise Problem(503, "not_ready", "the network has not formed its committees yet", retry_after=2)
        return self.document

    def _tell(self, news: list[News]) -> None:
        for one in news:
            if isinstance(one, NewDocument):
                log.info("epoch document", epoch=one.document.number, committees=len(one.document.committees))
                self._on_document(one.document)
            elif isinstance(one, Refused):
                self._seldom.warn(f"epoch announcement refused: {one.reason}")
