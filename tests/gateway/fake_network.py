"""A whole network in one thread: real keys, signatures, certificates, epoch document and broker; a ledger of a few lines.

It speaks the broker's contract as nodes and coordinator do, and can be told to misbehave.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256

import redis

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
    Receipt,
    Totals,
    payload_root,
)
from node.protocol.certificate import CertifiedBlock, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Prepare, Record
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.epoch import Announcement, PhaseNotice, Registration, SignedDocument, first_document
from node.protocol.genesis import Asset, Genesis, Parameters, Phase
from node.protocol.puzzle import identity_prefix, search
from node.protocol.queries import (
    Account,
    BlockList,
    GetAccount,
    GetBlocks,
    GetPending,
    NodeStatus,
    PendingList,
    Query,
    sign_reply,
)
from node.protocol.topics import (
    Refusal,
    Refusals,
    TransactionBatch,
    blocks_topic,
    epoch_topic,
    queries_topic,
    refusals_topic,
    replies_topic,
    transactions_topic,
)
from node.protocol.transaction import Order, decode_transaction

LIMIT = 1 << 24
SHARDS = 2
SIZE = 4
HEARTBEAT = 0.5
BLOCK_INTERVAL = 0.02


def key(name: str) -> KeyPair:
    return KeyPair(sha256(name.encode()).digest())


COORDINATOR, USD_ISSUER, VND_ISSUER = key("coordinator"), key("issuer of USD"), key("issuer of VND")


@dataclass
class Chain:
    """One shard: its chain and its ledger."""

    shard: int
    keys: list[KeyPair]
    blocks: list[CertifiedBlock] = field(default_factory=list)
    balances: dict[tuple[bytes, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    mempool: dict[bytes, bytes] = field(default_factory=dict)
    inbox: list[tuple[Record, int]] = field(default_factory=list)
    """Records from other shards: (record, height of the block there)."""
    ready: list[bytes] = field(default_factory=list)
    """Cross-shard transactions all participants have voted yes on."""
    decided: set[bytes] = field(default_factory=set)
    orders: dict[bytes, Order] = field(default_factory=dict)
    last_block_at: float = 0.0


class FakeNetwork:
    """Runs from ``start`` to ``stop``. The attributes below are switches for tests.

    Attributes:
        lose_blocks: produced blocks are not published; only a query gives them.
        hold: no blocks are made at all.
        forge: is given each certified block about to be published; what it returns goes out before it.
        refusing: members (by index) that refuse every transaction, with this code, instead of taking it in.
        deaf: transactions are not heard (but counted in ``batches``).
        announcing: whether the coordinator speaks.
    """

    def __init__(self, broker_url: str) -> None:
        self.lose_blocks = self.hold = self.deaf = False
        self.announcing = True
        self.forge: Callable[[CertifiedBlock], CertifiedBlock] | None = None
        self.refusing: dict[int, Code] = {}
        self.slow_commit = False
        self.batches = 0
        self.heard: dict[bytes, int] = defaultdict(int)
        parameters = Parameters(committees=SHARDS, committee_size=SIZE, puzzle_difficulty_bits=2, block_difficulty_bits=0)
        assets = (Asset("USD", 2, USD_ISSUER.public.hex()), Asset("VND", 0, VND_ISSUER.public.hex()))
        start = time.time_ns() // 1_000_000
        self.genesis = Genesis(
            name="fake", time=start, coordinator=COORDINATOR.public.hex(), assets=assets, parameters=parameters
        )
        self.network = self.genesis.network
        nodes = [key(f"node {i}") for i in range(SHARDS * SIZE)]
        document = first_document(self.genesis, [self._registration(k, f"node-{i}") for i, k in enumerate(nodes)])
        self.document = SignedDocument(document, COORDINATOR.sign(document.hash))
        self.notice = PhaseNotice(self.network, 1, Phase.MINING, start, len(nodes)).signed(COORDINATOR)
        by_public = {k.public: k for k in nodes}
        self.chains = {
            s: Chain(s, [by_public[public] for public in electorate.keys]) for s, electorate in document.electorates.items()
        }
        self.issuers = {asset.code: asset.issuer_address for asset in assets}
        self._url = broker_url
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._produce, self._announce)]

    def _registration(self, node: KeyPair, name: str) -> Registration:
        prefix = identity_prefix(self.network, 1, self.genesis.hash, node.public)
        nonce = search(prefix, self.genesis.parameters.puzzle_difficulty_bits, 0, 10_000)
        assert nonce is not None
        return Registration(self.network, 1, node.public, name, ("/ip4/127.0.0.1/tcp/1",), nonce).signed(node)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    @contextmanager
    def switched(self, **switches: object) -> Iterator[None]:
        """Some switches, for a while."""
        before = {name: getattr(self, name) for name in switches}
        for name, value in switches.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def balance(self, address: bytes, asset: str = "USD") -> tuple[int, int]:
        """(available, held) in smallest units."""
        with self._lock:
            available, held = self.chains[self.shard_of(address)].balances[address, asset]
            return available, held

    def shard_of(self, address: bytes) -> int:
        return self.document.document.shards.shard_of(address)

    def height(self, shard: int) -> int:
        return len(self.chains[shard].blocks)

    # -- what nodes and coordinator do over the broker

    def _announce(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=2)
        while not self._stopping.wait(0.2):
            if self.announcing:
                self._publish(client, epoch_topic(self.network), encode(Announcement(self.notice, self.document)))

    def _listen(self) -> None:
        transactions = {transactions_topic(self.network, s).encode(): s for s in self.chains}
        queries = {queries_topic(self.network, s).encode(): s for s in self.chains}
        while not self._stopping.is_set():
            try:
                client = redis.Redis.from_url(self._url, socket_timeout=2)
                subscription = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                subscription.subscribe(*transactions, *queries)
                while not self._stopping.is_set():
                    message = subscription.get_message(timeout=0.1)
                    if message is None:
                        continue
                    if message["channel"] in queries:
                        self._answer(client, queries[message["channel"]], decode(Query, message["data"], LIMIT))
                    else:
                        self._take(client, transactions[message["channel"]], decode(TransactionBatch, message["data"], LIMIT))
            except (redis.RedisError, OSError):
                time.sleep(0.05)

    def _produce(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=2)
        while not self._stopping.wait(BLOCK_INTERVAL):
            for chain in self.chains.values():
                idle = not (chain.mempool or chain.inbox or (chain.ready and not self.slow_commit))
                if self.hold or (idle and time.monotonic() - chain.last_block_at < HEARTBEAT):
                    continue
                with self._lock:
                    block = self._make_block(chain)
                    chain.last_block_at = time.monotonic()
                if self.lose_blocks:
                    continue
                channel = blocks_topic(self.network, chain.shard)
                forge = self.forge
                if forge is not None:
                    self._publish(client, channel, encode(forge(block)))
                self._publish(client, channel, encode(block))

    def _publish(self, client: "redis.Redis", channel: str, body: bytes) -> None:
        with suppress(redis.RedisError, OSError):
            client.publish(channel, body)

    def _take(self, client: "redis.Redis", shard: int, batch: TransactionBatch) -> None:
        chain = self.chains[shard]
        self.batches += 1
        for encoded in batch.transactions:
            try:
                transaction = decode_transaction(encoded)
            except DecodeError:
                continue
            id = transaction.id
            self.heard[id] += 1
            for member, code in self.refusing.items():
                refusals = Refusals(shard, 1, member, (Refusal(id, code),)).signed(chain.keys[member])
                self._publish(client, refusals_topic(self.network, shard), encode(refusals))
            if self.deaf or not transaction.has_valid_signatures():
                continue
            with self._lock:
                if id not in chain.decided:
                    chain.mempool[id] = encoded

    def _answer(self, client: "redis.Redis", shard: int, query: Query) -> None:
        chain = self.chains[shard]
        for member in range(SIZE) if query.member < 0 else [query.member]:
            with self._lock:
                answer = self._answer_of(chain, member, query)
            reply = sign_reply(query.id, shard, 1, member, answer, chain.keys[member])
            self._publish(client, replies_topic(self.network, query.client), reply)

    def _answer_of(self, chain: Chain, member: int, query: Query) -> NodeStatus | BlockList | Account | PendingList:
        request, height = query.request, len(chain.blocks)
        if isinstance(request, GetBlocks):
            return BlockList(tuple(chain.blocks[request.first - 1 : request.first - 1 + request.count]))
        if isinstance(request, GetAccount):
            mine = sorted((code, Balance(b[0], b[1])) for (a, code), b in chain.balances.items() if a == request.address)
            return Account(height, tuple(mine))
        if isinstance(request, GetPending):
            return PendingList(len(chain.mempool), tuple(list(chain.mempool.items())[: request.limit]))
        name = self.document.document.committees[chain.shard].members[member].name
        root = chain.blocks[-1].block.header.state_root if chain.blocks else ZERO_HASH
        return NodeStatus(name, height, height, root, 0, len(chain.mempool), len(chain.ready))

    # -- the ledger: holds, and a two-phase commit in three blocks (prepare at home, prepare there, commit at home, apply there)

    def _make_block(self, chain: Chain) -> CertifiedBlock:
        clock = time.time_ns() // 1_000_000
        receipts: list[Receipt] = []
        touched: set[tuple[bytes, str]] = set()
        taken = [chain.mempool.pop(id) for id in list(chain.mempool)[:500]]
        bundles = self._take_records(chain, receipts, touched)
        if not self.slow_commit:
            for id in chain.ready:
                self._settle(chain, chain.orders[id], touched, home=True)
                receipts.append(Receipt(id, Outcome.COMMITTED))
                self._send(chain, chain.orders[id], Decision(id, True))
            chain.ready.clear()
        for encoded in taken:
            order = decode_transaction(encoded).order
            receipts.append(self._begin(chain, order, encoded, clock, touched))
        changes = Changes(
            tuple(BalanceChange(a, c, Balance(chain.balances[a, c][0], chain.balances[a, c][1])) for a, c in sorted(touched)),
            ZERO_HASH,
        )
        effects = Effects(tuple(receipts), changes, Totals((AssetTotal("USD", 0, 0, 0, 0, ()),), 0))
        block = self._header(chain, tuple(bundles), tuple(taken), effects, clock)
        certified = self.certify(block, effects)
        chain.blocks.append(certified)
        return certified

    def certify(self, block: Block, effects: Effects, keys: list[KeyPair] | None = None) -> CertifiedBlock:
        """A certificate over a block, by its committee or by ``keys``."""
        header = block.header
        electorate = self.document.document.electorates[header.shard]
        signers = keys or self.chains[header.shard].keys
        votes = [
            sign_vote(k, i, electorate, VoteKind.FINALIZE, header.view, header.hash)
            for i, k in enumerate(signers[: electorate.quorum])
        ]
        return CertifiedBlock(block, Finality((), make_certificate(votes, electorate)), effects)

    def _header(
        self, chain: Chain, bundles: tuple[bytes, ...], transactions: tuple[bytes, ...], effects: Effects, clock: int
    ) -> Block:
        height = len(chain.blocks) + 1
        parent = chain.blocks[-1].block.header.hash if chain.blocks else ZERO_HASH
        header = Header(
            self.network, chain.shard, 1, height, height, parent, clock, 0, payload_root(bundles, transactions),
            merkle.root([encode(r) for r in effects.receipts]), merkle.EMPTY_ROOT, effects.changes.hash(),
            effects.totals.hash(), sha256(parent).digest(), bytes(8),
        )  # fmt: skip
        return Block(header, bundles, transactions)

    def _begin(self, chain: Chain, order: Order, encoded: bytes, clock: int, touched: set[tuple[bytes, str]]) -> Receipt:
        id = order.id
        chain.decided.add(id)
        if order.valid_until < clock:
            return Receipt(id, Outcome.EXPIRED, Code.EXPIRED)
        for leg in order.legs:
            if leg.payer != self.issuers[leg.asset]:
                if chain.balances[leg.payer, leg.asset][0] < leg.amount:
                    return Receipt(id, Outcome.REJECTED, Code.INSUFFICIENT_FUNDS)
                account = chain.balances[leg.payer, leg.asset]
                account[0] -= leg.amount
                account[1] += leg.amount
                touched.add((leg.payer, leg.asset))
        if all(self.shard_of(leg.payee) == chain.shard for leg in order.legs):
            self._settle(chain, order, touched, home=True)
            return Receipt(id, Outcome.COMMITTED)
        chain.orders[id] = order
        self._send(chain, order, Prepare(encoded, clock + 30_000))
        return Receipt(id, Outcome.PREPARED)

    def _send(self, chain: Chain, order: Order, record: Record) -> None:
        for shard in {self.shard_of(leg.payee) for leg in order.legs} - {chain.shard}:
            self.chains[shard].inbox.append((record, len(chain.blocks) + 1))

    def _settle(self, chain: Chain, order: Order, touched: set[tuple[bytes, str]], home: bool) -> None:
        for leg in order.legs:
            if home and leg.payer != self.issuers[leg.asset]:
                chain.balances[leg.payer, leg.asset][1] -= leg.amount
                touched.add((leg.payer, leg.asset))
            if self.shard_of(leg.payee) == chain.shard:
                chain.balances[leg.payee, leg.asset][0] += leg.amount
                touched.add((leg.payee, leg.asset))

    def _take_records(self, chain: Chain, receipts: list[Receipt], touched: set[tuple[bytes, str]]) -> list[bytes]:
        bundles = []
        for record, height in chain.inbox:
            source = self.chains[1 - chain.shard]
            if isinstance(record, Prepare):
                order = decode_transaction(record.transaction).order
                chain.orders[order.id] = order
                receipts.append(Receipt(order.id, Outcome.PREPARED))
                source.ready.append(order.id)
            elif isinstance(record, Decision):
                self._settle(chain, chain.orders[record.transaction_id], touched, home=False)
                receipts.append(Receipt(record.transaction_id, Outcome.COMMITTED))
            bundle = Bundle(source.shard, chain.shard, len(chain.blocks) + 1, (record,))
            origin = source.blocks[height - 1]
            certified = CertifiedBundle(bundle, origin.block.header, origin.finality, merkle.branch([encode(bundle)], 0))
            bundles.append(encode(certified))
        chain.inbox.clear()
        return bundles


def address(pair: KeyPair) -> bytes:
    return address_of(pair.public)
