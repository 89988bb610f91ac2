"""Once the first epoch mines: the coordinator follows the change of epochs like everybody else, says where it stands, and asks
for one when there is a reason. It decides nothing: what the register wrote down is seen in its bulletins.

A reason is: as many nodes wait for a seat, connected and registered, as fill a committee; a member leaves; a member sits out.
The register is called again and again, until its bulletin shows that it heard.
"""

from collections.abc import Iterable

from msgspec import Struct

from node.chronicle import Chronicle, NewDocument
from node.network.pacing import Bucket
from node.protocol.change import Register, RegisterPhase
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.entries import Call
from node.protocol.epoch import EpochDocument, PhaseNotice, Want, Wish
from node.protocol.genesis import Genesis, Phase
from node.protocol.reports import Notable
from node.protocol.succession import Succession
from node.protocol.topics import asks_topic, bulletins_topic, entries_topic

CALL_INTERVAL = 3_000
"""Between two calls for the same, ms."""
PATIENCE = 3_000
"""A reason has to stand so long, ms: who comes or leaves together has a part in the same change."""
CALLS_PER_HOUR = 12
"""For different epochs: members that say they leave, and stay, shall not have one change follow another."""
_PHASES = {
    RegisterPhase.REGISTRATION: Phase.REGISTRATION,
    RegisterPhase.REVEAL: Phase.REVEAL,
    RegisterPhase.HANDOFF: Phase.HANDOFF,
    RegisterPhase.SETTLEMENT: Phase.SETTLEMENT,
    RegisterPhase.CLOSED: Phase.SETTLEMENT,
}
_NOTHING = Register(RegisterPhase.REGISTRATION, 0, 0)
"""What a register has written down that has written down nothing yet."""


class PersistSuccession(Struct, frozen=True):
    """Store what the next epoch began with."""

    succession: Succession


class Publish(Struct, frozen=True):
    """Publish on the broker."""

    topic: str
    body: bytes


class Epochs:
    """Times are ms, of a clock that does not go back."""

    def __init__(
        self, genesis: Genesis, key: KeyPair, first: EpochDocument, since: int, successions: Iterable[Succession]
    ) -> None:
        """``since``: when the first epoch began. ``successions``: those stored. Raises InvalidDocument if they are damaged."""
        self._genesis, self._key = genesis, key
        self._chronicle = Chronicle(genesis)
        self._chronicle.begin(first)
        for succession in successions:
            self._chronicle.restore(succession)
        self._first_since = since
        self._wishes: dict[bytes, Want] = {}
        self._seats = _seats(self.document)
        self._calls = Bucket(CALLS_PER_HOUR / 3600, CALLS_PER_HOUR)
        self._has_reason_since: int | None = None
        self._called: tuple[int, int] | None = None
        """For which epoch, and when last."""

    @property
    def document(self) -> EpochDocument:
        """The one in force."""
        return self._chronicle.documents[-1]

    def has_seat(self, peer: bytes) -> bool:
        return peer in self._seats

    @property
    def notice(self) -> PhaseNotice:
        """Where things stand, not signed: of the next epoch while that forms, else of this one."""
        network, document, bulletin = self._genesis.network, self.document, self._chronicle.register
        written = bulletin.change.register if bulletin is not None else None
        if bulletin is None or written is None or not _is_forming(written, bulletin.change.attempt):
            registered = len(self._seats) + len(document.standby)
            return PhaseNotice(network, document.number, document.attempt, Phase.MINING, self._since, registered)
        registered, phase = len(written.registrations), _PHASES[written.phase]
        return PhaseNotice(network, document.number + 1, bulletin.change.attempt, phase, written.since, registered)

    @property
    def doing(self) -> str:
        """The same in a few words."""
        notice = self.notice
        if notice.phase is Phase.MINING:
            return f"epoch {notice.epoch} is mining"
        return f"epoch {notice.epoch} forms: {notice.phase}, {notice.registered} nodes registered"

    @property
    def _since(self) -> int:
        """When this epoch began."""
        successions = self._chronicle.successions
        return max(closing.header.time for closing in successions[-1].closings) if successions else self._first_since

    # -- what comes in ---------------------------------------------------------------------------------------------

    def hear(self, body: bytes) -> list[PersistSuccession]:
        """A message of the bulletins topic."""
        effects = []
        for news in self._chronicle.hear(body):
            if isinstance(news, NewDocument):
                self._wishes, self._seats, self._has_reason_since = {}, _seats(news.document), None
                effects.append(PersistSuccession(news.succession))
        return effects

    def asked(self, ask: bytes, now: int) -> list[Publish]:
        """A message of the asks topic."""
        answer = self._chronicle.answer(ask, now)
        return [Publish(bulletins_topic(self._genesis.network), answer)] if answer is not None else []

    def wish(self, peer: bytes, wish: Wish) -> None:
        """A connected node says what it wants. What does not go with its seat, or is of another epoch, counts for nothing."""
        if wish.epoch == self.document.number and self.has_seat(peer) == (wish.want is not Want.JOIN):
            self._wishes[peer] = wish.want

    def gone(self, peer: bytes) -> None:
        """A node is not connected any more."""
        self._wishes.pop(peer, None)

    def tick(self, now: int) -> list[Publish | Notable]:
        """Once a second."""
        asks = [Publish(asks_topic(self._genesis.network), ask) for ask in self._chronicle.asks(now)]
        return [*asks, *self._call(now)]

    # -- calling ---------------------------------------------------------------------------------------------------

    def _call(self, now: int) -> list[Publish | Notable]:
        """Ask for the next epoch, if there is a reason and the register has not heard."""
        bulletin, epoch = self._chronicle.register, self.document.number
        if bulletin is None:
            return []
        written = bulletin.change.register or _NOTHING
        if written.called or written.phase is not RegisterPhase.REGISTRATION or not (reason := self._reason(written)):
            self._has_reason_since = None
            return []
        if self._has_reason_since is None:
            self._has_reason_since = now
        if now - self._has_reason_since < PATIENCE:
            return []
        is_first = self._called is None or self._called[0] != epoch
        if is_first and not self._calls.has_any(now / 1000):
            return []
        if self._called is not None and not is_first and now - self._called[1] < CALL_INTERVAL:
            return []
        if is_first:
            self._calls.take(1, now / 1000)
        self._called = epoch, now
        call = Call(self._genesis.network, epoch, bulletin.change.attempt).signed(self._key)
        said = [Notable(f"calling for epoch {epoch + 1}: {reason}")] if is_first else []
        return [Publish(entries_topic(self._genesis.network), encode(call)), *said]

    def _reason(self, written: Register) -> str:
        """Why the epoch should end; empty: it should not."""
        registered = {registration.public_key for registration in written.registrations}
        waiting = sum(want is Want.JOIN and peer in registered for peer, want in self._wishes.items())
        wants = self._wishes.values()
        if Want.LEAVE in wants or not self._seats.isdisjoint(written.farewells):
            return "a member leaves"
        if Want.SIT_OUT in wants:
            return "a member may not vote"
        return f"{waiting} nodes wait for seats" if waiting >= self._genesis.parameters.committee_size else ""


def _is_forming(written: Register, attempt: int) -> bool:
    """Whether the next epoch is under way, and not only nodes put their names down for when it will be."""
    return written.called or written.phase is not RegisterPhase.REGISTRATION or attempt > 1


def _seats(document: EpochDocument) -> frozenset[bytes]:
    return frozenset(member.public_key for committee in document.committees for member in committee.members)
