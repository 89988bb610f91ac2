"""The coordinator as a pure state machine: what nodes send and time goes in, effects come out. All its rules are here.

| phase        | what happens                                              | ends when                                           |
|--------------|-----------------------------------------------------------|-----------------------------------------------------|
| registration | nodes mine their identity puzzle and apply, each with the | all wanted nodes are registered, in attempt 1; or   |
|              | hash of a secret                                          | at a deadline, if they fill a committee             |
| reveal       | the roll is published; who is on it tells its secret      | all have; or at a deadline, the same                |
| assignment   | the document is published; members recompute it           | a quorum of every committee acknowledged it         |
| handoff      | members find each other                                   | a quorum of every committee signed that it is ready |
| mining       | their signatures are published: the document is in force  | never: later epochs form without it (``epochs``)    |

Rules:
 1. Persist before publish: in every list of effects, what must survive a crash comes before what tells of it. Storage takes
    each phase of an attempt once, so no two rolls or documents of an attempt are ever seen.
 2. A registration counts if its sender is its key, its puzzle is solved, its signature is good and its addresses can be
    dialed. A node may register again, to move, until the phase ends. What breaks a rule is refused, with the reason, and
    changes nothing. Who comes first has no advantage: seats are drawn among all who told their secrets.
 3. Seats follow from roll and secrets (``first_document``): there is nothing here to choose.
 4. An attempt that has waited ``answer_deadline`` in vain is called off, and the next begins. Who stayed away - told no secret,
    or had a seat and was not heard of in the later half of the wait - is not let in again before the registration deadline of
    the next ``AWAY_ATTEMPTS``, and then only if the others fill no committee. Who is there and not ready is not to blame: others
    may keep it from a quorum.
 5. Secrets, acknowledgements and readiness live in memory: nodes repeat them in answer to every announcement of the phase.
    So all deadlines begin anew with a restart.
 6. Whoever connects, at any time, is told the current phase and its content at once; everybody every second and at every
    change of phase.
 7. A peer that sends what cannot be decoded, what does not prove itself, or more than a node has to say is dropped.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct, structs

from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair, verify
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
    PhaseNotice,
    Readiness,
    ReadyQuorum,
    Registration,
    Reveal,
    Roll,
    SignedDocument,
    SignedRoll,
    ToCoordinator,
    Wish,
    commitment_to,
    first_document,
    readiness_statement,
)
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_REGISTRATIONS
from node.protocol.reports import Notable
from node.protocol.succession import Succession
from signaling.epochs import Epochs, PersistSuccession, Publish

FIRST_EPOCH = 1
MAX_MESSAGE_BYTES = 1536
"""Of a message to the coordinator: four full addresses fit; so does an opening of MAX_REGISTRATIONS in one frame."""
MAX_MESSAGES_PER_SECOND = 32
"""From one peer, counted between ticks. A node needs three."""
AWAY_ATTEMPTS = 8
"""In how many attempts who stayed away comes last. What is remembered of it is bounded by this."""


class Saved(Struct, frozen=True):
    """What the coordinator knows after a crash. ``since``: when the phase began, ms. ``content``: what it announces.
    ``away``: who stayed away, by public key, and in which attempt last. ``successions``: which began the second epoch and later
    ones."""

    attempt: int = 1
    phase: Phase = Phase.REGISTRATION
    since: int = 0
    registrations: tuple[Registration, ...] = ()
    content: Content | None = None
    away: dict[bytes, int] = {}
    successions: tuple[Succession, ...] = ()


class PersistRegistration(Struct, frozen=True):
    """Store it, in place of an earlier one by the same key."""

    registration: Registration


class PersistPhase(Struct, frozen=True):
    """Store that the phase has begun and what is announced in it: once in an attempt."""

    epoch: int
    attempt: int
    phase: Phase
    since: int
    content: Content


class PersistAttempt(Struct, frozen=True):
    """Store that an attempt begins, with registration, and who stayed away in the one before; forget that one's registrations."""

    epoch: int
    attempt: int
    since: int
    away: tuple[bytes, ...]


class SendTo(Struct, frozen=True):
    peer: bytes
    message: FromCoordinator


class Announce(Struct, frozen=True):
    """Tell every connected node, and the broker."""

    announcement: Announcement


class Drop(Struct, frozen=True):
    """Close the connection to a peer that broke the protocol."""

    peer: bytes
    reason: str


Persist = PersistRegistration | PersistPhase | PersistAttempt | PersistSuccession
Effect = Persist | SendTo | Announce | Drop | Publish | Notable


class Coordinator:
    """One network's coordinator. Every method takes the time (``now``, ms) and returns what to do, in order."""

    def __init__(self, genesis: Genesis, key: KeyPair, registration_deadline: int, answer_deadline: int, saved: Saved) -> None:
        """``registration_deadline``, ``answer_deadline``: ms, see the rules. Raises InvalidDocument if ``saved`` is damaged."""
        self._genesis, self._key = genesis, key
        self._registration_deadline, self._answer_deadline = registration_deadline, answer_deadline
        self.epoch, self.attempt = FIRST_EPOCH, saved.attempt
        self.phase, self.since, self.content = saved.phase, saved.since, saved.content
        self.registrations = {r.public_key: r for r in saved.registrations}
        self.secrets: dict[bytes, bytes] = {}
        self.acknowledged: set[bytes] = set()
        self.ready: dict[bytes, bytes] = {}
        self._heard: dict[bytes, int] = {}  # when members spoke of the document last
        self._away = dict(saved.away)
        self._is_open_to_all = False  # also to who stayed away
        self._waits_since: int | None = None
        self._spoken: dict[bytes, int] = {}  # connected peers, and how many messages each sent since the last tick
        self._announcement: Announcement | None = None
        self._epochs: Epochs | None = None
        self.announcement.check(genesis)
        if self.content is not None:
            self.content.check(genesis)
        for registration in saved.registrations:
            registration.check(genesis, FIRST_EPOCH, saved.attempt, genesis.hash)
        self._follow_epochs(saved.successions)

    @property
    def wanted(self) -> int:
        """Nodes that end registration at once, in the first attempt."""
        parameters = self._genesis.parameters
        return min(parameters.committees * parameters.committee_size, MAX_REGISTRATIONS)

    @property
    def connected(self) -> int:
        return len(self._spoken)

    @property
    def document(self) -> EpochDocument | None:
        """The attempt's document."""
        return self.content.document if isinstance(self.content, SignedDocument | Opening) else None

    @property
    def doing(self) -> str:
        """What the coordinator waits for, in a few words."""
        if self._epochs is not None:
            return self._epochs.doing
        seats = self.wanted if self.document is None else sum(len(c.members) for c in self.document.committees)
        match self.phase:
            case Phase.REGISTRATION:
                return f"waiting for nodes to register ({len(self.registrations)} of {seats})"
            case Phase.REVEAL:
                return f"waiting for nodes to tell their secrets ({len(self.secrets)} of {len(self.registrations)})"
            case Phase.ASSIGNMENT:
                return f"waiting for nodes to accept the assignment ({len(self.acknowledged)} of {seats})"
            case Phase.HANDOFF:
                return f"waiting for committees to be ready ({len(self.ready)} of {seats} nodes)"
            case _:
                return "nothing"

    @property
    def announcement(self) -> Announcement:
        """The coordinator's current word, signed."""
        if self._announcement is None:
            registered = len(self.registrations)
            notice = PhaseNotice(self._genesis.network, self.epoch, self.attempt, self.phase, self.since, registered)
            if self._epochs is not None:
                notice = self._epochs.notice
            self._announcement = Announcement(notice.signed(self._key), self.content)
        return self._announcement

    def accepts(self, peer: bytes) -> bool:
        """Whether there is room for a connection by this key."""
        return self.knows(peer) or len(self._spoken) < MAX_REGISTRATIONS

    def knows(self, peer: bytes) -> bool:
        """Whether this is the key of a node that is registered, or has a seat."""
        return peer in self.registrations or (self._epochs is not None and self._epochs.has_seat(peer))

    # -- events ----------------------------------------------------------------------------------------------------

    def connect(self, peer: bytes, now: int) -> list[Effect]:
        self._spoken[peer] = 0
        known = self.registrations.get(peer)
        back: list[Effect] = [Notable(f"{known.name} is back")] if known else []
        return [SendTo(peer, self.announcement), *back]

    def disconnect(self, peer: bytes, now: int) -> list[Effect]:
        if self._epochs is not None:
            self._epochs.gone(peer)
        if self._spoken.pop(peer, None) is None or peer not in self.registrations:
            return []
        return [Notable(f"lost {self.registrations[peer].name}")]

    def tick(self, now: int) -> list[Effect]:
        """Once a second."""
        self._spoken = dict.fromkeys(self._spoken, 0)
        later = self._epochs.tick(now) if self._epochs is not None else []
        return [*self._advance(now), *later, Announce(self.announcement)]

    def hear(self, body: bytes) -> list[Effect]:
        """A message of the broker's bulletins topic."""
        if self._epochs is None:
            return []
        before = self.announcement.notice
        effects: list[Effect] = [*self._epochs.hear(body)]
        notice = self._epochs.notice
        if notice == structs.replace(before, signature=notice.signature):
            return effects
        self._announcement = None
        is_phase = (notice.epoch, notice.attempt, notice.phase) != (before.epoch, before.attempt, before.phase)
        return [*effects, Announce(self.announcement), *([Notable(self.doing)] if is_phase else [])]

    def asked(self, ask: bytes, now: int) -> list[Effect]:
        """A message of the broker's asks topic."""
        return [*self._epochs.asked(ask, now)] if self._epochs is not None else []

    def receive(self, peer: bytes, frame: bytes, now: int) -> list[Effect]:
        """A frame from a connected peer; one that was dropped is no longer heard."""
        if peer not in self._spoken:
            return []
        self._spoken[peer] += 1
        if self._spoken[peer] > MAX_MESSAGES_PER_SECOND:
            return self._drop(peer, "too many messages")
        try:
            message: ToCoordinator = decode(ToCoordinator, frame, MAX_MESSAGE_BYTES)  # type: ignore[arg-type]  # a union
        except DecodeError as error:
            return self._drop(peer, f"not a message: {error}")
        match message:
            case Application(registration):
                return self._apply(peer, registration, now)
            case Reveal():
                return self._on_secret(peer, message, now)
            case Acknowledgement(document_hash) | Readiness(document_hash):
                if self.document is None or document_hash != self.document.hash or self.document.seat_of(peer) is None:
                    return []
                return self._on_member(peer, message, now)
            case Wish():
                if self._epochs is not None:
                    self._epochs.wish(peer, message)
                return []

    def _apply(self, peer: bytes, registration: Registration, now: int) -> list[Effect]:
        known = self.registrations.get(peer)
        if registration == known:
            return [SendTo(peer, self.announcement)]
        try:
            self._check(peer, registration)
        except InvalidDocument as error:
            return [SendTo(peer, ApplicationRefused(str(error)[:256]))]
        self.registrations[peer] = registration
        self._announcement = None
        how = "registered again" if known else f"registered ({len(self.registrations)} of {self.wanted})"
        return [
            PersistRegistration(registration),
            SendTo(peer, self.announcement),
            Notable(f"{registration.name} {how}"),
            *self._advance(now),
        ]

    def _check(self, peer: bytes, registration: Registration) -> None:
        if self.phase is not Phase.REGISTRATION:
            raise InvalidDocument(f"registration for epoch {self.epoch}, attempt {self.attempt} is closed")
        if registration.public_key != peer:
            raise InvalidDocument("the registration is another node's")
        stayed_away = self._away.get(peer)
        if stayed_away is not None and not self._is_open_to_all:
            raise InvalidDocument(f"stayed away in attempt {stayed_away}: others come first")
        if peer not in self.registrations and len(self.registrations) >= MAX_REGISTRATIONS:
            raise InvalidDocument(f"{MAX_REGISTRATIONS} nodes are registered: there is no room")
        registration.check_addresses()
        registration.check(self._genesis, self.epoch, self.attempt, self._genesis.hash)

    def _on_secret(self, peer: bytes, reveal: Reveal, now: int) -> list[Effect]:
        if self.phase is not Phase.REVEAL or reveal.attempt != self.attempt or peer not in self.registrations:
            return []
        if self.registrations[peer].commitment != commitment_to(reveal.secret):
            return self._drop(peer, "not the secret it committed to")
        self.secrets[peer] = reveal.secret
        return self._advance(now)

    def _on_member(self, peer: bytes, message: Acknowledgement | Readiness, now: int) -> list[Effect]:
        """A member's word about the attempt's document."""
        self._heard[peer] = now
        if isinstance(message, Acknowledgement):
            if self.phase is not Phase.ASSIGNMENT:
                return []
            self.acknowledged.add(peer)
        else:
            if self.phase is not Phase.HANDOFF or peer in self.ready:
                return []
            if not verify(peer, readiness_statement(message.document_hash), message.signature):
                return self._drop(peer, "its readiness is not signed")
            self.ready[peer] = message.signature
        return self._advance(now)

    def _drop(self, peer: bytes, reason: str) -> list[Effect]:
        del self._spoken[peer]
        return [Drop(peer, reason)]

    # -- phases ----------------------------------------------------------------------------------------------------

    def _advance(self, now: int) -> list[Effect]:
        """End the phase if its time has come."""
        if self._waits_since is None:
            self._waits_since = now
        waited = now - self._waits_since
        match self.phase:
            case Phase.REGISTRATION:
                return self._close_registration(waited >= self._registration_deadline, now)
            case Phase.REVEAL:
                return self._close_reveal(waited >= self._answer_deadline, now)
            case Phase.ASSIGNMENT if self._quorum_of_each(self.acknowledged):
                assert self.content is not None
                return self._enter(Phase.HANDOFF, self.content, now, f"accepted by {len(self.acknowledged)} nodes")
            case Phase.HANDOFF if self._quorum_of_each(self.ready):
                return self._enter(Phase.MINING, self._open(), now, f"{len(self.ready)} nodes ready")
            case Phase.ASSIGNMENT | Phase.HANDOFF if waited >= self._answer_deadline:
                assert self.document is not None
                members = [member for committee in self.document.committees for member in committee.members]
                lately = now - self._answer_deadline // 2
                silent = [member for member in members if self._heard.get(member.public_key, 0) < lately]
                return self._call_off([*self.document.silent, *silent], now)
        return []

    def _close_registration(self, is_late: bool, now: int) -> list[Effect]:
        count, size = len(self.registrations), self._genesis.parameters.committee_size
        if (self.attempt == 1 and count >= self.wanted) or (is_late and count >= size):
            registrations = sorted(self.registrations.values(), key=lambda registration: registration.public_key)
            roll = Roll(self._genesis.network, self.epoch, self.attempt, tuple(registrations))
            return self._enter(Phase.REVEAL, SignedRoll(roll, self._key.sign(roll.hash)), now, f"{count} nodes registered")
        if is_late:  # another term, for everybody
            self._is_open_to_all, self._waits_since = True, now
        return []

    def _close_reveal(self, is_late: bool, now: int) -> list[Effect]:
        assert isinstance(self.content, SignedRoll)
        roll = self.content.roll
        missing = [registration for registration in roll.registrations if registration.public_key not in self.secrets]
        if missing and not is_late:
            return []
        if len(self.secrets) < self._genesis.parameters.committee_size:
            return self._call_off(missing, now)
        document = first_document(self._genesis, roll, self.secrets)
        signed = SignedDocument(document, self._key.sign(document.hash))
        why = f"{len(document.committees)} committees of {len(document.committees[0].members)}"
        return self._enter(Phase.ASSIGNMENT, signed, now, why)

    def _quorum_of_each(self, said: Collection[bytes]) -> bool:
        assert self.document is not None
        electorates = self.document.electorates.values()
        return all(sum(key in said for key in e.keys) >= e.quorum for e in electorates)

    def _open(self) -> Opening:
        """The document with the signatures that put it in force."""
        assert isinstance(self.content, SignedDocument)
        quorums = []
        for electorate in self.content.document.electorates.values():
            ready = [(i, self.ready[key]) for i, key in enumerate(electorate.keys) if key in self.ready][: electorate.quorum]
            quorums.append(ReadyQuorum(tuple(i for i, _ in ready), tuple(signature for _, signature in ready)))
        return Opening(self.content, tuple(quorums))

    def _enter(self, phase: Phase, content: Content, now: int, why: str) -> list[Effect]:
        self._turn_to(phase, content, now)
        self._follow_epochs(())
        return [
            PersistPhase(self.epoch, self.attempt, phase, now, content),
            Announce(self.announcement),
            Notable(f"epoch {self.epoch}, attempt {self.attempt}: {phase} ({why})"),
        ]

    def _call_off(self, away: Collection[Registration], now: int) -> list[Effect]:
        """Begin again, without those who stayed away."""
        keys, failed = tuple(registration.public_key for registration in away), self.phase
        self._away |= dict.fromkeys(keys, self.attempt)
        self.attempt += 1
        self._away = {key: attempt for key, attempt in self._away.items() if self.attempt - attempt <= AWAY_ATTEMPTS}
        self.registrations, self.secrets, self.acknowledged, self.ready, self._heard = {}, {}, set(), {}, {}
        self._is_open_to_all = False
        self._turn_to(Phase.REGISTRATION, None, now)
        return [
            PersistAttempt(self.epoch, self.attempt, now, keys),
            Announce(self.announcement),
            Notable(f"attempt {self.attempt - 1} called off in {failed}: {len(keys)} nodes stayed away"),
        ]

    def _follow_epochs(self, successions: Iterable[Succession]) -> None:
        """Once the first document is in force."""
        if isinstance(self.content, Opening):
            self._epochs = Epochs(self._genesis, self._key, self.content.document, self.since, successions)
            self._announcement = None

    def _turn_to(self, phase: Phase, content: Content | None, now: int) -> None:
        self.phase, self.content, self.since, self._waits_since = phase, content, now, now
        self._announcement = None
