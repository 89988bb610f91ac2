"""A whole change of epochs, and another one: what blocks do to the ledgers, held against the second implementation."""

from collections import deque
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from node.ledger.execution import Execution, InvalidBlock, execute, genesis_header
from node.ledger.opening import Origin, open_state, opening_header
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.address import address_of
from node.protocol.assignment import next_document
from node.protocol.block import Header, payload_root
from node.protocol.change import RegisterPhase
from node.protocol.channel import Bundle, CountRequest, Fence, Load, Record, Resolution, Settle, Settled
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair, verify
from node.protocol.entries import Call, Disclosure, Enrolment, Entry, Farewell, Ready
from node.protocol.epoch import Registration, Roll, commitment_to, first_document
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.merkle import leaf_hash
from node.protocol.transaction import Leg, Order, Transaction
from tests.chains import key
from tests.vectors.change_reference import ChangingLedger
from tests.vectors.opening_reference import open_chains
from tests.vectors.reference import LIMITS, Invalid, Network, digest

START = 1_000_000
SECONDS = {"heartbeat": 500, "view_timeout": 500, "validity_window": 10_000, "commit_timeout": 1_000, "settle_time": 4_000}
EPOCHS = {"epoch_time": 5_000, "epoch_pause": 500, "reveal_time": 1_500, "handoff_time": 3_000}
PARAMETERS = Parameters(committees=2, committee_size=2, puzzle_difficulty_bits=0, checkpoint_interval=5, **SECONDS, **EPOCHS)
NODES = [key(f"node {i}") for i in range(12)]
PEOPLE = [key(f"person {i}") for i in range(8)]
DOLLAR, EURO = key("dollar"), key("euro")
ASSETS = (Asset("EUR", 2, EURO.public.hex()), Asset("USD", 2, DOLLAR.public.hex(), fee=1))
GENESIS = Genesis(name="test", time=START, coordinator=key("coordinator").public.hex(), assets=ASSETS, parameters=PARAMETERS)


def secret_of(node: KeyPair, epoch: int, attempt: int) -> bytes:
    return digest("test secret", node.public, bytes([epoch, attempt]))


def registration(node: KeyPair, epoch: int, attempt: int, name: str = "node") -> Registration:
    commitment = commitment_to(secret_of(node, epoch, attempt))
    fields = GENESIS.network, epoch, attempt, node.public, name, ("/ip4/192.0.2.1/tcp/1",), bytes(8), commitment
    return Registration(*fields).signed(node)


class Story:
    """Shards that make blocks at random. ``epochs``: that have begun."""

    def __init__(self, seed: int) -> None:
        self.chance, self.now, self.salt, self.epochs = Random(seed), START, 0, 1
        there = sorted(NODES[: self.chance.randint(4, 10)], key=lambda node: node.public)
        roll = Roll(GENESIS.network, 1, 1, tuple(registration(node, 1, 1) for node in there))
        self.document = first_document(GENESIS, roll, {node.public: secret_of(node, 1, 1) for node in there})
        self.network_id, issuers = self.document.network_id, {asset.code: asset.issuer_address for asset in ASSETS}
        self.rules = {shard: self._rules(shard, None) for shard in self.document.shards.shards}
        self.states = {shard: State.genesis(rules) for shard, rules in self.rules.items()}
        self.headers = {shard: genesis_header(GENESIS, shard, state) for shard, state in self.states.items()}
        plain = msgpack.unpackb(encode(self.document))
        ranges = [(first, shard) for shard, first, _ in plain[5]]
        terms = {asset.code: (asset.fee, asset.smallest_balance) for asset in ASSETS}
        parameters = {name: getattr(PARAMETERS, name) for name in PARAMETERS.__struct_fields__}
        known = Network(self.network_id, parameters, ranges, issuers, terms, LIMITS, verify)
        self.ledgers: dict[int, ChangingLedger] = {
            shard: ChangingLedger(shard, known, plain, GENESIS.coordinator_key, START) for shard in self.rules
        }
        self.channels: dict[tuple[int, int], deque[Bundle]] = {}
        self.closings: dict[int, Header] = {}
        self.credits: dict[tuple[int, str], int] = {}
        self.phases: list[RegisterPhase] = []

    def _rules(self, shard: int, opened: int | None) -> Rules:
        return Rules(GENESIS, self.network_id, shard, self.document.shards, self.document, opened)

    # -- what there is to do ---------------------------------------------------------------------------------------

    def payment(self, shard: int) -> Transaction:
        """Of somebody kept there, or of an issuer, to anybody."""
        asset, issuer = self.chance.choice([("EUR", EURO), ("USD", DOLLAR)])
        payers = [person for person in [*PEOPLE, issuer] if self.document.shards.shard_of(address_of(person.public)) == shard]
        payer, payee = self.chance.choice(payers or [issuer]), self.chance.choice(PEOPLE)
        amount = self.chance.randint(1, 900) if payer is issuer else self.chance.randint(1, 200)
        self.salt += 1
        places = [address_of(pair.public) for pair in (payer, payee, issuer)]
        if places[0] == places[1]:
            places[1] = address_of(PEOPLE[PEOPLE.index(payee) - 1].public)
        legs = [Leg(places[0], places[1], asset, amount)]
        if asset == "USD" and payer is not issuer:
            legs.append(Leg(places[0], places[2], asset, 1))
        until = self.now + self.chance.choice((0, 500, 9_000))
        return Order(self.network_id, tuple(legs), "", until, self.salt.to_bytes(8, "big")).sign([payer])

    def entry(self) -> Entry:
        """Admissible or not."""
        change, node, chance = self.states[self.document.register].change, self.chance.choice(NODES), self.chance
        epoch, attempt = self.document.number, change.attempt
        odd = chance.random() < 0.1
        kind = self.phase if chance.random() < 0.7 else chance.randint(1, 5)
        match kind:
            case RegisterPhase.REVEAL:
                return Disclosure(attempt + odd, node.public, secret_of(node, epoch + 1, attempt))
            case RegisterPhase.HANDOFF:
                return Ready(change.document if odd else self.prospect(), node.public).signed(node)
            case 4:
                return Farewell(GENESIS.network, epoch + odd, node.public).signed(node)
            case 5:
                return Call(GENESIS.network, epoch, attempt + odd).signed(key("coordinator") if chance.random() < 0.8 else node)
            case _:
                return Enrolment(registration(node, epoch + 1, attempt + odd, chance.choice(("node", "other"))))

    def lies(self, shard: int, bundles: list[Bundle]) -> list[Bundle]:
        """What captured shards might send of the change, whatever its attempt and stage."""
        found = []
        for source in self.states.keys() - {shard, *(bundle.source for bundle in bundles)}:
            attempt = max(1, self.states[shard].change.attempt + self.chance.choice((-1, 0, 0, 0, 1)))
            records: list[Record] = [Load(attempt, 7), Settle(attempt, bytes(32), self.chance.choice((b"", bytes([200] * 20))))]
            records += [Fence(attempt), Settled(attempt), Resolution(attempt, close=self.chance.random() < 0.5)]
            told = self.chance.choices([*records, CountRequest(attempt)], k=3)
            found.append(Bundle(source, shard, self.states[shard].cursor(source) + 1, tuple(told)))
        return found

    @property
    def phase(self) -> RegisterPhase:
        register = self.states[self.document.register].change.register
        return register.phase if register is not None else RegisterPhase.REGISTRATION

    def prospect(self) -> bytes:
        change = self.states[self.document.register].change
        if change.register is None or change.register.phase < RegisterPhase.HANDOFF:
            return bytes(32)
        return next_document(self.document, change.register, change.attempt, PARAMETERS).hash

    # -- blocks ----------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """A block of each shard; or the next epoch."""
        self.now += self.chance.choice((0, 50, 100, 300))
        if len(self.closings) == len(self.states):
            self.begin()
        for shard in self.chance.sample(sorted(self.states), len(self.states)):
            self.block(shard)

    def block(self, shard: int) -> None:
        bundles: list[Bundle] = []
        for source in sorted(self.states) if shard not in self.closings else ():
            queue = self.channels.setdefault((source, shard), deque())
            bundles += [queue.popleft() for _ in range(self.chance.randint(0, len(queue)))]
        transactions: list[Transaction] = []
        entries: list[Entry] = []
        for _ in range(self.chance.randint(0, 3)):
            payment = self.payment(shard)
            if self.is_valid(shard, bundles, [*transactions, payment], []):
                transactions.append(payment)
        for _ in range(self.chance.randint(0, 6)):
            entry = self.entry()
            if self.is_valid(shard, bundles, transactions, [*entries, entry]):
                entries.append(entry)
        if shard not in self.closings:
            self.is_valid(shard, [*bundles, *self.lies(shard, bundles)], transactions, entries)
        execution = self.both(shard, bundles, transactions, entries)
        assert execution is not None
        self.keep(shard, execution)

    def is_valid(self, shard: int, bundles: list[Bundle], transactions: list[Transaction], entries: list[Entry]) -> bool:
        ledger = self.ledgers[shard]
        self.ledgers[shard] = deepcopy(ledger)
        execution = self.both(shard, bundles, transactions, entries)
        self.ledgers[shard] = ledger
        return execution is not None

    def both(self, shard: int, bundles: list[Bundle], transactions: list[Transaction], entries: list[Entry]) -> Execution | None:
        """What both make of a block; None: it is invalid."""
        state, ledger, ids = self.states[shard], self.ledgers[shard], [(one.id, one) for one in transactions]
        found: tuple[list[bytes], Any] | None
        try:
            plain = [msgpack.unpackb(encode(bundle)) for bundle in bundles]
            encoded = [encode(one) for one in entries]
            found = ledger.execute(state.height + 1, self.now, plain, [encode(one) for one in transactions], encoded)
        except Invalid:
            found = None
        height, check = state.height + 1, Transaction.has_valid_signatures
        execution: Execution | None = None
        with suppress(InvalidBlock):
            execution = execute(state, self.rules[shard], height, self.now, bundles, ids, check, entries)
        if execution is None or found is None:
            assert execution is None, "it is invalid"
            assert found is None, "it is valid"
            return None
        e, (roots, sent) = execution, found
        assert msgpack.unpackb(encode(self.changed(e))) == ledger.change
        assert [msgpack.unpackb(encode(bundle)) for bundle in e.outbox] == sent
        ours = [e.receipts_root, e.outbox_root, e.changes_hash, e.totals_hash, e.change_hash, e.state_root]
        assert ours == roots
        return execution

    def changed(self, execution: Execution) -> Any:
        return execution.overlay.change

    def keep(self, shard: int, execution: Execution) -> None:
        before, e = self.headers[shard], execution
        self.states[shard].commit(e.overlay)
        roots = e.receipts_root, e.outbox_root, e.changes_hash, e.totals_hash, e.change_hash, e.state_root
        place = self.document.hash, shard, e.height, e.height, before.hash, bytes(32), self.now, 0
        self.headers[shard] = Header(*place, payload_root((), [leaf_hash(b"")]), *roots, bytes(8))
        change = self.states[shard].change
        for bundle in e.outbox:
            self.channels.setdefault((shard, bundle.destination), deque()).append(bundle)
        if change.closed == e.height:
            self.closings[shard] = self.headers[shard]
        if change.register is not None and self.phases[-1:] != [change.register.phase]:
            self.phases.append(change.register.phase)

    # -- the next epoch --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        changes = {shard: state.change for shard, state in self.states.items()}
        register = changes[self.document.register].register
        assert register is not None
        before = self.sums()
        document = next_document(self.document, register, changes[self.document.register].attempt, PARAMETERS)
        plain = msgpack.unpackb(encode(document))
        closings = {shard: msgpack.unpackb(encode(header)) for shard, header in self.closings.items()}
        ledgers, credits_ = open_chains(plain, self.ledgers, closings, self.credits)
        self.document, closed, self.rules = document, self.closings, {}
        states: dict[int, State] = {}
        for shard in document.shards.shards:
            origins = [Origin(self.states[origin], closed[origin]) for origin in document.origins_of(shard)]
            self.rules[shard] = self._rules(shard, max(origin.closing.time for origin in origins))
            states[shard] = open_state(self.rules[shard], document, origins, credits_)
            header = opening_header(document, shard, states[shard], [origin.closing for origin in origins])
            assert msgpack.unpackb(encode(header)) == ledgers[shard].header
            self.headers[shard] = header
            assert header.time <= self.now
        self.states, self.ledgers, self.credits = states, dict(ledgers), credits_
        self.channels, self.closings = {}, {}
        self.epochs += 1
        assert self.sums() == before, "the opening figures are the closing figures"

    def sums(self) -> dict[str, tuple[int, int]]:
        """What there is of each asset: held by somebody, issued."""
        found = {asset.code: (0, 0) for asset in ASSETS}
        for state in self.states.values():
            assert all(change.pending == 0 for change in [state.totals()])
            for total in state.totals().assets:
                there, issued = found[total.asset]
                found[total.asset] = there + total.available + total.held, issued + total.issued
        assert all(there == issued for there, issued in found.values())
        return found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3, 6))
def test_blocks_do_what_the_second_implementation_says_over_several_epochs(seed: int) -> None:
    story = Story(seed)
    for _ in range(110):
        story.go_on()
    assert story.epochs > 1
