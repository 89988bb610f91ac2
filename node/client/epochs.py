"""What the coordinator announces: who keeps which shard, and where the epoch stands. Pure: bytes in, what they change out.

A document is believed only when it follows the rules and a quorum of each of its committees has signed that it is ready to work
under it, so that none is of an attempt that was called off; and then for good: another one for the same epoch is refused. The
broker may repeat, so a notice older than the one held changes nothing.
"""

from collections.abc import Mapping

from msgspec import Struct

from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode
from node.protocol.epoch import Announcement, EpochDocument, InvalidDocument, Opening, PhaseNotice
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_FRAME_BYTES


class NewDocument(Struct, frozen=True):
    """The committees are known."""

    document: EpochDocument


class NewPhase(Struct, frozen=True):
    """The epoch has entered another phase, or is seen in its first."""

    notice: PhaseNotice


class Refused(Struct, frozen=True):
    """The bytes are not what they should be, and changed nothing."""

    reason: str


News = NewDocument | NewPhase | Refused


class Epochs:
    """The epoch as far as it is known.

    Attributes:
        opening: the document with the signatures that put it in force, to be stored as it is; None until one has been seen.
        notice: the coordinator's latest word on the phase.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self.opening: Opening | None = None
        self.notice: PhaseNotice | None = None

    @property
    def document(self) -> EpochDocument | None:
        return self.opening.document if self.opening else None

    @property
    def electorates(self) -> Mapping[int, Electorate]:
        """Who may sign, by shard; empty while there is no document."""
        return self.opening.document.electorates if self.opening else {}

    @property
    def seats(self) -> dict[str, tuple[int, int]]:
        """(shard, member index) by node name."""
        committees = self.opening.document.committees if self.opening else ()
        return {member.name: (committee.shard, i) for committee in committees for i, member in enumerate(committee.members)}

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

    def restore(self, body: bytes) -> list[News]:
        """Take in an encoded ``Opening`` that was stored. It is checked like one that was announced."""
        try:
            return self._adopt(decode(Opening, body, MAX_FRAME_BYTES))
        except (DecodeError, InvalidDocument) as error:
            return [Refused(str(error))]

    def _adopt(self, opening: Opening) -> list[News]:
        if opening.document == self.document:
            return []
        opening.check(self._genesis)
        if self.opening is not None:
            raise InvalidDocument("another document for the same epoch")
        self.opening = opening
        return [NewDocument(opening.document)]
