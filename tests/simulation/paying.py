"""Clients of a large network: so many payments under way in each shard, and a new one for each that is done."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from random import Random

from msgspec import Struct

from node.protocol.block import Outcome
from node.protocol.certificate import CertifiedBlock
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_LEGS
from tests.chains import TIME, Network, key, leg
from tests.simulation.large import World

PEOPLE = 32
"""In each shard."""
_FUNDS = 1 << 32
_BATCH = 200
"""Transactions a client sends at once, at most."""
_VALID = 500_000
"""Ms."""


def fund(network: Network) -> dict[int, list[KeyPair]]:
    """Give everybody in each shard something, in blocks that are there before the network starts. By shard, who they are."""
    people = defaultdict[int, list[KeyPair]](list)
    for number in count():
        shard = network.shard_of(pair := key(f"person {number}")).number
        if len(people[shard]) < PEOPLE:
            people[shard].append(pair)
        if len(people) == len(network.shards) and all(len(some) == PEOPLE for some in people.values()):
            break
    issuer = network.issuers["USD"]
    home = network.shard_of(issuer)
    for some in people.values():
        legs = [leg(issuer, pair, "USD", _FUNDS) for pair in some]
        parts = [legs[i : i + MAX_LEGS] for i in range(0, len(legs), MAX_LEGS)]
        home.add(*(network.sign([issuer], *part, valid_until=TIME + _VALID) for part in parts))
    network.exchange()
    return people


class Payment(Struct):
    """``at``: when it was sent, ms. ``needed``: shards that have to commit it still. ``across``: whether there are two."""

    at: float
    home: int
    across: bool
    needed: int


class Payers:
    """``waiting``: payments in each shard, of which the share ``across`` go to another one.

    Attributes:
        done: (when, how long it took, whether across shards) of each committed one. failed: rejected or expired ones.
    """

    def __init__(self, world: World, people: dict[int, list[KeyPair]], across: float) -> None:
        self._world, self._people, self._across = world, people, across
        self._chance = Random("payers")
        self._chains = {chain.shard: chain for chain in (e.chain for e in world.network.document.electorates.values())}
        self.waiting: dict[bytes, Payment] = {}
        self.done: list[tuple[float, float, bool]] = []
        self.failed = 0
        world.on_block = self._on_block

    def start(self, waiting: int) -> None:
        for shard in self._people:
            self._pay([shard] * waiting)

    def _pay(self, homes: Iterable[int]) -> None:
        batches = defaultdict[int, list[bytes]](list)
        for home in homes:
            across = len(self._people) > 1 and self._chance.random() < self._across
            other = self._chance.choice([shard for shard in self._people if shard != home]) if across else home
            payer, payee = self._chance.choice(self._people[home]), self._chance.choice(self._people[other])
            if payee is payer:
                payee = next(pair for pair in self._people[home] if pair is not payer)
            until = self._world.instant.wall + _VALID
            transaction = self._world.network.pay(payer, payee, 1, valid_until=until)
            self.waiting[transaction.id] = Payment(self._world.now, home, across, 2 if across else 1)
            batches[home].append(encode(transaction))
        for home, batch in batches.items():
            for start in range(0, len(batch), _BATCH):
                self._world.submit(self._chains[home], batch[start : start + _BATCH])

    def _on_block(self, chain: Chain, block: CertifiedBlock) -> None:
        """What a client hears of a block, when it hears it."""
        again = []
        for receipt in block.effects.receipts:
            payment = self.waiting.get(receipt.transaction_id)
            if payment is None or receipt.outcome is Outcome.PREPARED:
                continue
            payment.needed -= 1
            if receipt.outcome is not Outcome.COMMITTED:
                self.failed += 1
                payment.needed = 0
            if payment.needed == 0:
                del self.waiting[receipt.transaction_id]
                again.append(payment.home)
                if receipt.outcome is Outcome.COMMITTED:
                    self.done.append((self._world.now, self._world.now - payment.at, payment.across))
        self._pay(again)
