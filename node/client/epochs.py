"""What the coordinator announces: who keeps which shard, and where the epoch stands. Pure: bytes in, what they change out.

A document is believed only when the coordinator signed it and it follows from the registrations in it, and then for good: another
one for the same epoch is refused. The broker may repeat, so a notice older than the one held changes nothing.
"""

from collections.abc import Mapping

from msgspec import Struct

from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode
from node.protocol.epoch import Announcement, EpochDocument, InvalidDocument, PhaseNotice, SignedDocument
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
        signed: the document with the coordinator's signature, to be stored as it is; None until one has been seen.
        notice: the coordinator's latest word on the phase.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self.signed: SignedDocument | None = None
        self.notice: PhaseNotice | None = None

    @property
    def document(self) -> EpochDocument | None:
        return self.signed.document if self.signed else None

    @property
    def electorates(self) -> Mapping[int, Electorate]:
        """Who may sign, by shard; empty while there is no document."""
        return self.signed.document.electorates if self.signed else {}

    @property
    def seats(self) -> dict[str, tuple[int, int]]:
        """(shard, member index) by node name."""
        committees = self.signed.document.committees if self.signed else ()
        return {member.name: (committee.shard, i) for committee in committees for i, member in enumerate(committee.members)}

    def announce(self, body: bytes) -> list[News]:
        """Take in a message of the epoch topic. It is taken in whole, or refused whole."""
        try:
            announcement = decode(Announcement, body, MAX_FRAME_BYTES)
            if not announcement.notice.is_valid(self._genesis):
                raise InvalidDocument("the phase notice is not signed by the coordinator")
            news = self._adopt(announcement.document)
        except (DecodeError, InvalidDocument) as error:
            return [Refused(str(error))]
        before, notice = self.notice, announcement.notice
        if before is None or (notice.epoch, notice.since) >= (before.epoch, before.since):
            self.notice = notice
            if before is None or (notice.epoch, notice.phase) != (before.epoch, before.phase):
                news.append(NewPhase(notice))
        return news

    def restore(self, body: bytes) -> list[News]:
        """Take in an encoded ``SignedDocument`` that was stored. It is checked like one that was announced."""
        try:
            return self._adopt(decode(SignedDocument, body, MAX_FRAME_BYTES))
        except (DecodeError, InvalidDocument) as error:
            return [Refused(str(error))]

    def _adopt(self, signed: SignedDocument | None) -> list[News]:
        if signed is None or signed.document == self.document:
            return []
        signed.check(self._genesis)
        if self.signed is not None:
            raise InvalidDocument("another document for the same epoch")
        self.signed = signed
        return [NewDocument(signed.document)]
