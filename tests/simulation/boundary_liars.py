"""Who lies while one epoch becomes the next: members, newcomers, the coordinator, and anybody at the broker."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec import structs

from node.protocol.block import Totals
from node.protocol.bulletins import Successions, decode_message
from node.protocol.change import Bulletin, RegisterPhase, Stage
from node.protocol.checkpoint import Ids, Rows
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.entries import Call, Disclosure, Enrolment, Farewell, Ready, decode_entry
from node.protocol.epoch import commitment_to
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import ChainReply, PartsReply, PeerMessage
from node.protocol.succession import Succession
from node.protocol.topics import bulletins_topic, entries_topic

if TYPE_CHECKING:
    from tests.simulation.epochs import World


class Liar:
    """An honest mind, whose words are changed on the way out."""

    def __init__(self, world: "World", key: KeyPair) -> None:
        self.world, self.key = world, key
        self._chance = Random(f"{key.public.hex()}/liar")

    def says(self, topic: str, body: bytes) -> Sequence[bytes]:
        """Over the broker, in place of ``body``."""
        label = self.world.network.genesis.network
        if topic == entries_topic(label):
            return [encode(entry) for entry in self.writes(decode_entry(body))]
        return self.tells(body) if topic == bulletins_topic(label) else [body]

    def writes(self, entry: Any) -> Sequence[Any]:
        return [entry]

    def tells(self, body: bytes) -> Sequence[bytes]:
        return [body]

    def sends(self, message: PeerMessage) -> PeerMessage:
        """To another node."""
        return message


class Silent(Liar):
    """Registers, and never tells its secret."""

    def writes(self, entry: Any) -> Sequence[Any]:
        return [] if isinstance(entry, Disclosure) else [entry]


class Late(Liar):
    """Waits and sees what others told before it tells: a moment before the time is over, or just after it."""

    def writes(self, entry: Any) -> Sequence[Any]:
        if not isinstance(entry, Disclosure):
            return [entry]
        topic, delay = entries_topic(self.world.network.genesis.network), self._chance.randint(1_000, 5_000)
        self.world.after(delay, lambda: self.world.publish(topic, encode(entry)))
        return []


class Undecided(Liar):
    """Registers, tells its secret, or a wrong one first, and then wants to leave."""

    def writes(self, entry: Any) -> Sequence[Any]:
        if not isinstance(entry, Disclosure):
            return [entry]
        wrong = structs.replace(entry, secret=bytes(32))
        label, epoch = self.world.network.genesis.network, self.world.document.number
        return [wrong, entry, Farewell(label, epoch, self.key.public).signed(self.key)]


class Twofold(Liar):
    """Registers again and again, each time bound to another secret, and tells them all."""

    def writes(self, entry: Any) -> Sequence[Any]:
        secrets = [bytes([number]) * 32 for number in range(3)]
        if isinstance(entry, Enrolment):
            own, commitments = entry.registration, map(commitment_to, secrets)
            return [*(Enrolment(structs.replace(own, commitment=c).signed(self.key)) for c in commitments), entry]
        if isinstance(entry, Disclosure):
            return [entry, *(structs.replace(entry, secret=secret) for secret in secrets)]
        return [entry]


class Unready(Liar):
    """Never says that it is ready, but for documents that nobody knows."""

    def writes(self, entry: Any) -> Sequence[Any]:
        return [Ready(bytes(32), self.key.public).signed(self.key)] if isinstance(entry, Ready) else [entry]


class Forger(Liar):
    """Tells of closing blocks, successions and entries that there are not, and passes on old ones."""

    def __init__(self, world: "World", key: KeyPair) -> None:
        super().__init__(world, key)
        self._heard: list[bytes] = []

    def tells(self, body: bytes) -> Sequence[bytes]:
        self._heard.append(body)
        message = decode_message(body)
        if isinstance(message, Bulletin):
            forged = self._forge(message)
            said: list[Any] = [_later(message), forged, Successions.of([Succession((forged,))])]
        else:
            true = [decode(Succession, encoded, MAX_FRAME_BYTES) for encoded in message.encoded]
            lies = [Succession(tuple(map(self._forge, one.closings))) for one in true]
            parts = [Succession(one.closings[1:] or one.closings * 2) for one in true]
            said = [*lies[0].closings, Successions.of(lies), Successions.of(parts)]
        return [*map(encode, said), b"junk", self._chance.choice(self._heard), body]

    def _forge(self, bulletin: Bulletin) -> Bulletin:
        change, height = bulletin.change, bulletin.header.height
        register = structs.replace(change.register, phase=RegisterPhase.CLOSED) if change.register is not None else None
        closed = {"stage": Stage.CLOSED, "document": bytes(32), "closed": height, "totals": Totals((), 0), "register": register}
        forged = structs.replace(change, **closed)
        if self._chance.random() < 0.5:
            return structs.replace(bulletin, change=forged)
        return structs.replace(bulletin, change=forged, header=structs.replace(bulletin.header, change_hash=forged.hash))

    def writes(self, entry: Any) -> Sequence[Any]:
        other = self._chance.choice(self.world.hosts).key.public
        forged: list[Any] = [entry]
        if isinstance(entry, Enrolment):
            forged.append(Enrolment(structs.replace(entry.registration, public_key=other)))
            forged.append(Enrolment(structs.replace(entry.registration, nonce=bytes(8)).signed(self.key)))
        document = self.world.document
        forged += [Farewell(document.network, document.number, other), Disclosure(document.attempt, other, bytes(32))]
        prospects = {host.node.chronicle.prospect for host in self.world.hosts if host.node is not None} - {None}
        forged += [Ready(one.hash, other) for one in prospects if one is not None]
        forged.append(Call(document.network, document.number, 1))
        return forged


def _later(bulletin: Bulletin) -> Bulletin:
    """All as it is, but for the time."""
    return structs.replace(bulletin, header=structs.replace(bulletin.header, time=bulletin.header.time + 1))


class Junk(Liar):
    """Serves states and blocks that are not what was asked for."""

    def sends(self, message: PeerMessage) -> PeerMessage:
        match message:
            case PartsReply(height, parts):
                return PartsReply(height, tuple(_spoiled(part) for part in parts))
            case ChainReply(blocks) if len(blocks) > 1:
                return ChainReply((*blocks[:-1], structs.replace(blocks[-1], block=blocks[0].block)))
        return message


def _spoiled(part: Any) -> Any:
    match part:
        case Rows(_, rows) if rows:
            return structs.replace(part, rows=((rows[0][0], rows[0][1] + b"\0"), *rows[1:]))
        case Ids(_, ids) if ids:
            return structs.replace(part, ids=ids[::-1])
    return part


class Mute(Liar):
    """Tells nobody how far the change is."""

    def tells(self, body: bytes) -> Sequence[bytes]:
        return []


LIARS: dict[str, Callable[["World", KeyPair], Liar]] = {
    "silent": Silent,
    "late": Late,
    "undecided": Undecided,
    "twofold": Twofold,
    "unready": Unready,
    "forger": Forger,
    "junk": Junk,
    "mute": Mute,
}
LOSES_SEAT = {"silent", "late", "undecided", "twofold"}
"""May have no seat in the next epoch."""


def call(world: "World", until: Callable[[], bool], raging: bool, pace: int = 1_000) -> None:
    """The coordinator's part: it calls for the change every ``pace`` ms. ``raging``: ten times a second, for any epoch and
    attempt."""
    if not until():
        document, chance = world.document, world.chance
        known = [host.node.chronicle.register for host in world.hosts if host.node is not None]
        attempt = max((one.change.attempt for one in known if one is not None), default=1)
        epoch, coordinator = document.number, world.network.coordinator
        calls = [Call(document.network, epoch, attempt).signed(coordinator)]
        if raging:
            calls.append(Call(document.network, epoch + chance.randint(-1, 2), chance.randint(1, 3)).signed(coordinator))
            calls.append(Call(document.network, epoch, attempt + 1).signed(coordinator))
        for one in calls:
            if one.epoch > 0:
                world.publish(entries_topic(document.network), encode(one))
        world.after(100 if raging else pace, lambda: call(world, until, raging, pace))
