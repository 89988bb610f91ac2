"""The coordinator's host: the real state machine, its disk, its connections; and what a lying one would say."""

from typing import TYPE_CHECKING

from msgspec import structs

from node.network.events import Message, PeerDown, PeerUp
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import (
    Announcement,
    EpochDocument,
    FromCoordinator,
    PhaseNotice,
    Registration,
    SignedDocument,
    first_document,
)
from node.protocol.genesis import Phase
from signaling.phases import Announce, Coordinator, Drop, Effect, PersistPhase, PersistRegistration, Saved, SendTo

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

KEY = KeyPair(bytes(31) + b"\x09")
LIES = ("second document", "wrong assignment", "forged puzzle", "unsigned document", "backwards")


class CoordinatorHost:
    """Connections are streams: in order, nothing lost while they last."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._saved = Saved(Phase.REGISTRATION, 0)
        self._machine: Coordinator | None = None
        self._life = 0
        self._nodes: dict[bytes, Host] = {}
        self._wrong: list[SignedDocument] = []
        self._second: SignedDocument | None = None

    def start(self) -> None:
        self._life += 1
        life = self._life
        self._machine = Coordinator(self._world.genesis, KEY, 30_000, self._saved)
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
        for node in self._nodes.values():
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
                case PersistPhase(_, phase, since, document):
                    document = document or self._saved.document
                    self._saved = structs.replace(self._saved, phase=phase, since=since, document=document)
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
        if isinstance(message, Announcement) and message.document is not None and self._world.plan.lies:
            accepted = node.membership is not None and node.membership.signed is not None
            for lie in self._contradictions(message.document) if accepted else self._broken(message.document):
                notice = lie[0].signed(KEY)
                self._deliver(node, 2, Announcement(notice, lie[1]))
        self._deliver(node, 3, message)

    def _deliver(self, node: "Host", delay: int, message: FromCoordinator) -> None:
        frame = encode(message)
        node.later(delay, lambda: node.put(Message(KEY.public, frame)) if node.key.public in self._nodes else None)

    # -- lies ------------------------------------------------------------------------------------------------------

    def _notice(self, phase: Phase) -> PhaseNotice:
        return PhaseNotice(self._world.genesis.network, 1, phase, self._world.time, 8)

    def _broken(self, signed: SignedDocument) -> list[tuple[PhaseNotice, SignedDocument | None]]:
        """Documents that break a rule, said before the right one is known: nobody may believe them."""
        if not self._wrong:
            document, lies = signed.document, self._world.plan.lies
            first = document.committees[0]
            if "wrong assignment" in lies:
                swapped = structs.replace(first, members=first.members[1:] + first.members[:1])
                wrong = structs.replace(document, committees=(swapped, *document.committees[1:]))
                self._wrong.append(SignedDocument(wrong, KEY.sign(wrong.hash)))
            if "forged puzzle" in lies:
                forged = structs.replace(first.members[0], nonce=bytes(8))
                wrong = first_document(self._world.genesis, [forged, *_registrations(document)[1:]])
                self._wrong.append(SignedDocument(wrong, KEY.sign(wrong.hash)))
            if "unsigned document" in lies:
                self._wrong.append(SignedDocument(document, bytes(64)))
        return [(self._notice(Phase.ASSIGNMENT), wrong) for wrong in self._wrong]

    def _contradictions(self, signed: SignedDocument) -> list[tuple[PhaseNotice, SignedDocument | None]]:
        """What contradicts the document that a node accepted: it may not follow."""
        found: list[tuple[PhaseNotice, SignedDocument | None]] = []
        if "second document" in self._world.plan.lies:
            if self._second is None:
                node, registrations = self._world.nodes[0], _registrations(signed.document)
                i = next(i for i, r in enumerate(registrations) if r.public_key == node.key.public)
                moved = structs.replace(registrations[i], addresses=("/ip4/10.9.9.9/tcp/1",), signature=bytes(64))
                registrations[i] = moved.signed(node.key)
                document = first_document(self._world.genesis, registrations)
                self._second = SignedDocument(document, KEY.sign(document.hash))
            found.append((self._notice(Phase.MINING), self._second))
        if "backwards" in self._world.plan.lies:
            found.append((self._notice(Phase.REGISTRATION), None))
        return found


def _registrations(document: EpochDocument) -> list[Registration]:
    return [m for c in document.committees for m in c.members] + list(document.standby)
