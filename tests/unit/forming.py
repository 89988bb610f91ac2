"""A coordinator that forms the first epoch, and what eight nodes say to it."""

from collections.abc import Iterable

from msgspec.structs import replace

from node.protocol.codec import encode
from node.protocol.epoch import (
    Acknowledgement,
    Application,
    ApplicationRefused,
    Readiness,
    Registration,
    Reveal,
    ToCoordinator,
    first_document,
    readiness_statement,
)
from node.protocol.puzzle import identity_prefix, is_solution
from node.protocol.reports import Notable
from signaling.phases import (
    Announce,
    Coordinator,
    Effect,
    PersistPhase,
    Saved,
    SendTo,
)
from tests.chains import Network

NETWORK = Network(standby=4, puzzle_difficulty_bits=6)
GENESIS, KEY, REGISTRATIONS = NETWORK.genesis, NETWORK.coordinator, NETWORK.registrations
NODES = list(NETWORK.nodes.values())
DEADLINE, ANSWER = 60_000, 30_000
NEW = Saved()
ROLL = NETWORK.sign_roll(NETWORK.roll_of(REGISTRATIONS[:8]))
DOCUMENT = first_document(GENESIS, ROLL.roll, NETWORK.secrets)
SIGNED, OPENING = NETWORK.sign_document(DOCUMENT), NETWORK.open_document(DOCUMENT)
MEMBERS = [member.public_key for committee in DOCUMENT.committees for member in committee.members]
QUORUMS = [member.public_key for committee in DOCUMENT.committees for member in committee.members[:3]]
ACCEPTED = Acknowledgement(DOCUMENT.hash)
ENTERED = [PersistPhase, Announce, Notable]


def coordinator(saved: Saved = NEW) -> Coordinator:
    return Coordinator(GENESIS, KEY, DEADLINE, ANSWER, saved)


def say(c: Coordinator, peers: Iterable[bytes], message: ToCoordinator, now: int = 1) -> list[Effect]:
    """What comes of each of ``peers`` connecting and saying the same."""
    effects: list[Effect] = []
    for peer in peers:
        c.connect(peer, now)
        effects += c.receive(peer, encode(message), now)
    return effects


def apply(c: Coordinator, index: int, what: Registration | None = None, now: int = 1) -> list[Effect]:
    return say(c, [NODES[index].public], Application(what or REGISTRATIONS[index]), now)


def tell(c: Coordinator, peers: Iterable[bytes], now: int = 1) -> list[Effect]:
    """They tell their secrets."""
    return [effect for peer in peers for effect in say(c, [peer], Reveal(c.attempt, NETWORK.secrets[peer]), now)]


def readiness(peer: bytes, document: bytes = DOCUMENT.hash) -> Readiness:
    return Readiness(document, NETWORK.nodes[peer].sign(readiness_statement(document)))


def get_ready(c: Coordinator, peers: Iterable[bytes], now: int = 1) -> list[Effect]:
    assert c.document is not None
    return [effect for peer in peers for effect in say(c, [peer], readiness(peer, c.document.hash), now)]


def kinds(effects: Iterable[object]) -> list[type]:
    return [type(effect) for effect in effects]


def refusal(effects: list[Effect]) -> str:
    """The reason in the only effect."""
    (effect,) = effects
    return effect.message.reason if isinstance(effect, SendTo) and isinstance(effect.message, ApplicationRefused) else ""


def closed() -> Coordinator:
    """Registration is over."""
    c = coordinator()
    for i in range(8):
        apply(c, i)
    assert c.content == ROLL
    return c


def assigned() -> Coordinator:
    c = closed()
    tell(c, MEMBERS)
    assert c.content == SIGNED
    return c


def changed(**fields: object) -> Registration:
    """Node 0's registration, with its signature."""
    return replace(REGISTRATIONS[0], **fields).signed(NODES[0])


def unsolved() -> bytes:
    prefix, numbers = identity_prefix(GENESIS.network, 1, GENESIS.hash, NODES[0].public), range(1 << 16)
    return next(nonce for n in numbers if not is_solution(prefix, nonce := n.to_bytes(8, "big"), 6))


def again(index: int, attempt: int = 2) -> Registration:
    return NETWORK.register(index, NODES[index], attempt)
