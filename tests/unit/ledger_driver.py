"""A few shards' ledgers and the channels between them, without consensus: what the ledger's tests play on."""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import count

from node.ledger.execution import Execution, execute
from node.ledger.rules import Rules
from node.ledger.state import State, recompute_totals
from node.protocol.address import address_of
from node.protocol.block import Balance, Effects, Outcome, Receipt
from node.protocol.channel import Bundle, Record
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.limits import MAX_BUNDLE_BYTES
from node.protocol.shards import ShardTable, equal_ranges
from node.protocol.transaction import Action, Leg, Order, Transaction

START = 1_000_000
COMMITTED, REJECTED, PREPARED, EXPIRED = Outcome.COMMITTED, Outcome.REJECTED, Outcome.PREPARED, Outcome.EXPIRED


@lru_cache(maxsize=1024)
def key_in(shard: int, number: int, shards: int) -> KeyPair:
    """The ``number``-th key of a fixed series whose address the shard keeps."""
    table = ShardTable(equal_ranges(shards))
    found = (key for i in count(1) if table.shard_of(address_of((key := KeyPair(i.to_bytes(32, "big"))).public)) == shard)
    for _ in range(number):
        next(found)
    return next(found)


class Ledgers:
    """USD is issued in shard 0, EUR in the last. ``accounts[shard]`` are four keys there; nobody has anything yet."""

    def __init__(self, shards: int, checkpoint_interval: int = 5) -> None:
        self.shards = range(shards)
        usd, eur = key_in(0, 9, shards), key_in(shards - 1, 10, shards)
        self.issuers = {"USD": usd, "EUR": eur}
        assets = (Asset("USD", 2, usd.public.hex()), Asset("EUR", 2, eur.public.hex()))
        parameters = Parameters(checkpoint_interval=checkpoint_interval, validity_window=10_000, commit_timeout=1_000)
        self.genesis = Genesis(name="test", time=START, coordinator=usd.public.hex(), assets=assets, parameters=parameters)
        table = ShardTable(equal_ranges(shards))
        self.rules = [Rules(self.genesis, shard, table) for shard in self.shards]
        self.states = [State.genesis(rules) for rules in self.rules]
        self.channels: dict[tuple[int, int], deque[Bundle]] = {
            (a, b): deque() for a in self.shards for b in self.shards if a != b
        }
        self.receipts: list[dict[bytes, list[Receipt]]] = [{} for _ in self.shards]
        self.now = START
        self._keys = {address_of(key.public): key for key in self.issuers.values()}
        self._salt = count()

    def account(self, shard: int, number: int = 0) -> bytes:
        """An address that the shard keeps."""
        key = key_in(shard, number, len(self.shards))
        self._keys[address_of(key.public)] = key
        return address_of(key.public)

    def issuer(self, asset: str) -> bytes:
        return address_of(self.issuers[asset].public)

    def sign(
        self, *legs: Leg, valid_until: int | None = None, salt: int | None = None, network: bytes | None = None
    ) -> Transaction:
        order = Order(
            network or self.genesis.network,
            legs,
            "",
            self.now + 5_000 if valid_until is None else valid_until,
            (next(self._salt) if salt is None else salt).to_bytes(8, "big"),
        )
        return order.sign([self._keys[payer] for payer in order.payers])

    def pay(self, payer: bytes, payee: bytes, amount: int, asset: str = "USD") -> Transaction:
        return self.sign(Leg(payer, payee, asset, amount))

    def freeze(self, account: bytes, asset: str = "USD", action: Action = Action.FREEZE) -> Transaction:
        return self.sign(Leg(self.issuer(asset), account, asset, 0, action))

    def execute(
        self, shard: int, *transactions: Transaction, bundles: Sequence[Bundle] = (), parent: Execution | None = None
    ) -> Execution:
        """Execute the next block of a shard, without committing it."""
        base = parent.overlay if parent is not None else self.states[shard]
        pairs = [(transaction.id, transaction) for transaction in transactions]
        return execute(base, self.rules[shard], base.height + 1, self.now, bundles, pairs, Transaction.has_valid_signatures)

    def block(self, shard: int, *transactions: Transaction, take: int = 1 << 30, bundles: Sequence[Bundle] = ()) -> Execution:
        """Execute and commit: the transactions and at most ``take`` of the bundles that are on their way."""
        arriving = list(bundles)
        for source in self.shards:
            queue = self.channels.get((source, shard), deque())
            while queue and len(arriving) < take:
                arriving.append(queue.popleft())
        execution = self.execute(shard, *transactions, bundles=arriving)
        self.states[shard].commit(execution.overlay)
        shard_of = self.rules[shard].shards.shard_of
        assert all(shard_of(change.address) == shard for change in execution.effects.changes.balances)
        for bundle in execution.outbox:
            assert decode(Bundle, encode(bundle), MAX_BUNDLE_BYTES) == bundle
            self.channels[shard, bundle.destination].append(bundle)
        for receipt in execution.effects.receipts:
            self.receipts[shard].setdefault(receipt.transaction_id, []).append(receipt)
        assert decode(Effects, encode(execution.effects), 1 << 24) == execution.effects
        assert recompute_totals(self.states[shard]) == self.states[shard].totals()
        return execution

    def inject(self, source: int, destination: int, *records: Record) -> Execution:
        """The destination takes a bundle that the (captured) source made up."""
        assert not self.channels[source, destination]
        sequence = self.states[destination].cursor(source) + 1
        return self.block(destination, take=0, bundles=[Bundle(source, destination, sequence, records)])

    def settle(self) -> None:
        """Blocks in all shards until nothing is on its way."""
        while any(self.channels.values()):
            for shard in self.shards:
                self.block(shard)

    def fund(self, address: bytes, amount: int, asset: str = "USD") -> None:
        """Mint to the account and wait until it has arrived."""
        transaction = self.pay(self.issuer(asset), address, amount, asset)
        home = self.rules[0].shards.shard_of(self.issuer(asset))
        self.block(home, transaction)
        self.settle()
        assert self.receipts[home][transaction.id][-1].outcome == COMMITTED

    def balance(self, address: bytes, asset: str = "USD") -> tuple[int, int]:
        """(available, held)."""
        shard = self.rules[0].shards.shard_of(address)
        found = dict(self.states[shard].balances_of(address)).get(asset, Balance())
        return found.available, found.held

    def outcomes(self, shard: int, transaction: Transaction) -> list[tuple[Outcome, Code]]:
        return [(receipt.outcome, receipt.code) for receipt in self.receipts[shard].get(transaction.id, [])]

    def supply(self, asset: str) -> tuple[int, int]:
        """(sum of all balances and holds, minted - burned), over all shards."""
        totals = [total for state in self.states for total in state.totals().assets if total.asset == asset]
        return sum(t.available + t.held for t in totals), sum(t.minted - t.burned for t in totals)

    def in_flight(self, asset: str) -> int:
        """Exported minus imported units; below zero when a home shard took in what the participant still holds for it."""
        totals = [total for state in self.states for total in state.totals().assets if total.asset == asset]
        return sum(peer.exported - peer.imported for total in totals for peer in total.peers)
