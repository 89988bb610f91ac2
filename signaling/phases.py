"""The coordinator as a pure state machine: what nodes send and time goes in, effects come out. All its rules are here.

| phase        | what happens                                              | ends when                                          |
|--------------|-----------------------------------------------------------|----------------------------------------------------|
| registration | nodes mine their identity puzzle and apply                | all wanted nodes are registered; or the deadline is |
|              |                                                           | past and they fill at least one committee          |
| assignment   | the document is published; nodes recompute and accept it  | a quorum of every committee acknowledged it        |
| handoff      | members fetch their shard's state and find each other     | a quorum of every committee is ready               |
| mining       | committees finalize blocks; the coordinator only announces | (this version knows one epoch)                     |

``Phase.SETTLEMENT`` is where a later version drains an epoch before the next begins.

Rules:
 1. Persist before publish: in every list of effects, what must survive a crash comes before what tells of it. A document
    is stored before it leaves, and storage holds one per epoch, so no two documents of an epoch are ever seen.
 2. A registration counts if its sender is its key, its puzzle is solved, its signature is good, its name is free and its
    addresses can be dialed. A node may register again, to move, until the phase ends. What breaks a rule is refused, with
    the reason, and changes nothing.
 3. Seats follow from the registrations (``first_document``): there is nothing here to choose.
 4. Acknowledgements and readiness live in memory: nodes repeat them in answer to every announcement of the phase.
 5. Whoever connects, at any time, is told the current phase and document at once; everybody every second and at every
    change of phase.
 6. A peer that sends what cannot be decoded, contradicts the document, or says more than a node has to say is dropped.
"""

import re

from msgspec import Struct

from node.protocol.codec import DecodeError, decode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import (
    Acknowledgement,
    Announcement,
    Application,
    ApplicationRefused,
    FromCoordinator,
    InvalidDocument,
    PhaseNotice,
    Readiness,
    Registration,
    SignedDocument,
    ToCoordinator,
    first_document,
)
from node.protocol.genesis import Genesis, Phase
from node.protocol.reports import Notable

FIRST_EPOCH = 1
MAX_REGISTRATIONS = 4096
MAX_MESSAGE_BYTES = 1536
"""Of a message to the coordinator: four full addresses fit; so does a document of MAX_REGISTRATIONS in one frame."""
MAX_MESSAGES_PER_SECOND = 32
"""From one peer, counted between ticks. A node needs two."""

_DIALABLE = re.compile(r"/(ip4/(?!0\.0\.0\.0/)|ip6/(?!::/)|dns[46]?/)[0-9A-Za-z.:-]+/tcp/[1-9][0-9]{0,4}")


class Saved(Struct, frozen=True):
    """What the coordinator knows after a crash. ``since``: when the phase began, ms."""

    phase: Phase
    since: int
    registrations: tuple[Registration, ...] = ()
    document: SignedDocument | None = None


class PersistRegistration(Struct, frozen=True):
    """Store it, in place of an earlier one by the same key."""

    registration: Registration


class PersistPhase(Struct, frozen=True):
    """Store phase and, when it came with the phase, the epoch's document: one transaction."""

    epoch: int
    phase: Phase
    since: int
    document: SignedDocument | None


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


Persist = PersistRegistration | PersistPhase
Effect = Persist | SendTo | Announce | Drop | Notable


class Coordinator:
    """One network's coordinator. Every method takes the time (``now``, ms) and returns what to do, in order."""

    def __init__(self, genesis: Genesis, key: KeyPair, registration_deadline: int, saved: Saved) -> None:
        """``registration_deadline``: ms from the start of registration. Raises InvalidDocument if ``saved`` is damaged."""
        if saved.document is not None:
            saved.document.check(genesis)
        if (saved.document is None) != (saved.phase is Phase.REGISTRATION):
            raise InvalidDocument(f"phase {saved.phase} does not go with what is stored")
        for registration in saved.registrations:
            registration.check(genesis, FIRST_EPOCH, genesis.hash)
        self._genesis, self._key, self._deadline = genesis, key, registration_deadline
        self.epoch = FIRST_EPOCH
        self.phase, self.since, self.document = saved.phase, saved.since, saved.document
        self.registrations = {r.public_key: r for r in saved.registrations}
        self.acknowledged: set[bytes] = set()
        self.ready: set[bytes] = set()
        self._spoken: dict[bytes, int] = {}  # connected peers, and how many messages each sent since the last tick
        self._announcement: Announcement | None = None

    @property
    def wanted(self) -> int:
        """Nodes that end registration at once."""
        parameters = self._genesis.parameters
        return min(parameters.committees * parameters.committee_size, MAX_REGISTRATIONS)

    @property
    def connected(self) -> int:
        return len(self._spoken)

    @property
    def doing(self) -> str:
        """What the coordinator waits for, in a few words."""
        seats = self.wanted if self.document is None else sum(len(c.members) for c in self.document.document.committees)
        if self.phase is Phase.REGISTRATION:
            return f"waiting for nodes to register ({len(self.registrations)} of {seats})"
        if self.phase is Phase.ASSIGNMENT:
            return f"waiting for nodes to accept the assignment ({len(self.acknowledged)} of {seats})"
        if self.phase is Phase.HANDOFF:
            return f"waiting for committees to be ready ({len(self.ready)} of {seats} nodes)"
        return f"epoch {self.epoch} is mining"

    @property
    def announcement(self) -> Announcement:
        """The coordinator's current word, signed."""
        if self._announcement is None:
            notice = PhaseNotice(self._genesis.network, self.epoch, self.phase, self.since, len(self.registrations))
            self._announcement = Announcement(notice.signed(self._key), self.document)
        return self._announcement

    def accepts(self, peer: bytes) -> bool:
        """Whether there is room for a connection by this key."""
        return peer in self.registrations or len(self._spoken) < MAX_REGISTRATIONS

    def connect(self, peer: bytes, now: int) -> list[Effect]:
        self._spoken[peer] = 0
        known = self.registrations.get(peer)
        back: list[Effect] = [Notable(f"{known.name} is back")] if known else []
        return [SendTo(peer, self.announcement), *back]

    def disconnect(self, peer: bytes, now: int) -> list[Effect]:
        if self._spoken.pop(peer, None) is None or peer not in self.registrations:
            return []
        return [Notable(f"lost {self.registrations[peer].name}")]

    def tick(self, now: int) -> list[Effect]:
        """Once a second."""
        self._spoken = dict.fromkeys(self._spoken, 0)
        return [*self._advance(now), Announce(self.announcement)]

    def receive(self, peer: bytes, frame: bytes, now: int) -> list[Effect]:
        """A frame from a connected peer; one that was dropped is no longer heard."""
        if peer not in self._spoken:
            return []
        self._spoken[peer] += 1
        if self._spoken[peer] > MAX_MESSAGES_PER_SECOND:
            return self._drop(peer, "too many messages")
        try:
            message: ToCoordinator = decode(ToCoordinator, frame, MAX_MESSAGE_BYTES)  # type: ignore[arg-type]
        except DecodeError as error:
            return self._drop(peer, f"not a message: {error}")
        match message:
            case Application(registration):
                return self._apply(peer, registration, now)
            case Acknowledgement(epoch, document_hash):
                if self.document is None or (epoch, document_hash) != (self.epoch, self.document.document.hash):
                    return self._drop(peer, "acknowledges a document that was never published")
                return self._count(peer, Phase.ASSIGNMENT, self.acknowledged, now)
            case Readiness(epoch):
                if self.document is None or epoch != self.epoch:
                    return self._drop(peer, "ready for an epoch that is not assigned")
                return self._count(peer, Phase.HANDOFF, self.ready, now)

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
            raise InvalidDocument(f"registration for epoch {self.epoch} is closed")
        if registration.public_key != peer:
            raise InvalidDocument("the registration is another node's")
        if any(r.name == registration.name and r.public_key != peer for r in self.registrations.values()):
            raise InvalidDocument(f"the name {registration.name} is taken")
        for address in registration.addresses:
            if not _DIALABLE.fullmatch(address):
                raise InvalidDocument(f"nobody can dial {address}: advertise /ip4/ADDRESS/tcp/PORT")
        registration.check(self._genesis, self.epoch, self._genesis.hash)

    def _count(self, peer: bytes, phase: Phase, said: set[bytes], now: int) -> list[Effect]:
        """Take note of a member's word, if it is one and this is the phase for it."""
        if self.phase is not phase or peer in said or self.document is None or self.document.document.seat_of(peer) is None:
            return []
        said.add(peer)
        return self._advance(now)

    def _advance(self, now: int) -> list[Effect]:
        """End the phase if its time has come."""
        if self.phase is Phase.REGISTRATION:
            late = now >= self.since + self._deadline
            if len(self.registrations) >= (self._genesis.parameters.committee_size if late else self.wanted):
                document = first_document(self._genesis, list(self.registrations.values()))
                self.document = SignedDocument(document, self._key.sign(document.hash))
                committees = len(document.committees)
                return self._enter(Phase.ASSIGNMENT, now, f"{committees} committees of {len(document.committees[0].members)}")
        elif self.phase is Phase.ASSIGNMENT and self._quorum_of_each(self.acknowledged):
            return self._enter(Phase.HANDOFF, now, f"accepted by {len(self.acknowledged)} nodes")
        elif self.phase is Phase.HANDOFF and self._quorum_of_each(self.ready):
            return self._enter(Phase.MINING, now, f"{len(self.ready)} nodes ready")
        return []

    def _quorum_of_each(self, said: set[bytes]) -> bool:
        assert self.document is not None
        electorates = self.document.document.electorates.values()
        return all(sum(key in said for key in e.keys) >= e.quorum for e in electorates)

    def _enter(self, phase: Phase, now: int, why: str) -> list[Effect]:
        self.phase, self.since, self._announcement = phase, now, None
        document = self.document if phase is Phase.ASSIGNMENT else None
        return [
            PersistPhase(self.epoch, phase, now, document),
            Announce(self.announcement),
            Notable(f"epoch {self.epoch}: {phase} ({why})"),
        ]

    def _drop(self, peer: bytes, reason: str) -> list[Effect]:
        del self._spoken[peer]
        return [Drop(peer, reason)]
