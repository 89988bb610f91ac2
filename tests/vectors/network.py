"""The network that the vectors and the fuzzers start from, and what happened in it: the bytes are the same on every machine."""

from node.protocol.address import address_of
from node.protocol.crypto import KeyPair
from node.protocol.transaction import Action, Leg
from tests.chains import Network, Shard, leg


def make() -> Network:
    return Network(
        "vectors",
        standby=1,
        terms={"VND": (3, 7)},
        block_difficulty_bits=4,
        puzzle_difficulty_bits=8,
        checkpoint_interval=2,
    )


NETWORK = make()
GENESIS, DOCUMENT, SIGNED = NETWORK.genesis, NETWORK.document, NETWORK.signed
REGISTRATIONS, NODES = NETWORK.registrations, NETWORK.nodes
COORDINATOR, DOLLAR, DONG = NETWORK.coordinator, NETWORK.issuers["USD"], NETWORK.issuers["VND"]
sign, person = NETWORK.sign, NETWORK.person


def fee(payer: KeyPair) -> Leg:
    """Of one payment in VND."""
    return leg(payer, DONG, "VND", 3)


def play() -> list[Shard]:
    """A history with everything in it: mints, payments inside and across shards, an exchange, fees, a freeze, rejections."""
    network = make()
    shards = network.shards
    alice, bob, carol, dave = (network.person(shard, number) for shard in (0, 1) for number in (0, 1))
    for asset, payee in (("USD", alice), ("VND", carol), ("USD", carol)):
        issuer = network.issuers[asset]
        network.shard_of(issuer).add(network.pay(issuer, payee, 100_000, asset))
    network.exchange()
    shards[0].add(
        network.pay(alice, bob, 2_500, memo="Lunch, café"),
        network.sign([alice, carol], leg(alice, carol, "USD", 1_000), leg(carol, alice, "VND", 25_000), fee(carol)),
        network.pay(bob, alice, 9_999_999),
    )
    shards[1].add(
        network.sign([carol], leg(carol, dave, "VND", 7), fee(carol)),
        network.sign([dave], leg(dave, carol, "USD", 1)),
        network.sign([carol], leg(carol, dave, "VND", 99_981), fee(carol)),
    )
    network.exchange()
    frozen = leg(DONG, dave, "VND", 0, Action.FREEZE)
    shards[DOCUMENT.shards.shard_of(address_of(DONG.public))].add(network.sign([DONG], frozen))
    network.exchange()
    return shards
