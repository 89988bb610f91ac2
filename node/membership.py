"""A node's membership, as a pure state machine: how it gets a seat, and what it believes of the coordinator.

    coordinator says           the node
    registration               mines its identity puzzle; persists a new secret, then applies: once per connection
    reveal, with the roll      persists which roll, then tells its secret
    assignment, with document  recomputes the document; persists it, then acknowledges
    handoff                    the same; and signs that it is ready, once it reaches a quorum of its committee
    mining, with an opening    checks that a quorum of each committee is ready; persists the opening, then begins
    anything of a later epoch  the same with the opening of the first, which comes with it

It repeats what a phase asks in answer to every announcement, so neither side needs to remember what the other has heard. Of an
attempt it believes the first valid roll and the first valid document: a second one is the coordinator saying two things, and is
reported, not believed. It goes on to a later attempt, never back. Once it has begun it goes nowhere, and never needs the
coordinator again.

Each attempt has a secret of its own, in the database that holds the votes. A member votes only if its own disk has the secret
its registration in the document commits to: else that registration was sent from another disk, which may have voted.
"""

from node.effects import AcceptDocument, Mine, Pledge, Tell
from node.events import Stored
from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair, digest, verify
from node.protocol.epoch import (
    Acknowledgement,
    Announcement,
    Application,
    ApplicationRefused,
    Content,
    EpochDocument,
    FromCoordinator,
    InvalidDocument,
    Opening,
    Readiness,
    Registration,
    Reveal,
    SignedDocument,
    SignedRoll,
    commitment_to,
    readiness_statement,
)
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.puzzle import identity_prefix
from node.protocol.reports import Notable

FIRST_EPOCH = 1
_ORDER = list(Phase)


PUZZLE = 0
"""The token of the identity puzzle among the work to be mined; blocks count from 1."""

MembershipEffect = AcceptDocument | Pledge | Mine | Tell | Notable


class Membership:
    """This node's place in the network. Methods return what to do, in order.

    Attributes:
        accepted: the document it believes, in force or not yet.
        pledge: what it is bound to in the latest attempt it took part in.
        attempt, phase: where the epoch stands as far as this node knows.
    """

    def __init__(self, genesis: Genesis, key: KeyPair, name: str, addresses: tuple[str, ...], stored: Stored) -> None:
        """A stored document that is damaged is as good as none: the coordinator has it."""
        self._genesis, self._key, self._name, self._addresses = genesis, key, name, addresses
        self._entropy = stored.entropy
        self.accepted = stored.accepted if stored.accepted is not None and _proves_itself(stored.accepted, genesis) else None
        self.pledge = next((pledge for pledge in stored.pledges if pledge.epoch == FIRST_EPOCH), None)
        self.attempt, self.phase = self._stored_place()
        self._puzzle_asked = False
        self._nonce: bytes | None = None
        self._open = False  # the coordinator takes registrations on this connection
        self._applied = False  # on this connection, for this attempt
        self._ready = False
        self._complaint = ""
        self._useless_roll = b""  # has no part for this node

    def _stored_place(self) -> tuple[int, Phase]:
        pledged = self.pledge.attempt if self.pledge is not None else 1
        document = self.document
        if document is not None and (self.begun or document.attempt >= pledged):
            return document.attempt, Phase.MINING if self.begun else Phase.ASSIGNMENT
        return pledged, Phase.REVEAL if self.pledge is not None and self.pledge.roll else Phase.REGISTRATION

    @property
    def begun(self) -> bool:
        """Whether the document is in force: consensus may run."""
        return isinstance(self.accepted, Opening)

    @property
    def document(self) -> EpochDocument | None:
        """The accepted epoch document."""
        return self.accepted.document if self.accepted is not None else None

    @property
    def seat(self) -> tuple[int, int] | None:
        """(shard, member index), or None without one."""
        return self.document.seat_of(self._key.public) if self.document is not None else None

    @property
    def may_vote(self) -> bool:
        """Whether it has a seat, and the secret that its registration commits to is on its own disk."""
        return self.document is not None and is_bound(self.document, self._key.public, self.pledge)

    def connected(self) -> None:
        """The coordinator is connected; it speaks first."""
        self._open = self._applied = False

    def puzzle_solved(self, nonce: bytes) -> list[MembershipEffect]:
        self._nonce = nonce
        return self._apply()

    def ready(self) -> list[MembershipEffect]:
        """This node reaches a quorum of its committee (itself included)."""
        first, self._ready = not self._ready, True
        return self._report() if first and self.phase is Phase.HANDOFF else []

    def received(self, frame: bytes) -> list[MembershipEffect]:
        """A frame from the coordinator. What is wrong with it is reported, and changes nothing."""
        try:
            message: FromCoordinator = decode(FromCoordinator, frame, MAX_FRAME_BYTES)  # type: ignore[arg-type]  # a union
            if isinstance(message, ApplicationRefused):
                self._applied = False  # what stood against it may pass
                return self._complain(f"registration refused: {message.reason}")
            message.check(self._genesis)
            attempt, phase = _where(message)
            news = self._take(message.content, attempt, phase)
        except DecodeError as error:
            return self._complain(f"coordinator sent what is no message: {error}")
        except InvalidDocument as error:
            return self._complain(str(error))
        return [*news, *self._enter(attempt, phase), *self._answer()]

    # -- what to believe -------------------------------------------------------------------------------------------

    def _take(self, content: Content | None, attempt: int, phase: Phase) -> list[MembershipEffect]:
        """Check what is announced, and take what it brings. Raises InvalidDocument if it is not to be believed."""
        if content is not None and not isinstance(content, SignedRoll):
            self._check_alone(content)
        if self.begun and attempt > self.attempt:
            raise InvalidDocument(f"coordinator goes on to attempt {attempt}, but this node has begun; ignored")
        if (attempt, _ORDER.index(phase)) < (self.attempt, _ORDER.index(self.phase)):
            came, was = f"attempt {attempt}, {phase}", f"attempt {self.attempt}, {self.phase}"
            raise InvalidDocument(f"coordinator went back from {was} to {came}; ignored")
        if content is None:
            return []
        return self._take_roll(content) if isinstance(content, SignedRoll) else self._take_document(content)

    def _check_alone(self, content: SignedDocument | Opening) -> None:
        """Raises InvalidDocument if it is another document than the one accepted for the attempt."""
        held, document = self.document, content.document
        if held is None or held.attempt != document.attempt or held.hash == document.hash:
            return
        signature = content.signed.signature if isinstance(content, Opening) else content.signature
        if verify(self._genesis.coordinator_key, document.hash, signature):
            raise InvalidDocument(f"coordinator equivocates: it signed a second document for attempt {document.attempt}")
        raise InvalidDocument("the epoch document is not signed by the coordinator")

    def _take_roll(self, signed: SignedRoll) -> list[MembershipEffect]:
        """The roll of the attempt: this node is bound to it before it tells its secret."""
        pledge, roll = self.pledge, signed.roll
        if pledge is None or pledge.attempt != roll.attempt or roll.hash in (pledge.roll, self._useless_roll):
            return []
        signed.check(self._genesis)
        if pledge.roll:
            raise InvalidDocument(f"coordinator equivocates: it signed a second roll for attempt {roll.attempt}")
        own = roll.find(self._key.public)
        if own is None or own.commitment != commitment_to(pledge.secret):
            self._useless_roll = roll.hash
            how = "leaves this node out" if own is None else "has this node with a secret that is not on its disk"
            return self._complain(f"the roll of attempt {roll.attempt} {how}")
        self.pledge = Pledge(pledge.attempt, pledge.secret, roll.hash)
        return [self.pledge]

    def _take_document(self, content: SignedDocument | Opening) -> list[MembershipEffect]:
        """The document of the attempt, or the same in force."""
        document, pledge = content.document, self.pledge
        if self.document is not None and self.document.hash == document.hash:
            if self.begun or isinstance(content, SignedDocument):
                return []
            content.check_quorums()
            assert isinstance(self.accepted, SignedDocument), "it has not begun"
            self.accepted = Opening(self.accepted, content.quorums)  # whatever the signature is that came this time
            return [AcceptDocument(self.accepted)]
        content.check(self._genesis)
        is_bound = pledge is not None and pledge.attempt == document.attempt and pledge.roll
        if pledge is not None and is_bound and pledge.roll != document.roll.hash:
            raise InvalidDocument(f"coordinator equivocates: the document of attempt {document.attempt} has another roll")
        self.accepted, self._ready = content, False
        seat = f"seat {self.seat[1]} of shard {self.seat[0]}" if self.seat else "no seat"
        if self.seat and not self.may_vote:
            seat += ", without votes: its secret is not on this disk"
        if is_bound and any(registration.public_key == self._key.public for registration in document.silent):
            seat += ", though it told its secret"
        return [
            AcceptDocument(content),
            Notable(f"epoch {document.number}, attempt {document.attempt}: document accepted, {seat}"),
        ]

    def _enter(self, attempt: int, phase: Phase) -> list[MembershipEffect]:
        if (attempt, phase) == (self.attempt, self.phase):
            return []
        if attempt != self.attempt:
            self._applied = False
        self.attempt, self.phase = attempt, phase
        return [Notable(f"epoch {FIRST_EPOCH}, attempt {attempt}: {phase}")]

    # -- what to say -----------------------------------------------------------------------------------------------

    def _answer(self) -> list[MembershipEffect]:
        match self.phase:
            case Phase.REGISTRATION:
                self._open = True
                return self._apply()
            case Phase.REVEAL if self.pledge is not None and self.pledge.attempt == self.attempt and self.pledge.roll:
                return [Tell(Reveal(self.attempt, self.pledge.secret))]
            case Phase.ASSIGNMENT | Phase.HANDOFF:
                return self._report()
        return []

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
        pledged = self._pledge_anew()
        assert self.pledge is not None
        registration = Registration(
            network=network,
            epoch=FIRST_EPOCH,
            attempt=self.attempt,
            public_key=self._key.public,
            name=self._name,
            addresses=self._addresses,
            nonce=self._nonce,
            commitment=commitment_to(self.pledge.secret),
        )
        return [*pledged, Tell(Application(registration.signed(self._key)))]

    def _pledge_anew(self) -> list[MembershipEffect]:
        """A secret for this attempt, unless there is one: from here on this node has no part in an earlier attempt."""
        if self.pledge is not None and self.pledge.attempt == self.attempt:
            return []
        self.pledge = Pledge(self.attempt, digest("secret", self._entropy, self.attempt.to_bytes(8, "big")))
        return [self.pledge]

    def _report(self) -> list[MembershipEffect]:
        """A member that may vote is there; and ready, if it is."""
        document = self.document
        if document is None or document.attempt != self.attempt or not self.may_vote:
            return []
        said: list[MembershipEffect] = [Tell(Acknowledgement(document.hash))]
        if self.phase is Phase.HANDOFF and self._ready:
            said.append(Tell(Readiness(document.hash, self._key.sign(readiness_statement(document.hash)))))
        return said

    def _complain(self, text: str) -> list[MembershipEffect]:
        """Say it once, not every second."""
        if text == self._complaint:
            return []
        self._complaint = text
        return [Notable(text)]


def _where(announcement: Announcement) -> tuple[int, Phase]:
    """Attempt and phase of the first epoch: when a later one is announced, it was mined by."""
    notice, content = announcement.notice, announcement.content
    if notice.epoch > FIRST_EPOCH and isinstance(content, Opening):
        return content.document.attempt, Phase.MINING
    return notice.attempt, notice.phase


def _proves_itself(accepted: SignedDocument | Opening, genesis: Genesis) -> bool:
    try:
        accepted.check(genesis)
    except InvalidDocument:
        return False
    return True


def is_bound(document: EpochDocument, public_key: bytes, pledge: Pledge | None) -> bool:
    """Whether the node with this key has a seat in the document, and the secret is the one that its registration commits to."""
    members = (member for committee in document.committees for member in committee.members)
    registration = next((member for member in members if member.public_key == public_key), None)
    return registration is not None and pledge is not None and registration.commitment == commitment_to(pledge.secret)
