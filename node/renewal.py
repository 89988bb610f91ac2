"""Renewal: what a node does for a seat in the next epoch, and to have none.

    phase of the register   the node says, again and again until it is written down
    registration            mines its identity puzzle, once per epoch; persists a new secret for the attempt, then enrols; who
                            is written down with another secret, of a lost disk, or has left, waits for the next
    reveal                  its secret, if its registration is on the list as it pledged it
    handoff                 that it is ready, once it is
    any                     farewell, if it is to leave; then it does not register, but says that it is ready, if it has a seat
                            already: that it keeps for an epoch

Nobody answers: what was written down is seen in the register's bulletins. Pure.
"""

from node.chronicle import Chronicle
from node.effects import Mine, Pledge, Publish
from node.protocol.change import Bulletin, Register, RegisterPhase
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair, digest
from node.protocol.entries import Disclosure, Enrolment, Entry, Farewell, Ready
from node.protocol.epoch import EpochDocument, Registration, Want, Wish, commitment_to
from node.protocol.genesis import Genesis
from node.protocol.puzzle import identity_prefix
from node.protocol.topics import entries_topic

SAY_INTERVAL = 3_000
"""Between two times the same is said, ms."""
_NEVER = 1 << 62
_NOTHING = Register(RegisterPhase.REGISTRATION, 0, 0)
"""What a register has written down that has written down nothing yet."""


class Renewal:
    """``entropy``: 32 random bytes, new with each start. ``pledge``: the latest on this disk. Times are monotonic milliseconds.

    Attributes:
        pledge: what this node is bound to in the latest attempt it took part in.
        deadline: when ``act`` is to be called again, if nothing is heard before.
    """

    def __init__(
        self, genesis: Genesis, key: KeyPair, name: str, addresses: tuple[str, ...], entropy: bytes, pledge: Pledge | None
    ) -> None:
        self._genesis, self._key, self._name, self._addresses = genesis, key, name, addresses
        self._entropy = entropy
        self.pledge = pledge
        self._nonces: dict[int, bytes | None] = {}
        """By epoch: None while the puzzle is being solved."""
        self._is_leaving = False
        self._said: tuple[type[Entry], int, int] | None = None
        self._said_at = 0
        self.deadline = _NEVER

    def leave(self) -> None:
        """This node wants no seat any more, as long as it runs."""
        self._is_leaving = True

    def wish(self, document: EpochDocument, may_vote: bool) -> Wish | None:
        """What the coordinator is to know: it is a reason to end the epoch, whose document this is. To be said again and again.
        ``may_vote``: whether this node's votes count in it."""
        if document.seat_of(self._key.public) is None:
            return None if self._is_leaving else Wish(document.number, Want.JOIN)
        if self._is_leaving:
            return Wish(document.number, Want.LEAVE)
        return None if may_vote else Wish(document.number, Want.SIT_OUT)

    def solved(self, epoch: int, nonce: bytes) -> None:
        """The answer to ``Mine``, whose token is the epoch."""
        if epoch in self._nonces:
            self._nonces[epoch] = nonce

    def act(self, chronicle: Chronicle, ready_for: bytes, now: int) -> list[Mine | Pledge | Publish]:
        """What is to be done now. ``ready_for``: hash of the next document, once this node could work under it."""
        document, bulletin = chronicle.document, chronicle.register
        self.deadline = _NEVER
        if document is None or bulletin is None:
            return []
        prepared = [] if self._is_leaving else self._prepare(document, bulletin)
        entry = self._wanted(document, bulletin, ready_for)
        return [*prepared, *(self._say(entry, bulletin, now) if entry is not None else [])]

    def _prepare(self, document: EpochDocument, bulletin: Bulletin) -> list[Mine | Pledge | Publish]:
        """What comes before an enrolment: the puzzle, and the pledge."""
        if (bulletin.change.register or _NOTHING).phase is not RegisterPhase.REGISTRATION:
            return []
        epoch, attempt = document.number + 1, bulletin.change.attempt
        if epoch not in self._nonces:
            self._nonces = {epoch: None}
            prefix = identity_prefix(document.network, epoch, document.hash, self._key.public)
            return [Mine(epoch, prefix, self._genesis.parameters.puzzle_difficulty_bits)]
        bound_to = (self.pledge.epoch, self.pledge.attempt) if self.pledge is not None else (0, 0)
        if self._nonces[epoch] is None or (epoch, attempt) <= bound_to:  # what is heard after a start may be old
            return []
        secret = digest("secret", self._entropy, epoch.to_bytes(8, "big"), attempt.to_bytes(8, "big"))
        self.pledge = Pledge(attempt=attempt, secret=secret, epoch=epoch)
        return [self.pledge]

    def _has_pledged(self, epoch: int, attempt: int) -> bool:
        return self.pledge is not None and (self.pledge.epoch, self.pledge.attempt) == (epoch, attempt)

    def _wanted(self, document: EpochDocument, bulletin: Bulletin, ready_for: bytes) -> Entry | None:
        """What is to be written down, and is not."""
        written, attempt, me = bulletin.change.register or _NOTHING, bulletin.change.attempt, self._key.public
        own = next((registration for registration in written.registrations if registration.public_key == me), None)
        if written.phase is RegisterPhase.HANDOFF and ready_for and me not in written.ready:
            return Ready(ready_for, me).signed(self._key)
        if self._is_leaving:
            is_in = own is not None or document.seat_of(me) is not None
            may_say = is_in and me not in written.farewells and written.phase is not RegisterPhase.CLOSED
            return Farewell(document.network, document.number, me).signed(self._key) if may_say else None
        if self.pledge is None or not self._has_pledged(document.number + 1, attempt):
            return None
        is_as_pledged = own is not None and own.commitment == commitment_to(self.pledge.secret)
        if written.phase is RegisterPhase.REGISTRATION:
            may_enrol = own is None and me not in written.farewells
            return self._enrolment(document, self.pledge) if may_enrol else None
        if written.phase is RegisterPhase.REVEAL and is_as_pledged and all(key != me for key, _ in written.secrets):
            return Disclosure(attempt, me, self.pledge.secret)
        return None

    def _enrolment(self, document: EpochDocument, pledge: Pledge) -> Enrolment | None:
        nonce = self._nonces.get(pledge.epoch)
        if nonce is None:
            return None
        registration = Registration(
            network=document.network,
            epoch=pledge.epoch,
            attempt=pledge.attempt,
            public_key=self._key.public,
            name=self._name,
            addresses=self._addresses,
            nonce=nonce,
            commitment=commitment_to(pledge.secret),
        )
        return Enrolment(registration.signed(self._key))

    def _say(self, entry: Entry, bulletin: Bulletin, now: int) -> list[Publish]:
        """The entry, unless it was said a moment ago."""
        said = (type(entry), bulletin.epoch, bulletin.change.attempt)
        if said == self._said and now - self._said_at < SAY_INTERVAL:
            self.deadline = self._said_at + SAY_INTERVAL
            return []
        self._said, self._said_at, self.deadline = said, now, now + SAY_INTERVAL
        return [Publish(entries_topic(self._genesis.network), encode(entry))]
