"""Entries for the register of a test network's first epoch."""

from msgspec import structs

from node.protocol.crypto import KeyPair
from node.protocol.entries import Call, Disclosure, Enrolment, Farewell, Ready
from node.protocol.epoch import EpochDocument
from tests.chains import Network
from tests.successions import enrolled, secret_of


def enrolment(network: Network, node: KeyPair, attempt: int = 1, name: str = "node") -> Enrolment:
    return Enrolment(structs.replace(enrolled(network, network.document, node, attempt), name=name).signed(node))


def farewell(network: Network, node: KeyPair) -> Farewell:
    return Farewell(network.genesis.network, 1, node.public).signed(node)


def disclosure(node: KeyPair, attempt: int = 1) -> Disclosure:
    return Disclosure(attempt, node.public, secret_of(node.public, 2))


def ready(document: EpochDocument, node: KeyPair) -> Ready:
    return Ready(document.hash, node.public).signed(node)


def call(network: Network, attempt: int = 1) -> Call:
    return Call(network.genesis.network, 1, attempt).signed(network.coordinator)
