"""The node's shell on trio: it tells the mind of what comes in and performs its effects - all that persist first, durably (rows
in one transaction, the epoch document in a file of its own; ``persisting`` says what may wait), then the rest in order.

One loop owns the mind. Everything that takes long (disk, signatures, mining) happens elsewhere and comes back as an event;
while it waits for the disk, further events gather and are handled, persisted and answered together.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
import trio
from msgspec import Raw
from msgspec.msgpack import Decoder

from config.settings import NodeSettings
from node.allowance import Allowance
from node.database import StorageFull
from node.effects import (
    AcceptDocument,
    Ban,
    Broadcast,
    CheckSignatures,
    Effect,
    Meet,
    Mine,
    Persist,
    Publish,
    Recover,
    ReplyBlocks,
    Row,
    Send,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    StopMining,
    Subscribe,
    Tell,
)
from node.events import Instant, Mined
from node.handing_over import read_checkpoint, read_parts
from node.intake import Intake
from node.metrics import Metrics
from node.mining import Miner
from node.network.broker import Broker
from node.network.broker import Message as Published
from node.network.connection import VERSIONS
from node.network.events import Message
from node.network.links import VISITS
from node.network.transport import Transport
from node.node import Node
from node.persisting import Persisting
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Committee, Registration
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_BATCH_BODY_BYTES, MAX_FRAME_BYTES, MAX_LISTED_BYTES, MAX_QUERY_BYTES
from node.protocol.messages import CheckpointReply, PartsReply, PeerMessage, StoredBundleDelivery, StoredChainReply
from node.protocol.queries import EVERYONE, GetBlocks, GetPending, Query
from node.protocol.reports import Notable
from node.protocol.topics import TransactionBatch, queries_topic, transactions_topic
from node.recovery import read_stored, recover, write_document
from node.reporter import Reporter
from node.storage import Storage
from node.verifying import Verifying

log = structlog.get_logger(__name__)

SERVE_BYTES = 1 << 20
"""Blocks or bundles in one answer, bytes, to a peer and to a client; more only if it is a single one."""
SMALL_ANSWERS, SMALL_ANSWER_BYTES = 500, 1 << 10
"""How many of them a second; what each counts for."""
LARGE_ANSWER_RATE = 4 << 20
"""Bytes a second."""
_BLOCK_BYTES = 64 << 10
"""What a block asked for is expected to have, until it has been read."""
_BROKER_RUN = 100
"""Messages of the broker looked at before others have their turn."""
_IDLE_SECONDS = 0.25
_FULL_SECONDS = 2.0

_decode_parts = Decoder(tuple[Raw, Raw, Raw]).decode
"""An encoded ``CertifiedBlock``'s block, finality and effects, each still encoded."""


class Runtime:
    """One node. ``run`` returns only by being cancelled or by raising.

    Raises:
        StorageError: the database cannot be used.
        Diverged: the committee finalized what does not execute here.
        InvalidDocument: from the constructor, when the stored document is damaged.
        OSError: a port is taken.
    """

    def __init__(
        self,
        settings: NodeSettings,
        genesis: Genesis,
        key: KeyPair,
        storage: Storage,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        """``versions``: of the protocol, that are spoken with others."""
        self._settings = settings
        self._genesis = genesis
        self._key = key
        self._storage = storage
        self._document_file = Path(settings.data) / "epoch-document"
        stored = read_stored(storage, self._document_file)
        addresses = settings.advertise or (settings.listen,)
        self.node = Node(genesis, key, settings.name, addresses, stored, settings.keep_blocks)
        self._own: frozenset[bytes] = frozenset()
        """The public keys of the own committee."""
        self._transport = Transport(key, settings.listen, self._accepts, known=self._stays, visits=VISITS, versions=versions)
        self._broker = Broker(settings.broker)
        self._queries = Broker(settings.broker)  # a line of their own, so that a flood of them holds up no payment
        self._miner = Miner(settings.mining_workers)
        self._metrics = Metrics()
        lines = (self._broker, self._queries)
        self.reporter = Reporter(settings.name, genesis.network, self.node, self._transport, lines, self._miner, self._metrics)
        self._intake = Intake()
        self._persisting = Persisting()
        self._verifying = Verifying(self._intake.put)
        self._small = Allowance(SMALL_ANSWERS * SMALL_ANSWER_BYTES)
        self._large = Allowance(LARGE_ANSWER_RATE)
        self._disk = trio.CapacityLimiter(1)
        self._replying = trio.CapacityLimiter(1)
        self._handing_over, self._handed_to = trio.CapacityLimiter(1), set[bytes]()
        self._mining = trio.CancelScope()
        self._encoded: tuple[PeerMessage | None, bytes] = (None, b"")
        self._nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._transport.run)
            await nursery.start(self._broker.run)
            await nursery.start(self._queries.run)
            await nursery.start(self._miner.run)
            await nursery.start(self._metrics.serve, self._settings.metrics_host, self._settings.metrics_port)
            nursery.start_soon(self._verifying.run)
            nursery.start_soon(self._receive_frames)
            nursery.start_soon(self._receive_published, self._broker.inbox, self._on_batch)
            nursery.start_soon(self._receive_published, self._queries.inbox, self._on_query)
            nursery.start_soon(self.reporter.run)
            self._transport.connect(self._genesis.coordinator_key, [self._settings.coordinator])
            self.reporter.notable("started")
            try:
                await self._loop()
            finally:  # a clean end: what may wait need not be fetched again
                self._storage.write(_rows(self._persisting.flush()))

    @property
    def _at(self) -> Instant:
        """Now."""
        return Instant(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        await self._perform(self.node.start())
        while True:
            await self._wait()
            effects: list[Effect] = []
            for event in self._intake.take(self._verifying.has_room):
                effects += self.node.handle(event, self._at)
            await self._perform(effects)

    async def _wait(self) -> None:
        """Until there is an event, or the mind's deadline is due."""
        deadline = self.node.deadline
        seconds = _IDLE_SECONDS if deadline is None else min(_IDLE_SECONDS, (deadline - self._at.now) / 1000)
        await self._intake.wait(seconds, self._verifying.has_room)

    # -- effects ---------------------------------------------------------------------------------------------------

    async def _perform(self, effects: Sequence[Effect]) -> None:
        due = self._persisting.take(effects, self._at.now)
        if rows := _rows(due):
            started = time.perf_counter()
            await self._store(self._storage.write, rows)
            self._metrics.write_seconds(time.perf_counter() - started)
        for record in due:
            if isinstance(record, AcceptDocument):
                await self._store(write_document, self._document_file, record.accepted)
        for effect in effects:
            self._do(effect)

    async def _store(self, write: Callable[..., None], *arguments: object) -> None:
        """Write, in a thread. While the disk is full this node stands still: it sends nothing that is not stored."""
        is_full = False
        while True:
            try:
                await trio.to_thread.run_sync(write, *arguments, limiter=self._disk)
            except StorageFull as error:
                if not is_full:
                    self.reporter.notable(f"standing still: {error}")
                is_full = True
                await trio.sleep(_FULL_SECONDS)
                continue
            if is_full:
                self.reporter.notable("there is room on the disk again; going on")
            return

    def _do(self, effect: Effect) -> None:
        """Perform an effect that is not about the disk; none of them waits."""
        match effect:
            case Send() | Broadcast() | Tell() | Meet() | Ban():
                self._talk(effect)
            case SendBlocks() | SendBundles() | ReplyBlocks() | SendCheckpoint() | SendParts():
                self._serve(effect)
            case Recover() | CheckSignatures() | Mine() | StopMining():
                self._work(effect)
            case Subscribe(shard):
                self._broker.subscribe({transactions_topic(self._genesis.network, Chain(1, shard)): MAX_BATCH_BODY_BYTES})
                self._queries.subscribe({queries_topic(self._genesis.network, Chain(1, shard)): MAX_QUERY_BYTES})
            case Publish(topic, body):
                self._broker.publish(topic, body)
            case Notable(text):
                self.reporter.notable(text)

    def _serve(self, effect: SendBlocks | SendBundles | ReplyBlocks | SendCheckpoint | SendParts) -> None:
        """Read from storage what somebody asked for, in a thread."""
        match effect:
            case SendBlocks(peer, first):
                self._nursery.start_soon(self._send_blocks, peer, first)
            case SendBundles():
                self._nursery.start_soon(self._send_bundles, effect)
            case ReplyBlocks(query):
                self._nursery.start_soon(self._reply_blocks, query)
            case SendCheckpoint() | SendParts() if effect.peer not in self._handed_to:
                self._handed_to.add(effect.peer)
                self._nursery.start_soon(self._hand_over, effect)

    def _work(self, effect: Recover | CheckSignatures | Mine | StopMining) -> None:
        match effect:
            case Recover():
                self._nursery.start_soon(self._recover, effect)
            case CheckSignatures():
                self._verifying.check(effect)
            case Mine():
                self._mining.cancel()
                self._mining = trio.CancelScope()
                self._nursery.start_soon(self._mine, self._mining, effect)
            case StopMining():
                self._mining.cancel()

    def _talk(self, effect: Send | Broadcast | Tell | Meet | Ban) -> None:
        match effect:
            case Send(peer, message):
                self._send(peer, self._frame(message))
            case Broadcast(message):
                assert self.node.electorate is not None, "only a member broadcasts"
                frame = self._frame(message)
                for key in self.node.electorate.keys:
                    if key != self._key.public:
                        self._send(key, frame)
            case Tell(message):
                self._transport.send(self._genesis.coordinator_key, encode(message))
            case Meet(own, others):
                self._meet(own.members if own is not None else (), others)
            case Ban(peer, reason):
                self.reporter.notable(f"dropped {self.reporter.name_of(peer)}: {reason}")
                self._transport.ban(peer)

    def _meet(self, own: Sequence[Registration], others: Sequence[Committee]) -> None:
        """Of each pair in the own committee, the one with the greater key dials."""
        self._transport.reach({member.public_key: member.addresses for other in others for member in other.members})
        before, self._own = self._own, frozenset(member.public_key for member in own)
        for peer in before - self._own:
            self._transport.disconnect(peer)
        for member in own:
            if member.public_key < self._key.public:
                self._transport.connect(member.public_key, member.addresses)

    def _frame(self, message: PeerMessage) -> bytes:
        """A message goes to several peers in a row: it is encoded once."""
        if self._encoded[0] is not message:
            self._encoded = (message, encode(message))
        return self._encoded[1]

    def _send(self, peer: bytes, frame: bytes) -> None:
        if len(frame) <= MAX_FRAME_BYTES:
            self._transport.send(peer, frame)
        else:
            log.error("a message is too large to be sent", bytes=len(frame))

    async def _send_blocks(self, peer: bytes, first: int) -> None:
        """Blocks are passed on as they are stored, without taking them apart, and without their effects."""
        stored = await trio.to_thread.run_sync(self._storage.blocks, first, SERVE_BYTES)
        if stored:
            parts = map(_decode_parts, stored)
            self._send(peer, encode(StoredChainReply(tuple((block, finality) for block, finality, _ in parts))))

    async def _send_bundles(self, wanted: SendBundles) -> None:
        limit = 0 if wanted.is_alone else SERVE_BYTES
        for bundle in await trio.to_thread.run_sync(self._storage.bundles, wanted.destination, wanted.sequence, limit):
            self._send(wanted.peer, encode(StoredBundleDelivery(Raw(bundle))))

    async def _hand_over(self, wanted: SendCheckpoint | SendParts) -> None:
        """One answer at a time, and to each peer: who asks for more than can be read meanwhile does without."""
        try:
            with suppress(DecodeError):  # another ledger took its place just now
                frame = await trio.to_thread.run_sync(self._read_answer, wanted, limiter=self._handing_over)
                self._send(wanted.peer, frame)
        finally:
            self._handed_to.discard(wanted.peer)

    def _read_answer(self, wanted: SendCheckpoint | SendParts) -> bytes:
        match wanted:
            case SendCheckpoint(_, height, certified_at, root):
                return encode(CheckpointReply(read_checkpoint(self._storage, height, certified_at, root)))
            case SendParts(_, height, parts):
                return encode(PartsReply(height, read_parts(self._storage, height, parts)))

    async def _reply_blocks(self, query: Query) -> None:
        """One at a time: a block may have megabytes."""
        request, replica = query.request, self.node.replica
        assert isinstance(request, GetBlocks)
        if replica is None:  # another ledger is being brought back
            return

        def read_and_sign() -> Publish:
            stored = self._storage.blocks(request.first, SERVE_BYTES, request.count)
            return replica.sign_blocks(query, stored, self._storage.oldest)

        self._intake.question_waits()
        try:
            reply = await trio.to_thread.run_sync(read_and_sign, limiter=self._replying)
        finally:
            self._intake.question_answered()
        self._large.correct(query.client, len(reply.body) - _expected(query), trio.current_time())
        self._do(reply)

    # -- work that takes long --------------------------------------------------------------------------------------

    async def _recover(self, wanted: Recover) -> None:
        self._intake.put(await trio.to_thread.run_sync(recover, self._storage, wanted.rules, wanted.electorate))

    async def _mine(self, scope: trio.CancelScope, work: Mine) -> None:
        with scope:
            self._intake.put(Mined(work.token, await self._miner.solve(work.prefix, work.bits)))

    # -- what comes in ---------------------------------------------------------------------------------------------

    def _accepts(self, public_key: bytes) -> bool:
        document = self.node.membership.document
        return document is not None and document.seat_of(public_key) is not None

    def _stays(self, public_key: bytes) -> bool:
        """Whether a connection with this peer is kept, used or not."""
        return public_key in self._own or public_key == self._genesis.coordinator_key

    async def _receive_frames(self) -> None:
        async for item in self._transport.inbox:
            await self._intake.put_when_there_is_room(item, len(item.frame) if isinstance(item, Message) else 0)

    async def _receive_published(self, inbox: trio.MemoryReceiveChannel[Published], take_in: Callable[[bytes], None]) -> None:
        async for _, body in inbox:
            self._take_in(take_in, body)
            with suppress(trio.WouldBlock):  # waiting for each of many would cost more than most of them do
                for _ in range(_BROKER_RUN):
                    self._take_in(take_in, inbox.receive_nowait()[1])

    def _take_in(self, take_in: Callable[[bytes], None], body: bytes) -> None:
        try:
            take_in(body)
        except DecodeError:
            self._metrics.bad_broker_message()

    def _on_batch(self, body: bytes) -> None:
        self._intake.offer_transactions(decode(TransactionBatch, body, MAX_BATCH_BODY_BYTES).transactions)

    def _on_query(self, body: bytes) -> None:
        """Pass on what this member is to answer, as far as it may cost so much."""
        query, replica = decode(Query, body, MAX_QUERY_BYTES), self.node.replica
        if replica is None:  # another ledger is being brought back
            return
        if query.member == replica.member or (query.member == EVERYONE and query.is_small):
            allowance = self._small if query.is_small else self._large
            if allowance.admit(query.client, _expected(query), trio.current_time()):
                self._intake.offer_question(query)


def _rows(records: Sequence[Persist]) -> list[Row]:
    """What goes into the database."""
    return [record for record in records if not isinstance(record, AcceptDocument)]


def _expected(query: Query) -> int:
    """What an answer is expected to have, bytes."""
    match query.request:
        case GetBlocks(_, count):
            return min(count * _BLOCK_BYTES, SERVE_BYTES)
        case GetPending():
            return MAX_LISTED_BYTES
        case _:
            return SMALL_ANSWER_BYTES
