"""What is known of the epochs: the documents in force, one after the other, and how far the change to the next one is.

Everything comes from anybody and proves itself: from the first document on each committee certifies what leads to the next.
What is not proven changes nothing; it may be a reason to ask. Pure: bytes of the bulletins topic in, what they change out.
"""

from collections.abc import Iterable

from msgspec import Struct

from node.protocol.assignment import next_document
from node.protocol.bulletins import Ask, GetChange, GetSuccession, Message, Successions, decode_ask, decode_message
from node.protocol.certificate import Electorate
from node.protocol.change import Bulletin, RegisterPhase, Stage
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.credits import Credits, next_credits
from node.protocol.epoch import EpochDocument, InvalidDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.succession import Succession
from node.protocol.terms import Terms

QUIET = 5_000
"""After so long, ms, without a word of the register it is asked."""
ASK_INTERVAL = 1_000
"""Between two times the same is asked for, ms."""
MAX_ASKS = 4
"""At once."""
ANSWER_INTERVAL = 500
"""Between two times the same is answered, ms."""
MAX_ANSWER_BYTES = 1 << 20
"""Answered in such a time; one is begun before it is counted. A question has a few bytes, a succession may have millions."""
RUN_BYTES = MAX_ANSWER_BYTES // 2
"""Of successions in one answer, at most, or one succession: to verify them takes some 0.1 s."""
_MAX_ANSWERED = 64
_FIXED = (RegisterPhase.HANDOFF, RegisterPhase.SETTLEMENT, RegisterPhase.CLOSED)
"""The next document is fixed."""


class NewBulletin(Struct, frozen=True):
    """A shard's committee is further with the change than was known."""

    bulletin: Bulletin


class NewDocument(Struct, frozen=True):
    """The next epoch has begun."""

    document: EpochDocument
    succession: Succession


class Refused(Struct, frozen=True):
    """The bytes are not what they should be, and changed nothing."""

    reason: str


News = NewBulletin | NewDocument | Refused


class Chronicle:
    """Times are monotonic milliseconds.

    Attributes:
        documents: in force, from the first; empty before. The last is this epoch's.
        successions: with which the second and all later ones began.
        credits: what each shard could have, at most, when this epoch began.
        register: the newest bulletin of this epoch's register. closings: by shard, of this epoch.
        prospect: the next document, once it is fixed and as long as it is not in force or called off.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._parameters = genesis.parameters
        self._issuers = Terms(genesis).issuers
        self.documents: list[EpochDocument] = []
        self.successions: list[Succession] = []
        self.credits: Credits = {}
        self._forget_change()
        self._asked: dict[Ask, int] = {}
        self._answered: dict[Ask, tuple[int, int]] = {}
        """When, and with how many bytes."""
        self._is_late = False
        """Whether something was heard of a later epoch, or there may be another after the one that was just told."""
        self._has_heard = False
        self._heard_at: int | None = None

    def _forget_change(self) -> None:
        self.register: Bulletin | None = None
        self.closings: dict[int, Bulletin] = {}
        self.prospect: EpochDocument | None = None

    @property
    def document(self) -> EpochDocument | None:
        """This epoch's."""
        return self.documents[-1] if self.documents else None

    @property
    def is_changing(self) -> bool:
        """Whether this epoch is known to end, or to have ended."""
        return self._is_late or self.prospect is not None or bool(self.closings)

    # -- what comes in ---------------------------------------------------------------------------------------------

    def begin(self, first: EpochDocument) -> None:
        """The document of epoch 1 is in force; checked by the caller."""
        if not self.documents:
            self.documents.append(first)

    def restore(self, succession: Succession) -> None:
        """Go on to the next epoch, by what was verified and stored here before. Raises InvalidDocument unless it leads there."""
        if not self.documents or succession.number != self.documents[-1].number + 1:
            raise InvalidDocument("a succession of another epoch")
        self._go_on(succession, is_known=True)

    def hear(self, body: bytes) -> list[News]:
        """Take in a message of the bulletins topic."""
        if not self.documents:
            return []
        try:
            return self._take(decode_message(body), self.documents[-1])
        except (DecodeError, InvalidDocument) as error:
            return [Refused(str(error))]

    def _take(self, message: Message, current: EpochDocument) -> list[News]:
        epoch = message.first - 1 if isinstance(message, Successions) else message.epoch
        self._is_late = self._is_late or epoch > current.number
        if isinstance(message, Successions):
            return self._follow(message) if epoch <= current.number else []
        if epoch != current.number:
            return []
        electorate = current.electorates.get(message.header.shard)
        if electorate is None:
            raise InvalidDocument(f"a bulletin of shard {message.header.shard}, which is not there")
        return self._take_bulletin(message, electorate, current)

    def _follow(self, message: Successions) -> list[News]:
        """Those that lead on from here, up to the first that does not."""
        news: list[News] = []
        for encoded in message.encoded[self.documents[-1].number + 1 - message.first :]:
            try:
                news.append(self._go_on(decode(Succession, encoded, MAX_FRAME_BYTES)))
            except (DecodeError, InvalidDocument) as error:
                return [*news, Refused(str(error))]
            self._is_late = True
        return news

    def _take_bulletin(self, bulletin: Bulletin, electorate: Electorate, current: EpochDocument) -> list[News]:
        shard, is_closing = electorate.shard, _is_closing(bulletin)
        is_news = is_closing and shard not in self.closings
        if shard == current.register:
            is_news |= self.register is None or bulletin.header.height > self.register.header.height
        if not is_news:
            return []
        if not bulletin.is_valid(electorate):
            raise InvalidDocument(f"a bulletin that shard {shard} of epoch {current.number} did not certify")
        if shard == current.register:
            self.prospect = self._look_ahead(bulletin, current)
            self.register, self._has_heard = bulletin, True
        if is_closing:
            self.closings[shard] = bulletin
        return [NewBulletin(bulletin), *self._close(current)]

    def _look_ahead(self, bulletin: Bulletin, current: EpochDocument) -> EpochDocument | None:
        """What the next document will be. Raises InvalidDocument for a register that says it is fixed when none can be made."""
        attempt, register = bulletin.change.attempt, bulletin.change.register
        if register is None or register.phase not in _FIXED:
            return None
        if self.prospect is not None and self.prospect.attempt == attempt:
            return self.prospect
        return next_document(current, register, attempt, self._parameters)

    def _close(self, current: EpochDocument) -> list[News]:
        """Go on, once all shards have closed."""
        own = self.closings.get(current.register)
        if own is None:
            return []
        agreed = (own.change.attempt, own.change.document)
        self.closings = {s: c for s, c in self.closings.items() if (c.change.attempt, c.change.document) == agreed}
        if self.closings.keys() != current.electorates.keys():
            return []
        closings = tuple(closing for _, closing in sorted(self.closings.items()))
        try:
            return [self._go_on(Succession(closings))]
        except InvalidDocument:
            self.closings = {}  # some shard said another thing before: they are asked for again
            raise

    def _go_on(self, succession: Succession, is_known: bool = False) -> NewDocument:
        """Raises InvalidDocument, and has changed nothing then."""
        current = self.documents[-1]
        document = succession.next_document(current, self._parameters, is_known=is_known)
        self.credits = next_credits(self.credits, current, document, succession.closings, self._issuers)
        self.documents.append(document)
        self.successions.append(succession)
        self._forget_change()
        self._is_late, self._heard_at, self._asked = False, None, {}
        return NewDocument(document, succession)

    # -- what to ask for, and what others ask for ------------------------------------------------------------------

    def asks(self, now: int) -> list[bytes]:
        """What to publish on the asks topic now. Counts as asked."""
        if not self.documents:
            return []
        if self._has_heard:
            self._heard_at, self._has_heard = now, False
        self._asked = {ask: at for ask, at in self._asked.items() if now - at < ASK_INTERVAL}
        due = [ask for ask in self._missing(now) if ask not in self._asked][: MAX_ASKS - min(MAX_ASKS, len(self._asked))]
        self._asked |= dict.fromkeys(due, now)
        self._is_late = self._is_late and not any(isinstance(ask, GetSuccession) for ask in due)
        return [encode(ask) for ask in due]

    def _missing(self, now: int) -> Iterable[Ask]:
        current = self.documents[-1]
        if self._is_late or self.register is None:
            yield GetSuccession(current.number + 1)
        if self.closings:
            yield from (GetChange(current.number, s) for s in sorted(current.electorates.keys() - self.closings.keys()))
        elif self._heard_at is None or now - self._heard_at >= QUIET:
            self._heard_at = now
            yield GetChange(current.number, current.register)

    def answer(self, ask: bytes, now: int, newest: Bulletin | None = None) -> bytes | None:
        """What to publish on the bulletins topic, if it is known here, and was not asked for a moment ago.

        ``newest``: of the chain that is asked about, if the caller has a newer one.
        """
        try:
            asked = decode_ask(ask)
        except DecodeError:
            return None
        found = newest or self._find(asked)
        self._answered = {one: (at, size) for one, (at, size) in self._answered.items() if now - at < ANSWER_INTERVAL}
        spent = sum(size for _, size in self._answered.values())
        if found is None or asked in self._answered or len(self._answered) >= _MAX_ANSWERED or spent >= MAX_ANSWER_BYTES:
            return None
        encoded = encode(found)
        self._answered[asked] = now, len(encoded)
        return encoded

    def _find(self, asked: Ask) -> Message | None:
        match asked:
            case GetSuccession(number):
                return Successions.of(self.successions[number - 2 :], RUN_BYTES) if number - 2 < len(self.successions) else None
            case GetChange(epoch, shard) if epoch <= len(self.successions):
                return next((c for c in self.successions[epoch - 1].closings if c.header.shard == shard), None)
            case GetChange(epoch, shard) if self.documents and epoch == self.documents[-1].number:
                newest = self.register if shard == self.documents[-1].register else None
                return self.closings.get(shard, newest)
        return None


def _is_closing(bulletin: Bulletin) -> bool:
    """Whether it is of a closing block, and not of an empty one after it."""
    return bulletin.change.stage is Stage.CLOSED and bulletin.change.closed == bulletin.header.height
