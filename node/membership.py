"""A node's membership, as a pure state machine: how it gets a seat, and what it believes of the coordinator.

    coordinator says            the node
    registration                mines its identity puzzle, then applies: once per connection
    assignment, with document   recomputes the document; persists it, then acknowledges; takes its seat
    handoff                     reports ready, once it reaches a quorum of its committee
    mining                      persists that mining has begun, then begins

It repeats acknowledgement and readiness in answer to every announcement of their phase, so neither side needs to
remember what the other has heard. It holds on to the first valid document of an epoch: a second one is the coordinator
saying two things, and is reported, not believed. Once mining has begun it never needs the coordinator again.

A database that took no part in the epoch may have been another one before that voted. So before a node can have voted - when it
applies, and when it accepts a document before mining - it stores that none of its votes are lost.
"""

from node.effects import Abstain, AcceptDocument, Begin, Mine, Tell
from node.events import Stored
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair, verify
from node.protocol.epoch import (
    Acknowledgement,
    Announcement,
    Application,
    ApplicationRefused,
    EpochDocument,
    FromCoordinator,
    InvalidDocument,
    PhaseNotice,
    Readiness,
    Registration,
)
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.puzzle import identity_prefix
from node.protocol.reports import Notable

FIRST_EPOCH = 1
_ORDER = list(Phase)


PUZZLE = 0
"""The token of the identity puzzle among the work to be mined; blocks count from 1."""

MembershipEffect = Abstain | AcceptDocument | Begin | Mine | Tell | Notable


class Membership:
    """This node's place in the network. Methods return what to do, in order.

    Attributes:
        signed: the accepted document.
        phase: where the epoch stands as far as this node knows.
        begun: whether consensus may run.
        abstain_through: as of the start, the views this member must not vote in; None when its votes may be lost.
    """

    def __init__(self, genesis: Genesis, key: KeyPair, name: str, addresses: tuple[str, ...], stored: Stored) -> None:
        """Raises InvalidDocument when the stored document is damaged."""
        if stored.document is not None:
            stored.document.check(genesis)
        self._genesis, self._key, self._name, self._addresses = genesis, key, name, addresses
        self.signed = stored.document
        self.abstain_through = stored.abstain_through
        is_new = stored.abstain_through is None  # with a document: its database is lost, and it was mining maybe
        self.begun = self.signed is not None and (stored.begun or is_new)
        self._begun_unstored = self.begun and not stored.begun
        self.phase = Phase.MINING if self.begun else Phase.ASSIGNMENT if self.signed else Phase.REGISTRATION
        self._puzzle_asked = False
        self._nonce: bytes | None = None
        self._open = False  # the coordinator takes registrations on this connection
        self._applied = False  # on this connection
        self._height: int | None = None  # set once ready
        self._complaint = ""

    @property
    def document(self) -> EpochDocument | None:
        """The accepted epoch document."""
        return self.signed.document if self.signed else None

    @property
    def seat(self) -> tuple[int, int] | None:
        """(shard, member index), or None without one."""
        return self.signed.document.seat_of(self._key.public) if self.signed else None

    def start(self) -> list[MembershipEffect]:
        """First thing after construction."""
        return [Begin()] if self._begun_unstored else []

    def connected(self) -> None:
        """The coordinator is connected; it speaks first."""
        self._open = self._applied = False

    def puzzle_solved(self, nonce: bytes) -> list[MembershipEffect]:
        self._nonce = nonce
        return self._apply()

    def ready(self, height: int) -> list[MembershipEffect]:
        """This node holds its shard's state at ``height`` and reaches a quorum of its committee (itself included)."""
        first, self._height = self._height is None, height
        return self._report() if first else []

    def received(self, frame: bytes) -> list[MembershipEffect]:
        """A frame from the coordinator. What is wrong with it is reported, and changes nothing."""
        try:
            message: FromCoordinator = decode(FromCoordinator, frame, MAX_FRAME_BYTES)  # type: ignore[arg-type]
            if isinstance(message, ApplicationRefused):
                return self._complain(f"registration refused: {message.reason}")
            news = self._document(message)
        except DecodeError as error:
            return self._complain(f"coordinator sent what is no message: {error}")
        except InvalidDocument as error:
            return self._complain(str(error))
        return news + self._follow(message.notice)

    def _document(self, announcement: Announcement) -> list[MembershipEffect]:
        """Check an announcement; accept the document if it is the first. Raises InvalidDocument if it is not to be believed."""
        notice, signed = announcement.notice, announcement.document
        if not notice.is_valid(self._genesis):
            raise InvalidDocument("announcement not signed by the coordinator of this network")
        if notice.epoch != FIRST_EPOCH:
            raise InvalidDocument("this version knows one epoch")
        if notice.phase is Phase.SETTLEMENT:
            raise InvalidDocument("this version knows no settlement")
        if (signed is None) != (notice.phase is Phase.REGISTRATION):
            raise InvalidDocument(f"announcement of {notice.phase} with the wrong document, or without one")
        if signed is not None and self.signed is None:
            signed.check(self._genesis)
            self.signed = signed
            seat = self.seat
            text = f"seat {seat[1]} of shard {seat[0]}" if seat else "no seat"
            votes = self._have_no_votes() if notice.phase is not Phase.MINING else []
            return [*votes, AcceptDocument(signed), Notable(f"epoch {notice.epoch}: document accepted, {text}")]
        if signed is not None and self.signed is not None and signed.document.hash != self.signed.document.hash:
            if verify(self._genesis.coordinator_key, signed.document.hash, signed.signature):
                raise InvalidDocument(f"coordinator equivocates: it signed a second document for epoch {notice.epoch}")
            raise InvalidDocument("the epoch document is not signed by the coordinator")
        if _ORDER.index(notice.phase) < _ORDER.index(self.phase):
            raise InvalidDocument(f"coordinator went back from {self.phase} to {notice.phase}; ignored")
        return []

    def _follow(self, notice: PhaseNotice) -> list[MembershipEffect]:
        entered = self.phase is not notice.phase
        self.phase = notice.phase
        news: list[MembershipEffect] = [Notable(f"epoch {notice.epoch}: {notice.phase}")] if entered else []
        match self.phase:
            case Phase.REGISTRATION:
                self._open = True
                return news + self._apply()
            case Phase.ASSIGNMENT if self.signed and self.seat:
                return [*news, Tell(Acknowledgement(notice.epoch, self.signed.document.hash))]
            case Phase.HANDOFF:
                return news + self._report()
            case Phase.MINING if not self.begun:
                self.begun = True
                return [Begin(), *news]
        return news

    def _apply(self) -> list[MembershipEffect]:
        if not self._open or self._applied or self.phase is not Phase.REGISTRATION:
            return []
        network, challenge = self._genesis.network, self._genesis.hash
        if self._nonce is None:
            if self._puzzle_asked:
                return []
            self._puzzle_asked = True
            prefix = identity_prefix(network, FIRST_EPOCH, challenge, self._key.public)
            return [Mine(PUZZLE, prefix, self._genesis.parameters.puzzle_difficulty_bits)]
        self._applied = True
        registration = Registration(network, FIRST_EPOCH, self._key.public, self._name, self._addresses, self._nonce)
        votes = self._have_no_votes() if self.abstain_through is None else []  # it may miss the assignment
        return [*votes, Tell(Application(registration.signed(self._key)))]

    def _have_no_votes(self) -> list[MembershipEffect]:
        """Nothing is signed in this epoch yet."""
        self.abstain_through = 0
        return [Abstain(0)]

    def _report(self) -> list[MembershipEffect]:
        if self.phase is not Phase.HANDOFF or self._height is None or self.seat is None:
            return []
        return [Tell(Readiness(FIRST_EPOCH, self._height))]

    def _complain(self, text: str) -> list[MembershipEffect]:
        """Say it once, not every second."""
        if text == self._complaint:
            return []
        self._complaint = text
        return [Notable(text)]
