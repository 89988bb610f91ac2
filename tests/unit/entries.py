"""Entries for the register of a test network's first epoch."""

from node.protocol.crypto import KeyPair, digest
from node.protocol.entries import Call, Disclosure, Enrolment, Farewell, Ready
from node.protocol.epoch import EpochDocument, Registration, commitment_to
from node.protocol.puzzle import identity_prefix, search
from tests.chains import Network


def secret_of(node: KeyPair, salt: int = 0) -> bytes:
    return digest("test vector", b"next secret", node.public, salt.to_bytes(2, "big"))


def enrolment(network: Network, node: KeyPair, attempt: int = 1, salt: int = 0) -> Enrolment:
    """For the second epoch."""
    challenge = network.document.hash
    prefix = identity_prefix(network.genesis.network, 2, challenge, node.public)
    nonce = search(prefix, network.genesis.parameters.puzzle_difficulty_bits, 0, 1 << 20)
    assert nonce is not None
    registration = Registration(
        network=network.genesis.network,
        epoch=2,
        attempt=attempt,
        public_key=node.public,
        name=f"node-{node.public.hex()[:8]}",
        addresses=("/ip4/192.0.2.1/tcp/8100",),
        nonce=nonce,
        commitment=commitment_to(secret_of(node, salt)),
    )
    return Enrolment(registration.signed(node))


def farewell(network: Network, node: KeyPair) -> Farewell:
    return Farewell(network.genesis.network, 1, node.public).signed(node)


def disclosure(node: KeyPair, attempt: int = 1) -> Disclosure:
    return Disclosure(attempt, node.public, secret_of(node))


def ready(document: EpochDocument, node: KeyPair) -> Ready:
    return Ready(document.hash, node.public).signed(node)


def call(network: Network, attempt: int = 1) -> Call:
    return Call(network.genesis.network, 1, attempt).signed(network.coordinator)
