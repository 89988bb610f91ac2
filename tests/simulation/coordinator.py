"""The coordinator's host: the real state machine, its disk, its connections; and what a lying one would say."""

from typing import TYPE_CHECKING

from msgspec import structs

from node.network.events import Message, PeerDown, PeerUp
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import (
    Announcement,
    Content,
    EpochDocument,
    FromCoordinator,
    Opening,
    PhaseNotice,
    ReadyQuorum,
    Registration,
    Roll,
    SignedDocument,
    SignedRoll,
    first_document,
)
from node.protocol.genesis import Phase
from signaling.phases import (
    Announce,
    Coordinator,
    Drop,
    Effect,
    PersistAttempt,
    PersistPhase,
    PersistRegistration,
    Saved,
    SendTo,
)

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

KEY = KeyPair(bytes(31) + b"\x09")
LIES = (
    *("second roll", "second document", "dropped secret", "wrong assignment", "forged puzzle", "another's secret"),
    *("unsigned document", "nobody is ready", "backwards", "next attempt"),
)
_FOR_EVER = 1 << 40


class CoordinatorHost:
    """Connections are streams: in order, nothing lost while they last."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._saved = Saved()
        self._machine: Coordinator | None = None
        self._life = 0
        self._nodes: dict[bytes, Host] = {}
        self._wrong: list[SignedDocument] = []
        self._seconds: list[SignedDocument] = []
        self._signed: SignedDocument | None = None

    @property
    def has_assigned(self) -> bool:
        """Whether the document is made."""
        return self._signed is not None

    def start(self) -> None:
        self._life += 1
        life = self._life
        self._machine = Coordinator(self._world.genesis, KEY, 30_000, _FOR_EVER, self._saved)
        self._world.tell(None, "coordinator starts")
        for node in self._world.nodes:
            self.meet(node)

        def tick() -> None:
            if self._machine is not None and self._life == life:
                self._perform(self._machine.tick(self._world.time))
                self._world.after(1_000, tick)

        self._world.after(1, tick)

    def start_if_down(self) -> None:
        if self._machine is None:
            self.start()

    def crash(self) -> None:
        self._world.tell(None, "coordinator crashes")
        self._machine = None
        for node in list(self._nodes.values()):  # one may lose power as it hears of it
            node.put(PeerDown(KEY.public))
        self._nodes.clear()

    def meet(self, node: "Host") -> None:
        """A node connects, if both are there."""
        if node.is_up and self._machine is not None:
            self._nodes[node.key.public] = node
            node.later(1, lambda: node.put(PeerUp(KEY.public)) if node.key.public in self._nodes else None)
            self._perform(self._machine.connect(node.key.public, self._world.time))

    def part(self, node: "Host") -> None:
        if self._nodes.pop(node.key.public, None) is not None and self._machine is not None:
            self._perform(self._machine.disconnect(node.key.public, self._world.time))

    def hear(self, node: "Host", frame: bytes) -> None:
        life = self._life

        def arrive() -> None:
            if self._machine is not None and self._life == life and node.key.public in self._nodes:
                self._perform(self._machine.receive(node.key.public, frame, self._world.time))

        self._world.after(3, arrive)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case PersistRegistration(registration):
                    known = {r.public_key: r for r in self._saved.registrations}
                    known[registration.public_key] = registration
                    self._saved = structs.replace(self._saved, registrations=tuple(known.values()))
                case PersistPhase(_, attempt, phase, since, content):
                    self._saved = structs.replace(self._saved, attempt=attempt, phase=phase, since=since, content=content)
                    self._signed = content if isinstance(content, SignedDocument) else self._signed
                case PersistAttempt():
                    raise AssertionError("here nobody stays away for so long")
                case SendTo(peer, message):
                    self._say(peer, message)
                case Announce(announcement):
                    for peer in list(self._nodes):
                        self._say(peer, announcement)
                case Drop(peer, _):
                    self._nodes.pop(peer, None)
                case _:
                    pass

    def _say(self, peer: bytes, message: FromCoordinator) -> None:
        node = self._nodes.get(peer)
        if node is None:
            return
        if isinstance(message, Announcement) and self._world.plan.lies:
            for attempt, phase, content in self._lies_to(node, message.content):
                notice = PhaseNotice(self._world.genesis.network, 1, attempt, phase, self._world.time, 8)
                is_second = isinstance(content, SignedRoll)  # it says the other thing once the first is believed
                self._deliver(node, 6 if is_second else 2, Announcement(notice.signed(KEY), content))
        self._deliver(node, 3, message)

    def _deliver(self, node: "Host", delay: int, message: FromCoordinator) -> None:
        frame = encode(message)
        node.later(delay, lambda: node.put(Message(KEY.public, frame)) if node.key.public in self._nodes else None)

    # -- lies ------------------------------------------------------------------------------------------------------

    def _lies_to(self, node: "Host", truth: Content | None) -> list[tuple[int, Phase, Content | None]]:
        """What a node shall not believe, said before the truth is."""
        membership, lies = node.membership, self._world.plan.lies
        if membership is None or truth is None:
            return []
        if isinstance(truth, SignedRoll):
            return [(1, Phase.REVEAL, _second_roll(truth.roll))] if "second roll" in lies else []
        signed = truth.signed if isinstance(truth, Opening) else truth
        found: list[tuple[int, Phase, Content | None]] = []
        if membership.accepted is None:
            found += [(1, Phase.ASSIGNMENT, wrong) for wrong in self._broken(signed)]
        else:
            found += [(1, Phase.HANDOFF, second) for second in self._contradictions(signed)]
        if "nobody is ready" in lies:
            found += [(1, Phase.MINING, opening) for opening in _hasty(signed)]
        if "backwards" in lies:  # who lost all it had may believe that, and pledge anew
            found.append((1, Phase.REGISTRATION, None))
        if "next attempt" in lies and membership.begun:
            found.append((2, Phase.REGISTRATION, None))
        return found

    def _broken(self, signed: SignedDocument) -> list[SignedDocument]:
        """Documents that break a rule, said before the right one is known: nobody may believe them."""
        if not self._wrong:
            document, lies = signed.document, self._world.plan.lies
            first = document.committees[0]
            if "wrong assignment" in lies:
                self._wrong.append(_sign(_with_members(document, first.members[1:] + first.members[:1])))
            if "forged puzzle" in lies:
                forged = structs.replace(first.members[0], nonce=bytes(8))
                self._wrong.append(_sign(_with_members(document, (forged, *first.members[1:]))))
            if "another's secret" in lies:
                forged = structs.replace(first.members[0], commitment=first.members[1].commitment)
                self._wrong.append(_sign(_with_members(document, (forged, *first.members[1:]))))
            if "unsigned document" in lies:
                self._wrong.append(SignedDocument(document, bytes(64)))
        return self._wrong

    def _contradictions(self, signed: SignedDocument) -> list[SignedDocument]:
        """Documents as good as the one that a node accepted, which may not follow."""
        if not self._seconds:
            document, lies, genesis = signed.document, self._world.plan.lies, self._world.genesis
            told = sorted(m.public_key for committee in document.committees for m in committee.members)
            secrets = dict(zip(told, document.secrets, strict=True))
            if "second document" in lies:
                node, registrations = self._world.nodes[0], list(document.roll.registrations)
                i = told.index(node.key.public)
                moved = structs.replace(registrations[i], addresses=("/ip4/10.9.9.9/tcp/1",), signature=bytes(64))
                registrations[i] = moved.signed(node.key)
                roll = structs.replace(document.roll, registrations=tuple(registrations))
                self._seconds.append(_sign(first_document(genesis, roll, secrets)))
            if "dropped secret" in lies:
                fewer = {key: secret for key, secret in secrets.items() if key != told[0]}
                self._seconds.append(_sign(first_document(genesis, document.roll, fewer)))
        return self._seconds


def _sign(document: EpochDocument) -> SignedDocument:
    return SignedDocument(document, KEY.sign(document.hash))


def _with_members(document: EpochDocument, members: tuple[Registration, ...]) -> EpochDocument:
    """With others as the first committee."""
    first = structs.replace(document.committees[0], members=members)
    return structs.replace(document, committees=(first, *document.committees[1:]))


def _second_roll(roll: Roll) -> SignedRoll:
    """A roll that leaves one node out."""
    shorter = structs.replace(roll, registrations=roll.registrations[:-1])
    return SignedRoll(shorter, KEY.sign(shorter.hash))


def _hasty(signed: SignedDocument) -> list[Opening]:
    """The document as if it were in force: signed by whom it is not for to say, or by nobody."""
    document = signed.document
    quorums = [tuple(range(electorate.quorum)) for electorate in document.electorates.values()]
    forged = tuple(ReadyQuorum(signers, (KEY.sign(document.hash),) * len(signers)) for signers in quorums)
    return [Opening(signed, forged), Opening(signed, tuple(ReadyQuorum((), ()) for _ in quorums))]
