"""Gateways: they submit, read certified blocks, and send again until a transaction is final or can no longer become so. And a
client that lies."""

from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.projection import Facts, Tracked, project, tracked_order, transactions_of
from node.client.blocks import ProvenBlock
from node.client.refusals import RefusalTally
from node.protocol.address import address_of
from node.protocol.block import Outcome, Receipt
from node.protocol.certificate import CertifiedBlock
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.terms import Terms
from node.protocol.transaction import Action, Leg, Order, Transaction, Witness
from tests.simulation.host import START
from tests.simulation.violation import violated

if TYPE_CHECKING:
    from tests.simulation.world import World

ISSUERS = {"USD": KeyPair(bytes(31) + b"\x07"), "EUR": KeyPair(bytes(31) + b"\x08")}
TERMS = {"USD": (0, 0), "EUR": (2, 5)}
"""Each asset's fee and smallest balance."""
_RESEND = 700
_ACCOUNTS = 3
_SPREAD = 8_000
_SHUTTLED, _CROSSINGS = 100_000, 6
_SHUTTLE_PAUSE, _SHUTTLE_TIME = 20, 4_000
_PROBE = 15_000
_MARGIN = 1_000
"""A block's time may be behind the clock, ms."""


class Pending(Struct):
    """In the outbox."""

    transaction: Transaction
    encoded: bytes
    home: int


class Gateway:
    """One client of the network with its read model: each shard's chain, verified block by block, gaps asked for."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.number = world, number
        self.chance = Random(f"{world.plan.seed}/gateway/{number}")
        self.outbox: dict[bytes, Pending] = {}
        self.receipts: dict[bytes, Receipt] = {}
        """Final ones of the home shard."""
        self.expired: set[bytes] = set()
        """Ids that no block can include any more."""
        self.probes: set[bytes] = set()
        """Transactions that must be committed."""
        self._heirs: dict[bytes, KeyPair] = {}
        """Of probes, who is paid and pays on all of it, inside its shard."""
        self.seen_hashes: dict[int, list[bytes]] = {shard: [] for shard in world.shards}
        self._begun: set[bytes] = set()
        self._ahead: dict[int, dict[int, ProvenBlock]] = {shard: {} for shard in world.shards}
        self._sent: list[Pending] = []
        self.tracked: dict[bytes, Tracked] = {}
        """What the read model that gateways have says of what was submitted here."""
        self._tallies = {shard: RefusalTally(electorate) for shard, electorate in world.document.electorates.items()}
        self._terms = Terms(world.genesis)
        self.accounts = {shard: [world.key_in(shard, self.chance) for _ in range(_ACCOUNTS)] for shard in world.honest}

    def __repr__(self) -> str:
        return f"gateway-{self.number}"

    # -- submitting ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for keys in self.accounts.values():
            for key in keys:
                self.submit([Leg(_address(ISSUERS[c]), _address(key), c, 1_000) for c in ISSUERS], list(ISSUERS.values()), 20_000)
        plan = self.world.plan
        if plan.flood:
            self.world.after(plan.active // 3, self._flood)
        for number in plan.transactions:
            if number % plan.gateways == self.number:
                chance = Random(f"{plan.seed}/transaction/{number}")
                at = chance.randrange(_SPREAD) % plan.active
                self.world.after(at, lambda chance=chance: self.submit_something(chance))  # type: ignore[misc]
        self._tick()

    def submit_something(self, chance: Random) -> None:
        """A payment, exchange, payroll, mint, burn or freeze, some of them impossible; some without funds, fee or worth."""
        a, b, c = (chance.choice(self.accounts[chance.choice(self.world.honest)]) for _ in range(3))
        usd, eur = ISSUERS["USD"], ISSUERS["EUR"]
        amount, lifetime = chance.randint(1, 600), chance.randint(1_500, 12_000)
        kind = chance.random()
        if kind < 0.55:
            legs, keys = [Leg(_address(a), _address(b), "USD", amount)], [a]
        elif kind < 0.75:
            legs, keys = [Leg(_address(a), _address(b), "USD", amount), Leg(_address(b), _address(a), "EUR", amount)], [a, b]
        elif kind < 0.85:
            legs, keys = [Leg(_address(a), _address(x), "EUR", amount // 2 + 1) for x in (b, c)], [a]
        elif kind < 0.9:
            legs, keys = [Leg(_address(a), _address(usd), "USD", amount)], [a]
        elif kind < 0.93:
            legs, keys = [Leg(_address(eur), _address(a), "EUR", amount)], [eur]
        else:
            action = chance.choice((Action.FREEZE, Action.FREEZE, Action.UNFREEZE))
            legs, keys = [Leg(_address(usd), _address(a), "USD", 0, action)], [usd]
        if any(leg.payer == leg.payee for leg in legs):
            return
        oddity = chance.random()
        legs, keys = self._odd(oddity, chance, a, amount) or (legs, keys)
        if oddity < 0.9:
            legs = legs + [fee for leg in legs if leg.action is Action.PAY for fee in self._terms.with_fee(leg)[1:]]
        self.submit(legs, keys, lifetime)

    def _odd(self, oddity: float, chance: Random, a: KeyPair, amount: int) -> tuple[list[Leg], list[KeyPair]] | None:
        """In some cases a payment of somebody who holds nothing, of dust, or that leaves dust."""
        usd = _address(ISSUERS["USD"])
        if oddity < 0.08:
            poor = self.world.key_in(chance.choice(self.world.honest), chance)
            return [Leg(_address(poor), _address(a), "USD", amount)], [poor]
        if oddity < 0.14:
            return [Leg(_address(a), usd, "EUR", chance.randint(1, 12))], [a]
        if oddity < 0.22:
            return [Leg(_address(a), usd, "EUR", 996)], [a]  # all it was given but for the fee and two units
        return None

    def _flood(self) -> None:
        """One account pays at once as often as it can, and oftener."""
        payer, payee = self.accounts[self.chance.choice(self.world.honest)][:2]
        for _ in range(self.world.plan.flood):
            self.submit([Leg(_address(payer), _address(payee), "USD", 60)], [payer], 10_000)

    def submit(self, legs: list[Leg], keys: list[KeyPair], lifetime: int) -> bytes:
        valid_until = START + self.world.time + min(lifetime, self.world.genesis.parameters.validity_window - _MARGIN)
        order = Order(self.world.document.network_id, tuple(legs), "", valid_until, self.chance.randbytes(8))
        transaction = order.sign(list({key.public: key for key in keys}.values()))
        pending = Pending(transaction, encode(transaction), self.world.document.shards.shard_of(legs[0].payer))
        self.outbox[transaction.id] = pending
        tracked = tracked_order(order, transaction.id, pending.encoded, self.world.document, own=True)
        self.tracked[transaction.id] = tracked
        self._sent.append(pending)
        self.world.tell(self, "submits", "", transaction)
        self.world.broker.submit(pending.home, [pending.encoded])
        return transaction.id

    def send_all_again(self) -> None:
        """Whatever it ever sent, once more: nothing of it may count twice."""
        for shard in self.world.shards:
            self.world.broker.submit(shard, [pending.encoded for pending in self._sent if pending.home == shard])

    def probe(self, across: bool) -> None:
        """Payments that nothing can keep from being made: the issuers give to new accounts, ``across`` shards or within them."""
        for shard in self.world.honest:
            for code, issuer in ISSUERS.items():
                if (self.world.document.shards.shard_of(_address(issuer)) != shard) == across:
                    probe = self._probe(issuer, payee := self.world.key_in(shard, self.chance), code)
                    if not across and code == "USD":  # which costs no fee
                        self._heirs[probe] = payee

    def _probe(self, payer: KeyPair, payee: KeyPair, code: str) -> bytes:
        probe = self.submit([Leg(_address(payer), _address(payee), code, 10)], [payer], _PROBE)
        self.probes.add(probe)
        return probe

    def _tick(self) -> None:
        """Send again what is not final; ask one member of each shard, in turn, for the next blocks."""
        for shard in self.world.shards:
            batch = [pending.encoded for pending in self.outbox.values() if pending.home == shard]
            if self.world.plan.resubmission:
                resent = (p for p in self._sent if p.home == shard and self.chance.random() < self.world.plan.resubmission)
                batch += [pending.encoded for pending in resent]
            if batch:
                self.world.broker.submit(shard, batch)
            node = self.chance.choice(self.world.committee(shard))
            self.world.broker.query_blocks(self, shard, node, len(self.seen_hashes[shard]) + 1)
        self.world.after(_RESEND, self._tick)

    # -- reading ---------------------------------------------------------------------------------------------------

    def on_block(self, shard: int, encoded: bytes) -> None:
        """A block from the broker: anybody may have put it there."""
        proven = self.world.proven_block(shard, encoded)
        if proven is None:
            return
        self._ahead[shard].setdefault(proven.header.height, proven)
        seen = self.seen_hashes[shard]
        while (following := self._ahead[shard].pop(len(seen) + 1, None)) is not None:
            header = following.header
            if seen and header.parent != seen[-1]:
                violated("agreement", f"{self} is shown two certified chains of shard {shard}")
            seen.append(header.hash)
            self._project(following)
            self._read(shard, following.certified)

    def on_refusals(self, shard: int, encoded: bytes) -> None:
        """Refusals from the broker: hints."""
        for transaction_id, code in self._tallies[shard].hear(encoded, self.outbox):
            self.tracked[transaction_id].refused(code, Chain(1, shard))

    def _project(self, block: ProvenBlock) -> None:
        header, waiting = block.header, (self.tracked[one] for one in self.outbox)
        overdue = [one for one in waiting if one.home.shard == header.shard and one.is_waiting and one.valid_until < header.time]
        known = {one: self.tracked[one] for one in transactions_of([block], {}) if one in self.tracked}
        heights = {shard: len(hashes) for shard, hashes in self.seen_hashes.items()}
        update = project([block], self.world.document, Facts({}, known, overdue, heights))
        self.tracked |= update.changed

    def _read(self, shard: int, certified: CertifiedBlock) -> None:
        for receipt in certified.effects.receipts:
            transaction_id = receipt.transaction_id
            pending = self.outbox.get(transaction_id)
            if pending is None or pending.home != shard:
                continue
            if receipt.outcome is Outcome.PREPARED:
                self._begun.add(transaction_id)
            else:
                self.receipts[transaction_id] = receipt
                del self.outbox[transaction_id]
                self.world.tell(self, "sees", f"transaction {transaction_id.hex()[:8]} {receipt.outcome.name} {receipt.code}")
                if receipt.outcome is Outcome.COMMITTED and (heir := self._heirs.pop(transaction_id, None)) is not None:
                    self._probe(heir, self.world.key_in(shard, self.chance), "USD")
        for transaction_id, pending in list(self.outbox.items()):
            is_late = pending.home == shard and pending.transaction.order.valid_until < certified.block.header.time
            if is_late and transaction_id not in self._begun:
                self.expired.add(transaction_id)
                del self.outbox[transaction_id]
                self.world.tell(self, "gives up", f"transaction {transaction_id.hex()[:8]}: no block took it in time")


class Shuttle:
    """A client with an account in each of two shards, which sends all it has to and fro until tallies begin again.

    It has more than all others, but not half a tally.
    """

    def __init__(self, world: "World") -> None:
        self.world, self._gateway = world, world.gateways[0]
        chance = Random(f"{world.plan.seed}/shuttle")
        self._here, self._there = (world.key_in(shard, chance) for shard in world.honest[:2])
        self._sent: bytes | None = None
        self._made = 0
        """Payments, the issuer's included."""

    @property
    def is_done(self) -> bool:
        return self._made > _CROSSINGS

    def start(self) -> None:
        """Pay what was paid last, once it is there; if it was not made, again."""
        if self._sent is None or self._sent not in self._gateway.outbox:
            receipt = self._gateway.receipts.get(self._sent) if self._sent is not None else None
            if receipt is not None and receipt.outcome is Outcome.COMMITTED:
                self._made, self._sent = self._made + 1, None
                self._here, self._there = self._there, self._here
            payer = ISSUERS["USD"] if not self._made else self._here
            if not self.is_done:
                leg = Leg(_address(payer), _address(self._there), "USD", _SHUTTLED)
                self._sent = self._gateway.submit([leg], [payer], _SHUTTLE_TIME)
        if not self.is_done:
            self.world.after(_SHUTTLE_PAUSE, self.start)


class Swindler:
    """A client that lies. Nothing that it submits may ever be in a block."""

    def __init__(self, world: "World") -> None:
        self.world, self.chance = world, Random(f"{world.plan.seed}/swindler")
        self.submitted: set[bytes] = set()

    def start(self) -> None:
        chance, plan = self.chance, self.world.plan
        for trick in (self._forge, self._forge_second, self._pass_on, self._order_for_ever, self._issue):
            for _ in range(2):
                self.world.after(chance.randrange(plan.active), lambda trick=trick: self._submit(trick()))  # type: ignore[misc]
        for _ in range(4):
            self.world.after(chance.randrange(plan.active), self._spoil)

    def _submit(self, transaction: Transaction) -> None:
        self.submitted.add(transaction.id)
        home = self.world.document.shards.shard_of(transaction.order.legs[0].payer)
        self.world.tell(self, "submits", "", transaction)
        self.world.broker.submit(home, [encode(transaction)])

    def _order(self, *legs: Leg, lifetime: int = 8_000, network: bytes = b"") -> Order:
        valid_until = START + self.world.time + lifetime
        return Order(network or self.world.document.network_id, legs, "", valid_until, self.chance.randbytes(8))

    def _victims(self) -> list[KeyPair]:
        gateway = self.chance.choice(self.world.gateways)
        return [self.chance.choice(keys) for keys in gateway.accounts.values()]

    def _leg(self, payer: KeyPair) -> Leg:
        return Leg(_address(payer), address_of(self.world.key_in(0, self.chance).public), "USD", 5)

    def _forge(self) -> Transaction:
        """Signed by somebody else than the payer."""
        victim = self._victims()[0]
        transaction = self._order(self._leg(victim)).sign([victim])
        return _with_signatures(transaction, [KeyPair(self.chance.randbytes(32)).sign(transaction.id)])

    def _forge_second(self) -> Transaction:
        """Of two payers in two shards the second did not sign."""
        first, second, *_ = self._victims()
        transaction = self._order(self._leg(first), self._leg(second)).sign([first, second])
        return _with_signatures(transaction, [transaction.witnesses[0].signature, self.chance.randbytes(64)])

    def _pass_on(self) -> Transaction:
        """Signed for another network."""
        victim = self._victims()[0]
        return self._order(self._leg(victim), network=self.chance.randbytes(len(self.world.document.network_id))).sign([victim])

    def _order_for_ever(self) -> Transaction:
        victim = self._victims()[0]
        return self._order(self._leg(victim), lifetime=10 * self.world.genesis.parameters.validity_window).sign([victim])

    def _issue(self) -> Transaction:
        """Freezes an account of an asset that is not its own."""
        own, victim = self.world.key_in(0, self.chance), self._victims()[0]
        transaction = self._order(Leg(_address(ISSUERS["USD"]), _address(victim), "USD", 0, Action.FREEZE)).sign([ISSUERS["USD"]])
        return _with_signatures(transaction, [own.sign(transaction.id)])

    def _spoil(self) -> None:
        """A copy of somebody's order, with a witness that does not sign: the order itself must not suffer."""
        waiting = [pending for gateway in self.world.gateways for pending in gateway.outbox.values()]
        if waiting:
            pending = self.chance.choice(waiting)
            spoiled = _with_signatures(pending.transaction, [self.chance.randbytes(64) for _ in pending.transaction.witnesses])
            self.world.broker.submit(pending.home, [encode(spoiled)])

    def __repr__(self) -> str:
        return "swindler"


def _with_signatures(transaction: Transaction, signatures: list[bytes]) -> Transaction:
    pairs = zip(transaction.witnesses, signatures, strict=True)
    return Transaction(transaction.order, tuple(Witness(witness.public_key, signature) for witness, signature in pairs))


def _address(key: KeyPair) -> bytes:
    return address_of(key.public)
