"""The epochs, as a client knows them: who keeps which shard, now and before, and how far the change to the next epoch is. Pure:
bytes in, what they change out.

The first document is the coordinator's: it is believed only when it follows the rules and a quorum of each of its committees
has signed that it is ready to work under it, so that none is of an attempt that was called off; and then for good: another one
for the same epoch is refused. All later ones follow from it (``node.chronicle``), whoever tells of them. The broker may repeat,
so a notice older than the one held changes nothing.
"""

from collections.abc import Sequence

from msgspec import Struct

from node import chronicle
from node.chronicle import Chronicle, NewBulletin, Refused
from node.protocol.block import Header
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Announcement, EpochDocument, InvalidDocument, Opening, PhaseNotice
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.succession import Succession


class NewDocument(Struct, frozen=True):
    """An epoch has begun: its committees are known."""

    document: EpochDocument


class NewPhase(Struct, frozen=True):
    """The coordinator says that the epoch has entered another phase, or it is seen in its first."""

    notice: PhaseNotice


News = NewDocument | NewPhase | NewBulletin | Refused


class Epochs:
    """The epochs as far as they are known.

    Attributes:
        opening: the first document with the signatures that put it in force; None until one has been seen.
        chronicle: all that followed from it.
        electorates: who may sign, by chain, in this epoch and all before.
        notice: the coordinator's latest word on the phase.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self.chronicle = Chronicle(genesis)
        self.opening: Opening | None = None
        self.notice: PhaseNotice | None = None
        self.electorates: dict[Chain, Electorate] = {}

    @property
    def documents(self) -> Sequence[EpochDocument]:
        """Those that are or were in force, from the first."""
        return self.chronicle.documents

    @property
    def document(self) -> EpochDocument | None:
        """The one in force."""
        return self.chronicle.documents[-1] if self.chronicle.documents else None

    @property
    def current(self) -> dict[int, Electorate]:
        """Who may sign in this epoch, by shard; empty while there is no document."""
        return self.document.electorates if self.document else {}

    @property
    def seats(self) -> dict[str, tuple[int, int]]:
        """(shard, member index) by node name, in this epoch."""
        committees = self.document.committees if self.document else ()
        return {member.name: (committee.shard, i) for committee in committees for i, member in enumerate(committee.members)}

    def origins(self, chain: Chain) -> list[Chain]:
        """The chains that one comes from: none in epoch 1. ``chain``: of a known epoch."""
        return [Chain(chain.epoch - 1, shard) for shard in self.documents[chain.epoch - 1].origins_of(chain.shard)]

    def end(self, chain: Chain) -> Header | None:
        """A chain's closing block, once the epoch after it has begun."""
        successions = self.chronicle.successions
        closings = successions[chain.epoch - 1].closings if chain.epoch <= len(successions) else ()
        return next((closing.header for closing in closings if closing.header.shard == chain.shard), None)

    def opened(self, chain: Chain) -> int:
        """Block time, ms, at which a chain of a known epoch begins; 0 in epoch 1."""
        return max((end.time for origin in self.origins(chain) if (end := self.end(origin)) is not None), default=0)

    def announce(self, body: bytes) -> list[News]:
        """Take in a message of the epoch topic. It is taken in whole, or refused whole."""
        try:
            announcement = decode(Announcement, body, MAX_FRAME_BYTES)
            announcement.check(self._genesis)
            news = self._adopt(announcement.content) if isinstance(announcement.content, Opening) else []
        except (DecodeError, InvalidDocument) as error:
            return [Refused(str(error))]
        before, notice = self.notice, announcement.notice
        if before is None or (notice.epoch, notice.attempt, notice.since) >= (before.epoch, before.attempt, before.since):
            self.notice = notice
            if before is None or (notice.epoch, notice.phase) != (before.epoch, before.phase):
                news.append(NewPhase(notice))
        return news

    def hear(self, body: bytes) -> list[News]:
        """Take in a message of the bulletins topic."""
        return [self._note(one.document) if isinstance(one, chronicle.NewDocument) else one for one in self.chronicle.hear(body)]

    def asks(self, now: int) -> list[bytes]:
        """What to publish on the asks topic; to be called every second or so. ``now``: monotonic, ms."""
        return self.chronicle.asks(now)

    def stored(self, number: int) -> bytes:
        """What is to be kept of an epoch, for ``restore``: the first's opening, a later one's succession."""
        return encode(self.opening if number == 1 else self.chronicle.successions[number - 2])

    def restore(self, body: bytes) -> list[News]:
        """Take in what was stored, an epoch after the other. It is checked like what is heard."""
        try:
            if self.opening is None:
                return self._adopt(decode(Opening, body, MAX_FRAME_BYTES))
            self.chronicle.restore(decode(Succession, body, MAX_FRAME_BYTES))
        except (DecodeError, InvalidDocument) as error:
            return [Refused(str(error))]
        return [self._note(self.chronicle.documents[-1])]

    def _adopt(self, opening: Opening) -> list[News]:
        if self.documents and opening.document == self.documents[0]:
            return []
        opening.check(self._genesis)
        if self.opening is not None:
            raise InvalidDocument("another document for the same epoch")
        self.opening = opening
        self.chronicle.begin(opening.document)
        return [self._note(opening.document)]

    def _note(self, document: EpochDocument) -> NewDocument:
        self.electorates |= {electorate.chain: electorate for electorate in document.electorates.values()}
        return NewDocument(document)
