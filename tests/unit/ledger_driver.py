"""A few shards' ledgers and the channels between them, without consensus: what the ledger's tests play on."""

from collections import defaultdict, deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import count

from msgspec import structs

from node.ledger.checkpoint import Slice
from node.ledger.execution import Execution, execute, genesis_header
from node.ledger.rules import FIGURES_PAUSE, Rules
from node.ledger.state import State
from node.ledger.totals import recompute_totals
from node.protocol.address import address_of
from node.protocol.block import Balance, Effects, Outcome, Receipt
from node.protocol.channel import Bundle, Record
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.entries import Entry
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.limits import MAX_BUNDLE_BYTES
from node.protocol.shards import ShardTable, equal_ranges
from node.protocol.transaction import Action, Leg, Order, Transaction

START, NETWORK = 1_000_000, b"test network id."
COMMITTED, REJECTED, PREPARED, EXPIRED = Outcome.COMMITTED, Outcome.REJECTED, Outcome.PREPARED, Outcome.EXPIRED
ASSETS = ("USD", "EUR")


@lru_cache(maxsize=1024)
def key_in(shard: int, number: int, shards: int) -> KeyPair:
    """The ``number``-th key of a fixed series whose address the shard keeps."""
    table = ShardTable(equal_ranges(shards))
    found = (key for i in count(1) if table.shard_of(address_of((key := KeyPair(i.to_bytes(32, "big"))).public)) == shard)
    for _ in range(number):
        next(found)
    return next(found)


class Disk:
    """What one shard's node keeps of its checkpoints.

    Attributes:
        slices: as they came.
        headers: by height.
        ids: of the replay set, by row.
        whole: (height, height of the header with its root) of the last checkpoint that is whole, or None.
    """

    def __init__(self, genesis: Genesis, state: State) -> None:
        self.slices: list[Slice] = []
        self.headers = [genesis_header(genesis, state.rules.shard, state)]
        self.ids: defaultdict[bytes, bytes] = defaultdict(bytes)
        self.whole: tuple[int, int] | None = None

    def take(self, part: Slice, execution: Execution) -> None:
        self.slices.append(part)
        for piece in execution.overlay.included:
            assert piece.start == len(self.ids[piece.key]) // 32
            self.ids[piece.key] += piece.ids
        roots = {"state_root": execution.state_root, "totals_hash": execution.totals_hash}
        self.headers.append(structs.replace(self.headers[0], height=execution.height, time=execution.time, **roots))
        if part.certified_at is not None:
            self.whole = part.height, part.certified_at

    def rows(self) -> dict[bytes, bytes | None]:
        """Those of the last whole checkpoint."""
        assert self.whole is not None
        return dict(row for part in self.slices if part.height <= self.whole[0] for row in part.rows)

    def restored(self, rules: Rules, rows: dict[bytes, bytes | None] | None = None) -> State:
        """``rows``: other ones in their place."""
        assert self.whole is not None
        height, certified_at = self.whole
        stored = self.rows() if rows is None else rows
        return State.restore(rules, self.headers[height], certified_at, stored.items(), lambda key, n: self.ids[key][: 32 * n])


class Ledgers:
    """USD is issued in shard 0, EUR in the last; nobody has anything yet."""

    def __init__(self, shards: int, checkpoint_interval: int = 5, **terms: int) -> None:
        """``terms``: fee and smallest balance of USD."""
        self.shards = range(shards)
        usd, eur = key_in(0, 9, shards), key_in(shards - 1, 10, shards)
        self.issuers = {"USD": usd, "EUR": eur}
        assets = (Asset("USD", 2, usd.public.hex(), **terms), Asset("EUR", 2, eur.public.hex()))
        times = {"heartbeat": 500, "view_timeout": 500, "validity_window": 10_000, "commit_timeout": 1_000}
        parameters = Parameters(checkpoint_interval=checkpoint_interval, **times)
        self.genesis = Genesis(name="test", time=START, coordinator=usd.public.hex(), assets=assets, parameters=parameters)
        self.table = ShardTable(equal_ranges(shards))
        self.rules = [Rules(self.genesis, NETWORK, shard, self.table) for shard in self.shards]
        self.states = [State.genesis(rules) for rules in self.rules]
        self.disks = [Disk(self.genesis, state) for state in self.states]
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
        until = self.now + 5_000 if valid_until is None else valid_until
        salted = (next(self._salt) if salt is None else salt).to_bytes(8, "big")
        order = Order(network or NETWORK, legs, "", until, salted)
        return order.sign([self._keys[payer] for payer in order.payers])

    def pay(self, payer: bytes, payee: bytes, amount: int, asset: str = "USD") -> Transaction:
        return self.sign(Leg(payer, payee, asset, amount))

    def freeze(self, account: bytes, asset: str = "USD", action: Action = Action.FREEZE) -> Transaction:
        return self.sign(Leg(self.issuer(asset), account, asset, 0, action))

    def execute(
        self,
        shard: int,
        *transactions: Transaction,
        bundles: Sequence[Bundle] = (),
        entries: Sequence[Entry] = (),
        parent: Execution | None = None,
    ) -> Execution:
        """Execute the next block of a shard, without committing it."""
        base = parent.overlay if parent is not None else self.states[shard]
        pairs = [(transaction.id, transaction) for transaction in transactions]
        valid = Transaction.has_valid_signatures
        return execute(base, self.rules[shard], base.height + 1, self.now, bundles, pairs, valid, entries)

    def block(
        self,
        shard: int,
        *transactions: Transaction,
        take: int = 1 << 30,
        bundles: Sequence[Bundle] = (),
        entries: Sequence[Entry] = (),
    ) -> Execution:
        """Execute and commit: the transactions and at most ``take`` of the bundles that are on their way."""
        arriving = list(bundles)
        for source in self.shards:
            queue = self.channels.get((source, shard), deque())
            while queue and len(arriving) < take:
                arriving.append(queue.popleft())
        execution = self.execute(shard, *transactions, bundles=arriving, entries=entries)
        state, effects = self.states[shard], execution.effects
        self.disks[shard].take(state.commit(execution.overlay), execution)
        assert all(self.table.shard_of(change.address) == shard for change in effects.changes.balances)
        for bundle in execution.outbox:
            assert decode(Bundle, encode(bundle), MAX_BUNDLE_BYTES) == bundle
            self.channels[shard, bundle.destination].append(bundle)
        for receipt in effects.receipts:
            self.receipts[shard].setdefault(receipt.transaction_id, []).append(receipt)
        assert decode(Effects, encode(effects), 1 << 24) == effects
        assert recompute_totals(state) == state.totals() == effects.totals
        return execution

    def inject(self, source: int, destination: int, *records: Record) -> tuple[Record, ...]:
        """The destination takes a bundle that the (captured) source made up; what it answers to it."""
        assert not self.channels[source, destination]
        sequence = self.states[destination].cursor(source) + 1
        execution = self.block(destination, take=0, bundles=[Bundle(source, destination, sequence, records)])
        answers = [self.channels[destination, source].pop() for bundle in execution.outbox if bundle.destination == source]
        return tuple(record for bundle in answers for record in bundle.records)

    def sent(self, source: int, destination: int) -> list[Record]:
        """What is on its way."""
        return [record for bundle in self.channels[source, destination] for record in bundle.records]

    def settle(self) -> None:
        """Blocks in all shards until nothing is on its way, and what waits for figures to cover it has them."""
        while any(self.channels.values()) or any(state.uncovered for state in self.states):
            if not any(self.channels.values()):
                self.now += FIGURES_PAUSE
            for shard in self.shards:
                self.block(shard)

    def fund(self, address: bytes, amount: int, asset: str = "USD") -> None:
        """Mint to the account and wait until it has arrived."""
        minted = self.pay(self.issuer(asset), address, amount, asset)
        self.block(home := self.table.shard_of(self.issuer(asset)), minted)
        self.settle()
        assert self.outcome(home, minted) == (COMMITTED, Code.OK)

    def balance(self, address: bytes, asset: str = "USD") -> tuple[int, int]:
        """(available, held)."""
        found = dict(self.states[self.table.shard_of(address)].balances_of(address)).get(asset, Balance())
        return found.available, found.held

    def outcomes(self, shard: int, transaction: Transaction) -> list[tuple[Outcome, Code]]:
        return [(receipt.outcome, receipt.code) for receipt in self.receipts[shard].get(transaction.id, [])]

    def outcome(self, shard: int, transaction: Transaction) -> tuple[Outcome, Code]:
        """The last one."""
        return self.outcomes(shard, transaction)[-1]

    def assert_conserved(self) -> None:
        """Whatever is on its way: what is inside and between the shards is what was issued, and nothing is negative."""
        for asset in ASSETS:
            totals = [total for state in self.states for total in state.totals().assets if total.asset == asset]
            flying = sum(peer.exported - peer.imported for total in totals for peer in total.peers)
            issued = sum(total.minted - total.burned for total in totals)
            assert sum(total.available + total.held for total in totals) == (issued - flying) % 2**64  # tallies begin again
        for state in self.states:
            assert all(min(balance.available, balance.held) >= 0 for balance in state.balances.values())

    def assert_settled(self) -> None:
        """Nothing is on its way any more: no holds, nothing undecided, both ends of every channel agree on what went through."""
        self.assert_conserved()
        flows = {(a, p.shard, t.asset): p for a in self.shards for t in self.states[a].totals().assets for p in t.peers}
        for (shard, peer, asset), flow in flows.items():
            assert (flow.exported, flow.imported) == (flows[peer, shard, asset].imported, flows[peer, shard, asset].exported)
        for state in self.states:
            assert state.totals().pending == 0
            assert not any(state.waiting_for.values())
            assert not any(state.prepared_for.values())
            assert all(total.held == 0 for total in state.totals().assets)
