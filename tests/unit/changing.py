"""A few shards' ledgers that change to the next epoch: ``Ledgers`` with a document, and nodes that write to the register."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from msgspec import structs

from node.ledger.execution import Execution
from node.ledger.register import prospect, register_of
from node.ledger.rules import Rules
from node.ledger.settlement import is_closed
from node.ledger.state import State
from node.protocol.change import Change, Register, RegisterPhase
from node.protocol.channel import Bundle, Record
from node.protocol.crypto import KeyPair, digest
from node.protocol.entries import Call, Disclosure, Enrolment, Entry, Farewell, Ready
from node.protocol.epoch import EpochDocument, Registration, Roll, commitment_to, first_document
from node.protocol.puzzle import identity_prefix, search
from node.protocol.transaction import Transaction
from tests.unit.ledger_driver import NETWORK, Disk, Ledgers

SIZE = 4
TIMES = {"epoch_time": 1_000_000, "epoch_pause": 1_000, "reveal_time": 2_000, "handoff_time": 5_000, "settle_time": 4_000}
COORDINATOR = KeyPair(digest("test", b"coordinator"))
STEP = 100


@lru_cache(maxsize=256)
def node(number: int) -> KeyPair:
    return KeyPair(digest("test", b"node", number.to_bytes(2, "big")))


def secret_of(key: KeyPair) -> bytes:
    return digest("test", b"secret", key.public)


class Changing(Ledgers):
    """
    Attributes:
        nodes: of epoch 1, as many as it has seats, and ``more`` that may register for epoch 2.
        document: of epoch 1.
    """

    def __init__(self, shards: int, more: int = 0) -> None:
        super().__init__(shards)
        cheap = {"committees": shards, "committee_size": SIZE, "puzzle_difficulty_bits": 2}
        parameters = structs.replace(self.genesis.parameters, **cheap, **TIMES)
        self.genesis = structs.replace(self.genesis, coordinator=COORDINATOR.public.hex(), parameters=parameters)
        self.nodes = [node(number) for number in range(shards * SIZE + more)]
        first = self.nodes[: shards * SIZE]
        seated = [self.registration(key, epoch=1, challenge=self.genesis.hash) for key in first]
        roll = Roll(self.genesis.network, 1, 1, tuple(sorted(seated, key=lambda r: r.public_key)))
        self.document = first_document(self.genesis, roll, {key.public: secret_of(key) for key in first})
        self.rules = [Rules(self.genesis, NETWORK, shard, self.table, self.document) for shard in self.shards]
        self.states = [State.genesis(rules) for rules in self.rules]
        self.disks = [Disk(self.genesis, state) for state in self.states]

    # -- entries -----------------------------------------------------------------------------------------------------

    def registration(
        self, key: KeyPair, attempt: int = 1, epoch: int = 2, challenge: bytes | None = None, **changes: Any
    ) -> Registration:
        """Valid for the epoch after this one, but for the ``changes``."""
        prefix = identity_prefix(self.genesis.network, epoch, challenge or self.document.hash, key.public)
        nonce = search(prefix, self.genesis.parameters.puzzle_difficulty_bits, 0, 1 << 20)
        assert nonce is not None
        name, addresses, commitment = f"node-{key.public.hex()[:8]}", ("/ip4/192.0.2.1/tcp/1",), commitment_to(secret_of(key))
        made = Registration(self.genesis.network, epoch, attempt, key.public, name, addresses, nonce, commitment)
        return structs.replace(made, **changes).signed(key)

    def enrolments(self, keys: Iterable[KeyPair] = ()) -> list[Entry]:
        """Of these, or all nodes that may register still, for the attempt under way."""
        known = {*self.register.farewells, *(registration.public_key for registration in self.register.registrations)}
        there = keys or [key for key in self.nodes if key.public not in known]
        return [Enrolment(self.registration(key, self.change(0).attempt)) for key in there]

    def disclosures(self, keys: Iterable[KeyPair] = ()) -> list[Entry]:
        """Of these, or all that are registered."""
        known = {registration.public_key for registration in self.register.registrations}
        there = keys or [key for key in self.nodes if key.public in known]
        return [Disclosure(self.change(0).attempt, key.public, secret_of(key)) for key in there]

    def readiness(self) -> list[Entry]:
        """Of all members of the next document."""
        document, keys = self.prospect, {key.public: key for key in self.nodes}
        members = [key for electorate in document.electorates.values() for key in electorate.keys]
        return [Ready(document.hash, key).signed(keys[key]) for key in members]

    def farewell(self, key: KeyPair) -> Farewell:
        return Farewell(self.genesis.network, 1, key.public).signed(key)

    def call(self) -> Call:
        return Call(self.genesis.network, 1, self.change(0).attempt).signed(COORDINATOR)

    # -- where the change stands -------------------------------------------------------------------------------------

    def change(self, shard: int) -> Change:
        return self.states[shard].change

    @property
    def register(self) -> Register:
        return register_of(self.change(0), self.rules[0])

    @property
    def prospect(self) -> EpochDocument:
        return prospect(self.register, self.rules[0], self.change(0).attempt)

    @property
    def are_closed(self) -> bool:
        return all(map(is_closed, self.states))

    # -- blocks ------------------------------------------------------------------------------------------------------

    def block(
        self,
        shard: int,
        *transactions: Transaction,
        take: int = 1 << 30,
        bundles: Sequence[Bundle] = (),
        entries: Sequence[Entry] = (),
    ) -> Execution:
        """Nothing goes into blocks of a closed chain."""
        most = 0 if is_closed(self.states[shard]) else take
        return super().block(shard, *transactions, take=most, bundles=bundles, entries=entries)

    def told(self, source: int, destination: int, *records: Record) -> Change:
        """The destination's part after a block, that is not committed, with a bundle that the source made up."""
        bundle = Bundle(source, destination, self.states[destination].cursor(source) + 1, records)
        return self.execute(destination, bundles=[bundle]).overlay.change

    def write(self, *entries: Entry) -> None:
        """A block of the register, without bundles."""
        self.block(0, take=0, entries=entries)

    def round(self) -> None:
        """A block in each shard, a moment later."""
        self.now += STEP
        for shard in self.shards:
            self.block(shard)

    def until(self, holds: Callable[[], bool], rounds: int = 100) -> None:
        for _ in range(rounds):
            if holds():
                return
            self.round()
        raise AssertionError("it does not come to that")

    def enter(self, phase: RegisterPhase) -> None:
        """Everybody does its part until the register is in ``phase``; what is closed is so in all shards."""
        if self.register.phase is RegisterPhase.REGISTRATION < phase:
            self.write(*self.enrolments(), *([] if self.register.called else [self.call()]))
            self.now = max(self.now, self.register.not_before)
            self.write()
        if self.register.phase is RegisterPhase.REVEAL < phase:
            self.write(*self.disclosures())
            self.until(lambda: self.register.phase is not RegisterPhase.REVEAL)
        if self.register.phase is RegisterPhase.HANDOFF < phase:
            self.write(*self.readiness())
        if phase is RegisterPhase.CLOSED:
            self.until(lambda: self.are_closed)
        assert self.register.phase is phase

    def call_off(self) -> None:
        """The attempt under way: too few are ready in time."""
        self.enter(RegisterPhase.HANDOFF)
        self.now += TIMES["handoff_time"] * min(2**self.register.failures, 8)
        self.write()
        assert self.register.phase is RegisterPhase.REGISTRATION
