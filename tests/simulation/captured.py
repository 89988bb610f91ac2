"""A captured shard: more than f members of one committee in one hand. It certifies whatever it likes: what it sends other shards
belongs to no chain at all, and the chain it shows clients makes no sense.

It has some money that honest shards really sent it, accounts of its own everywhere, and everybody's public keys, but nobody's
signature: neither those of other clients nor the issuers'.
"""

from random import Random
from typing import TYPE_CHECKING

from msgspec import structs

from node.effects import Effect
from node.ledger.execution import genesis_header
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.address import address_of
from node.protocol.block import (
    AssetTotal,
    Balance,
    BalanceChange,
    Block,
    Changes,
    Effects,
    Header,
    Outcome,
    PeerTotal,
    Receipt,
    Totals,
)
from node.protocol.certificate import CertifiedBlock, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Figure, Figures, Prepare, PrepareVote, Record
from node.protocol.codec import DecodeError, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.messages import BundleDelivery, BundleRequest, PeerMessage
from node.protocol.transaction import Action, Leg, Order, Transaction, Witness, decode_transaction
from tests.simulation.adversary import Adversary
from tests.simulation.host import START

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

_PAUSE = 200
_NO_MESSAGE = b"\xc1"
"""The one byte that begins nothing in MessagePack."""


class Captor:
    """Who has captured ``shard``. It pays in USD, which another shard must issue."""

    def __init__(self, world: "World", shard: int, issuer: KeyPair) -> None:
        self.world, self.shard, self._issuer = world, shard, issuer
        self.chance = Random(f"{world.plan.seed}/captor")
        self.others = [other for other in world.shards if other != shard]
        self._electorate = world.document.electorates[shard]
        rules = Rules(world.genesis, world.document.network_id, shard, world.document.shards)
        self._head = genesis_header(world.genesis, shard, State.genesis(rules))
        self._treasury = world.key_in(shard, self.chance)
        self._thieves = {other: world.key_in(other, self.chance) for other in self.others}
        self._sent: dict[int, list[CertifiedBundle]] = {other: [] for other in self.others}
        self._taken = dict.fromkeys(self.others, 0)
        self._to_say: dict[int, list[Record]] = {other: [] for other in self.others}
        self._prepared: dict[int, list[Transaction]] = {other: [] for other in self.others}
        self._odd = Random(f"{world.plan.seed}/captor/nonsense")
        self._shown = self._head
        for node in world.committee(shard):
            node.adversary = Puppet(node, self)

    def start(self) -> None:
        """The issuer pays it something, as it would any client, and its accounts elsewhere."""
        for payee in (self._treasury, *self._thieves.values()):
            self._submit([Leg(_address(self._issuer), _address(payee), "USD", 500)], [self._issuer])
        self._tick()

    def _submit(self, legs: list[Leg], keys: list[KeyPair]) -> None:
        home = self.world.document.shards.shard_of(legs[0].payer)
        self.world.broker.submit(home, [encode(self._order(legs).sign(keys))])

    def _order(self, legs: list[Leg]) -> Order:
        until = START + self.world.time + 10_000
        return Order(self.world.document.network_id, tuple(legs), "", until, self.chance.randbytes(8))

    def _tick(self) -> None:
        for shard in self.others:
            self.chance.choice((self._export, self._export, self._forge, self._split, self._replay, self._boast))(shard)
            if self._odd.random() < 0.3:
                self._to_say[shard].append(self._malformed())
            self._send(shard)
        self._show()
        self.world.after(_PAUSE, self._tick)

    # -- what it makes up ------------------------------------------------------------------------------------------

    def _prepare(self, shard: int, transaction: Transaction, commit: bool = True) -> None:
        self._prepared[shard].append(transaction)
        deadline = START + self.world.time + self.world.genesis.parameters.commit_timeout
        self._to_say[shard] += [Prepare(encode(transaction), deadline), Decision(transaction.id, commit)]

    def _own(self, shard: int, amount: int) -> Leg:
        return Leg(_address(self._treasury), _address(self._thieves[shard]), "USD", amount)

    def _export(self, shard: int) -> None:
        """More than it has, sooner or later."""
        amount = self.chance.choice((10, 100, 400, 5_000))
        self._prepare(shard, self._order([self._own(shard, amount)]).sign([self._treasury]))

    def _forge(self, shard: int) -> None:
        """In the name of somebody else's account, or of the issuer: payments, mints, freezes."""
        victims = [key for gateway in self.world.gateways for keys in gateway.accounts.values() for key in keys]
        victim, payee = self.chance.choice(victims), _address(self._thieves[shard])
        here = [key for gateway in self.world.gateways for key in gateway.accounts[shard]]
        forged = self.chance.choice(
            (
                Leg(_address(victim), payee, "USD", 300),
                Leg(_address(self._issuer), payee, "USD", 10_000),
                Leg(_address(self._issuer), _address(self.chance.choice(here)), "USD", 0, Action.FREEZE),
            )
        )
        order = self._order([self._own(shard, 1), forged])
        public = {_address(key): key.public for key in (*victims, self._issuer)}
        own = self._treasury
        witnesses = [Witness(own.public, own.sign(order.id)), Witness(public[forged.payer], own.sign(order.id))]
        self._prepare(shard, Transaction(order, tuple(witnesses)))

    def _split(self, shard: int) -> None:
        """An accomplice elsewhere pays over it: one is told to commit, the other to abort."""
        elsewhere = self.chance.choice([other for other in self.others if other != shard])
        accomplice = self._thieves[elsewhere]
        over = Leg(_address(accomplice), _address(self._thieves[shard]), "USD", 50)
        transaction = self._order([self._own(shard, 1), over]).sign([self._treasury, accomplice])
        self._prepare(elsewhere, transaction, commit=False)
        self._prepare(shard, transaction)

    def _replay(self, shard: int) -> None:
        if self._prepared[shard]:
            self._prepare(shard, self.chance.choice(self._prepared[shard]))

    def _boast(self, shard: int) -> None:
        """It passed so much to the others, and they to it."""
        others = [other for other in self.others if other != shard]
        self._to_say[shard].append(Figures(tuple(Figure(other, "USD", 10**6) for other in others)))
        self._to_say[shard].append(Figures((Figure(self.shard, "USD", 10**6),)))

    def _malformed(self) -> Prepare:
        """No transaction, or one that pays itself."""
        data = _NO_MESSAGE + self._odd.randbytes(20)
        if self._odd.random() < 0.5:
            own = _address(self._treasury)
            order = Order(self.world.document.network_id, (Leg(own, own, "USD", 1),), "", START, self._odd.randbytes(8))
            data = encode(Transaction(order, (Witness(self._treasury.public, bytes(64)),)))
        return Prepare(data, START + self.world.time + 1_000)

    # -- what it shows clients -------------------------------------------------------------------------------------

    def _show(self) -> None:
        """A certified block that makes no sense: whoever reads the chain has to go on."""
        block, effects = self._nonsense()
        header = structs.replace(
            self._shown,
            document=self._electorate.document,
            view=self._shown.view + 1,
            height=self._shown.height + 1,
            parent=self._shown.hash,
            time=self._odd.choice((START + self.world.time, START + self.world.time, 1)),
            proposer=self._odd.choice((0, 60)),
            payload_root=block.payload_root(),
            receipts_root=merkle.root(list(map(encode, effects.receipts))),
            changes_hash=effects.changes.hash(),
            totals_hash=effects.totals.hash(),
        )
        self._shown = header
        encoded = encode(CertifiedBlock(structs.replace(block, header=header), self._make_final(header), effects))
        assert self.world.monitor.readers is not None
        self.world.monitor.readers.read(self.shard, encoded)
        for gateway in self.world.gateways:
            gateway.on_block(self.shard, encoded)

    def _nonsense(self) -> tuple[Block, Effects]:
        """A payload that is none, decisions that others never made, receipts of others' transactions, others' balances."""
        odd, known = self._odd, [known for gateway in self.world.gateways for known in gateway.tracked]
        some = [odd.choice(known) if known else odd.randbytes(32) for _ in range(3)]
        records: tuple[Record, ...] = (*(Decision(one, odd.random() < 0.5) for one in some), self._malformed())
        made_up = Bundle(odd.choice(self.others), self.shard, 1, records)
        bundles = (encode(self._certify(made_up)), _NO_MESSAGE)
        transactions = (self._malformed().transaction, _NO_MESSAGE)
        account = odd.choice([key for gateway in self.world.gateways for keys in gateway.accounts.values() for key in keys])
        change = BalanceChange(_address(account), odd.choice(("USD", "XXX")), Balance(2**63 - 1, 1, True))
        total = AssetTotal("USD", 5, 0, 2**64 - 1, 7, 0, (PeerTotal(self.others[0], 9, 2**64 - 1),))
        block = Block(self._head, bundles[: odd.randint(0, 2)], transactions[: odd.randint(0, 2)])
        receipts = tuple(Receipt(one, odd.choice(list(Outcome)), odd.choice((Code.OK, Code.EXPIRED))) for one in some)
        return block, Effects(receipts, Changes((change,), bytes(32)), Totals((total,), 3))

    # -- bundles ---------------------------------------------------------------------------------------------------

    def _send(self, shard: int) -> None:
        if records := self._to_say[shard]:
            number = len(self._sent[shard]) + 1
            bundle = self._certify(Bundle(self.shard, shard, number, tuple(records)))
            self._to_say[shard] = []
            self._sent[shard].append(bundle)
            self._deliver(shard, bundle)

    def _deliver(self, shard: int, bundle: CertifiedBundle) -> None:
        speaker = self.world.committee(self.shard)[0]
        if speaker.is_up:
            for key in self.world.document.electorates[shard].keys:
                speaker.send(key, BundleDelivery(bundle))

    def _certify(self, bundle: Bundle) -> CertifiedBundle:
        leaves = [encode(bundle)]
        view = sum(map(len, self._sent.values())) + 1
        header = structs.replace(
            self._head, document=self._electorate.document, view=view, height=view, outbox_root=merkle.root(leaves)
        )
        return CertifiedBundle(bundle, header, self._make_final(header), merkle.branch(leaves, 0))

    def _make_final(self, header: Header) -> Finality:
        keys, view = [node.key for node in self.world.committee(self.shard)], header.view
        votes = [sign_vote(key, i, self._electorate, VoteKind.FINALIZE, view, header.hash) for i, key in enumerate(keys)]
        return Finality((), make_certificate(votes, self._electorate))

    def hears(self, message: PeerMessage) -> None:
        """Others' bundles are taken in order, and it says yes to everything."""
        match message:
            case BundleDelivery(certified) if certified.bundle.sequence == self._taken.get(certified.bundle.source, -1) + 1:
                source = certified.bundle.source
                self._taken[source] += 1
                for record in certified.bundle.records:
                    if isinstance(record, Prepare):
                        self._say_yes(source, record)
            case BundleRequest(destination, sequence) if destination in self._sent:
                for bundle in self._sent[destination][sequence - 1 : sequence + 3]:
                    self._deliver(destination, bundle)

    def _say_yes(self, source: int, prepare: Prepare) -> None:
        try:
            self._to_say[source].append(PrepareVote(decode_transaction(prepare.transaction).id, Code.OK))
        except DecodeError:
            return


class Puppet(Adversary):
    """A member of the captured committee: it says nothing of its own."""

    def __init__(self, node: "Host", captor: Captor) -> None:
        super().__init__(node)
        self._captor = captor

    def hears(self, peer: bytes, message: PeerMessage) -> None:
        self._captor.hears(message)

    def tamper(self, effects: list[Effect]) -> list[Effect]:
        return effects if self.node.replica is None else []


def _address(key: KeyPair) -> bytes:
    return address_of(key.public)
