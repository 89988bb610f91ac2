"""Which committee keeps which shard: the epoch document, believed only after recomputing it from the genesis."""

from collections.abc import Callable

import structlog
from sqlalchemy import select

from gateway.broker import Broker
from gateway.database import Database, EpochRecord, insert
from gateway.problems import Problem
from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Announcement, EpochDocument, InvalidDocument, PhaseNotice, SignedDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.topics import epoch_topic

log = structlog.get_logger()


class Epochs:
    """The current epoch document and phase, as announced over the broker and checked here.

    Attributes:
        document: None until one has been seen, now or before the last restart.
        notice: the coordinator's latest word on the phase.
    """

    def __init__(self, genesis: Genesis, database: Database, broker: Broker) -> None:
        self._genesis = genesis
        self._database = database
        self._broker = broker
        self._announce: Callable[[EpochDocument], None] = lambda document: None
        self._unsaved: SignedDocument | None = None
        self.document: EpochDocument | None = None
        self.notice: PhaseNotice | None = None

    async def start(self, announce: Callable[[EpochDocument], None]) -> None:
        """Load the last document and listen for the next. ``announce`` is called with each new one."""
        self._announce = announce
        stored = await self._database.read(
            lambda c: c.execute(select(EpochRecord.document).order_by(EpochRecord.number.desc())).scalar()
        )
        if stored is not None:
            self._adopt(decode(SignedDocument, stored, MAX_BROKER_BODY_BYTES))
        self._broker.subscribe(epoch_topic(self._genesis.network), self._hear)

    def electorate(self, shard: int) -> Electorate | None:
        """Who may sign for ``shard`` now."""
        return self.document.electorates.get(shard) if self.document else None

    def require(self) -> EpochDocument:
        """The document. Raises Problem (503) while there is none."""
        if self.document is None:
            raise Problem(503, "not_ready", "the network has not formed its committees yet", retry_after=2)
        return self.document

    def _hear(self, body: bytes) -> None:
        try:
            announcement = decode(Announcement, body, MAX_BROKER_BODY_BYTES)
            notice, signed = announcement.notice, announcement.document
            if not notice.is_valid(self._genesis):
                raise InvalidDocument("the phase notice is not signed by the coordinator")
            if signed is not None and signed.document != self.document:
                self._adopt(signed)
        except (DecodeError, InvalidDocument) as error:
            log.warning("epoch announcement refused", error=str(error))
            return
        if self.notice is None or (notice.epoch, notice.since) >= (self.notice.epoch, self.notice.since):
            self.notice = notice  # an older one is a repetition by the broker

    def _adopt(self, signed: SignedDocument) -> None:
        signed.check(self._genesis)
        if self.document is not None:
            raise InvalidDocument("another document for the same epoch")
        self.document, self._unsaved = signed.document, signed
        log.info("epoch document", epoch=signed.document.number, committees=len(signed.document.committees))
        self._announce(signed.document)

    async def save(self) -> None:
        """Keep a newly adopted document in the database."""
        if self._unsaved is None:
            return
        row = {"number": self._unsaved.document.number, "document": encode(self._unsaved)}
        await self._database.write(lambda c: c.execute(insert(c, EpochRecord).values(**row).on_conflict_do_nothing()) and None)
        self._unsaved = None
