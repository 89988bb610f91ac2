"""Random histories of a network over several epochs: who registers, who tells, and what the shards say of their loads.

Nothing is signed and no puzzle solved: a document follows from what the register has written down, whoever checked it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hypothesis import strategies as st
from msgspec.structs import replace

from node.protocol.assignment import next_document
from node.protocol.change import Register, RegisterPhase
from node.protocol.crypto import digest
from node.protocol.epoch import EpochDocument, Registration, Roll, commitment_to, first_document
from node.protocol.genesis import Asset, Genesis, Parameters
from tests.chains import key

NETWORK = bytes(8)


def registration(node: int, epoch: int, attempt: int = 1) -> Registration:
    """Of the node with this number."""
    public = b"\x02" + digest("test node", node.to_bytes(8, "big"))
    commitment = commitment_to(secret_of(public, epoch))
    return Registration(NETWORK, epoch, attempt, public, f"node-{node}", ("/ip4/192.0.2.1/tcp/1",), bytes(8), commitment)


def secret_of(public_key: bytes, epoch: int) -> bytes:
    return digest("test secret", public_key, epoch.to_bytes(8, "big"))


def first(committees: int, size: int, nodes: int) -> EpochDocument:
    """Of epoch 1, by nodes 0 up to ``nodes``."""
    parameters = Parameters(committees=committees, committee_size=size)
    issuer = key("issuer").public.hex()
    genesis = Genesis(name="test", time=0, coordinator=issuer, assets=(Asset("USD", 2, issuer),), parameters=parameters)
    registrations = sorted((registration(node, 1) for node in range(nodes)), key=lambda r: r.public_key)
    roll = Roll(NETWORK, 1, 1, tuple(registrations))
    document = first_document(genesis, roll, {r.public_key: secret_of(r.public_key, 1) for r in registrations})
    return replace(document, network=NETWORK)


def register_of(
    epoch: int, nodes: Iterable[int], silent: Iterable[int] = (), loads: Mapping[int, int] = {}, attempt: int = 1
) -> Register:
    """What the register has written down for ``epoch`` after phase reveal: all ``nodes`` registered, and told but the silent."""
    registrations = {node: registration(node, epoch, attempt) for node in nodes}
    told = sorted(registrations[node].public_key for node in registrations.keys() - set(silent))
    return Register(
        phase=RegisterPhase.HANDOFF,
        since=0,
        not_before=0,
        registrations=tuple(sorted(registrations.values(), key=lambda r: r.public_key)),
        secrets=tuple((public, secret_of(public, epoch)) for public in told),
        loads=tuple(sorted(loads.items())),
    )


class Step(NamedTuple):
    """One change of epochs."""

    previous: EpochDocument
    register: Register
    document: EpochDocument


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[Step]]:
    """The size of committees, and up to five changes: nodes come, leave and fall silent, never too many for a next document."""
    size, committees = draw(st.sampled_from([1, 2, 4, 4, 4, 5, 7])), draw(st.integers(1, 5))
    nodes, steps = size * committees + draw(st.integers(0, 3)), []
    document, there = first(committees, size, nodes), set(range(nodes))
    for _ in range(draw(st.integers(1, 5))):
        fewest = (len(document.committees) + 1) // 2 * size
        there |= set(range(nodes, nodes := nodes + draw(st.integers(0, 2 * size))))
        leaving = draw(st.lists(st.sampled_from(sorted(there)), unique=True, max_size=max(len(there) - fewest, 0)))
        quiet = draw(st.integers(0, len(leaving)))
        there -= set(leaving[quiet:])
        loads = draw(st.dictionaries(st.sampled_from(document.shards.shards), st.integers(0, 3)))
        register = register_of(document.number + 1, there, leaving[:quiet], loads)
        following = next_document(document, register, 1, Parameters(committee_size=size))
        steps.append(Step(document, register, following))
        document = following
    return size, steps
