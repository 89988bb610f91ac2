"""A whole network in one thread: the real ledger, certificates and epoch document, and no consensus (``tests.chains``).

It speaks the broker's contract as nodes and coordinator do, and can be told to misbehave.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import redis

from node.chronicle import Chronicle
from node.ledger.admission import admit
from node.protocol import topics
from node.protocol.address import address_of
from node.protocol.certificate import CertifiedBlock
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.queries import (
    Account,
    Answer,
    BlockList,
    GetAccount,
    GetBlocks,
    GetPending,
    NodeStatus,
    PendingList,
    Query,
    Request,
)
from node.protocol.topics import Refusal, Refusals, TransactionBatch
from node.protocol.transaction import Leg, Transaction, decode_transaction
from tests.chains import Network, Shard, key
from tests.successions import told_of

LIMIT = 1 << 24
HEARTBEAT = 0.5
BLOCK_INTERVAL = 0.02
USD_ISSUER = key("issuer USD")


class FakeNetwork:
    """Runs from ``start`` to ``stop``. The attributes below are switches for tests.

    Attributes:
        lose_blocks: so many produced blocks are not published; only a query gives them.
        hold: no blocks are made at all.
        forge: is given each certified block about to be published; what it returns goes out before it.
        refusing: members (by index) that refuse every transaction, with this code, instead of taking it in.
        absent: members (by index) that answer nothing.
        oldest: height of the first block that is kept.
        deaf: so many messages with transactions are not taken in (but counted in ``batches``).
        slow_commit: no shard takes in what others send it.
        silent: nobody says what an account holds.
        announcing: whether the coordinator speaks.
        asked: what members were asked, and under which name.
    """

    def __init__(self, broker_url: str, terms: Mapping[str, tuple[int, int]], standby: int = 0) -> None:
        """``terms``: of its assets, see ``Network``."""
        self.lose_blocks = self.deaf = 0.0
        self.hold = self.slow_commit = self.silent = False
        self.announcing = True
        self.forge: Callable[[CertifiedBlock], CertifiedBlock] | None = None
        self.refusing: dict[int, Code] = {}
        self.absent: set[int] = set()
        self.oldest = 1
        self.batches = 0
        self.heard: dict[bytes, int] = defaultdict(int)
        self.asked: list[tuple[Request, str]] = []
        self.chains = Network("fake", time=_now(), terms=terms, standby=standby, epoch_pause=100, reveal_time=1000)
        self.genesis, self.network = self.chains.genesis, self.chains.genesis.network
        self.chronicle = Chronicle(self.genesis)
        self.chronicle.begin(self.chains.document)
        self._waiting: dict[Chain, dict[bytes, Transaction]] = defaultdict(dict)
        self._made: dict[Chain, float] = defaultdict(float)
        self._url = broker_url
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._produce, self._announce)]

    def change(self, nodes: Iterable[KeyPair] = ()) -> None:
        """The next epoch begins, of these nodes, or all. Who listens hears of it; what blocks it took is only told when asked."""
        with self._lock:
            self.chronicle.restore(self.chains.change(nodes))
            body = told_of(self.chains.successions[-1])
        with redis.Redis.from_url(self._url, socket_timeout=2) as client:
            self._publish(client, topics.bulletins_topic(self.network), body)

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
        self._switch(switches)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, switches: Mapping[str, object]) -> None:
        with self._lock:  # a block that is being made is finished before
            for name, value in switches.items():
                setattr(self, name, value)

    def height(self, shard: int) -> int:
        return len(self.chains.shards[shard].chain)

    def sign(self, payer: KeyPair, payee: bytes, amount: int, memo: str = "") -> Transaction:
        """A payment of USD, valid for a minute from now."""
        paid = Leg(address_of(payer.public), payee, "USD", amount)
        return self.chains.sign([payer], paid, memo=memo, valid_until=_now() + 60_000)

    def hand_in(self, transaction: Transaction) -> None:
        """Have it in the next block of its home shard, around any gateway."""
        home = self.chains.document.shards.shard_of(transaction.order.payers[0])
        with self._lock:
            self._waiting[Chain(self.chains.document.number, home)][transaction.id] = transaction

    # -- what nodes and coordinator do over the broker

    def _announce(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=2)
        body = encode(self.chains.announcement(since=self.genesis.time))
        while not self._stopping.wait(0.2):
            if self.announcing:
                self._publish(client, topics.epoch_topic(self.network), body)

    def _listen(self) -> None:
        kinds = {kind: f"shardpay:{self.network.hex()}:{kind}:" for kind in ("tx", "query")}
        asks = topics.asks_topic(self.network)
        while not self._stopping.is_set():
            try:
                client = redis.Redis.from_url(self._url, socket_timeout=2)
                subscription = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                subscription.psubscribe(*(f"{prefix}*" for prefix in kinds.values()), asks)
                while not self._stopping.is_set():
                    if (message := subscription.get_message(timeout=0.1)) is not None:
                        self._hear(client, message["channel"].decode(), message["data"])
            except (redis.RedisError, OSError):
                time.sleep(0.05)

    def _hear(self, client: "redis.Redis", topic: str, body: bytes) -> None:
        if topic == topics.asks_topic(self.network):
            with self._lock:
                if self.chains.shards[0].chain:
                    self.chronicle.hear(encode(self.chains.shards[0].bulletin()))
                answer = self.chronicle.answer(body, int(time.monotonic() * 1000))
            if answer is not None:
                self._publish(client, topics.bulletins_topic(self.network), answer)
            return
        *_, kind, epoch, number = topic.split(":")
        if (shard := self.chains.chains.get(Chain(int(epoch), int(number)))) is not None:
            if kind == "query":
                self._answer(client, shard, decode(Query, body, LIMIT))
            else:
                self._take(client, shard, decode(TransactionBatch, body, LIMIT))

    def _produce(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=2)
        while not self._stopping.wait(BLOCK_INTERVAL):
            for shard in self.chains.shards:
                with self._lock:
                    if shard not in self.chains.shards:
                        break  # another epoch has begun
                    block, lost = self._make_block(shard), self.lose_blocks > 0
                    if block is not None and lost:
                        self.lose_blocks -= 1
                if block is None or lost:
                    continue
                topic = topics.blocks_topic(self.network, shard.electorate.chain)
                if (forge := self.forge) is not None:
                    self._publish(client, topic, encode(forge(block)))
                self._publish(client, topic, encode(block))

    def _make_block(self, shard: Shard) -> CertifiedBlock | None:
        """The next one, when there is something to put in or a heartbeat is due."""
        waiting = self._waiting[shard.electorate.chain]
        bundles = [] if self.slow_commit else self.chains.waiting(shard.number)
        idle = not waiting and not bundles and time.monotonic() - self._made[shard.electorate.chain] < HEARTBEAT
        if self.hold or idle:
            return None
        now = max(_now(), shard.head.time)
        taken = [waiting.pop(one) for one in list(waiting)[:500]]
        chosen = [t for t in taken if admit(shard.state, shard.rules, t.id, t, now) is Code.OK]
        self._made[shard.electorate.chain] = time.monotonic()
        return shard.add(*chosen, bundles=bundles, after=now - shard.head.time)

    def _publish(self, client: "redis.Redis", topic: str, body: bytes) -> None:
        with suppress(redis.RedisError, OSError):
            client.publish(topic, body)

    def _take(self, client: "redis.Redis", shard: Shard, batch: TransactionBatch) -> None:
        self.batches += 1
        with self._lock:
            lost = self.deaf > 0
            if lost:
                self.deaf -= 1
        for encoded in batch.transactions:
            try:
                transaction = decode_transaction(encoded)
            except DecodeError:
                continue
            self.heard[transaction.id] += 1
            for member, code in self.refusing.items():
                refusals = Refusals(shard.number, member, (Refusal(transaction.id, code),)).signed(
                    shard.members[member], shard.electorate
                )
                self._publish(client, topics.refusals_topic(self.network, shard.electorate.chain), encode(refusals))
            if not lost and transaction.has_valid_signatures():
                with self._lock:
                    self._waiting[shard.electorate.chain][transaction.id] = transaction

    def _answer(self, client: "redis.Redis", shard: Shard, query: Query) -> None:
        self.asked.append((query.request, query.client))
        if self.silent and isinstance(query.request, GetAccount):
            return
        for member in set(range(len(shard.members)) if query.member < 0 else [query.member]) - self.absent:
            with self._lock:
                reply = shard.reply(query, member, self._answer_of(shard, member, query))
            self._publish(client, topics.replies_topic(self.network, query.client), reply)

    def _answer_of(self, shard: Shard, member: int, query: Query) -> Answer:
        request, state, waiting = query.request, shard.state, self._waiting[shard.electorate.chain]
        if isinstance(request, GetBlocks):
            kept = shard.chain[request.first - 1 : request.first - 1 + request.count] if request.first >= self.oldest else ()
            return BlockList(tuple(kept), self.oldest)
        if isinstance(request, GetAccount):
            return Account(state.height, state.balances_of(request.address))
        if isinstance(request, GetPending):
            return PendingList(len(waiting), tuple((t.id, encode(t)) for t in list(waiting.values())[: request.limit]))
        document = self.chains.documents[shard.electorate.epoch - 1]
        name = next(one for one in document.committees if one.shard == shard.number).members[member].name
        return NodeStatus(name, state.height, state.height, state.state_root, 0, len(waiting), state.totals().pending)


def _now() -> int:
    return time.time_ns() // 1_000_000
