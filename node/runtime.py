"""The node's shell on trio: it feeds a replica with events and performs its effects - all that persist first, durably and
in one transaction, then the rest in order.

One loop owns the replica. Everything that takes long (disk, signatures, mining) happens elsewhere and comes back as an event;
while it waits for the disk, further events gather and are handled, persisted and answered together.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog
import trio
from msgspec import Raw
from msgspec.msgpack import Decoder

from config.settings import NodeSettings
from node.effects import (
    Abstain,
    Broadcast,
    Checkpoint,
    CheckSignatures,
    Commit,
    Effect,
    Journal,
    Mine,
    Notable,
    Persist,
    Publish,
    Refuse,
    Send,
    SendBlocks,
    SendBundles,
    StopMining,
)
from node.ledger.rules import Rules
from node.metrics import Metrics
from node.mining import Miner
from node.network.broker import Broker
from node.network.transport import Message, PeerDown, PeerUp, Transport
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Application
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_FRAME_BYTES
from node.protocol.messages import PeerMessage
from node.protocol.queries import Query
from node.protocol.topics import (
    Refusal,
    Refusals,
    TransactionBatch,
    blocks_topic,
    queries_topic,
    refusals_topic,
    replies_topic,
    transactions_topic,
)
from node.protocol.transaction import Transaction
from node.queries import answer_query
from node.recovery import read_document, recover, write_document
from node.registration import Membership, MembershipEffect, PersistBegun, PersistDocument, SolvePuzzle, Tell
from node.replica import Instant, Replica
from node.reporter import Reporter
from node.storage import Storage, StorageDamaged, StorageFull

log = structlog.get_logger(__name__)

_MAX_EVENTS = 2_000
_MAX_EVENT_BYTES = 64 << 20
_BATCH = 4_096
_MAX_WAITING_TRANSACTIONS = 20_000
_MAX_QUERIES = 64
_SERVE_BYTES = 1 << 20
_IDLE_SECONDS = 0.25
_FULL_SECONDS = 2.0

Event = Callable[[], Sequence[Effect]]

decode_parts = Decoder(tuple[Raw, Raw, Raw]).decode
"""An encoded ``CertifiedBlock``'s block, finality and effects, each still encoded."""


class Runtime:
    """One node. ``run`` returns only by being cancelled or by raising.

    Raises:
        StorageError: the database cannot be used.
        Diverged: the committee finalized what does not execute here.
        OSError: a port is taken.
    """

    def __init__(self, settings: NodeSettings, genesis: Genesis, key: KeyPair, storage: Storage) -> None:
        self.settings = settings
        self.genesis = genesis
        self.key = key
        self.storage = storage
        self._document_file = Path(settings.data) / "epoch-document"
        signed = read_document(self._document_file)
        is_new = storage.abstains_through() is None  # a database that took no part in the epoch so far
        begun = storage.get("begun") is not None or (signed is not None and is_new)
        addresses = settings.advertise or (settings.listen,)
        self.membership = Membership(genesis, key, settings.name, addresses, signed, begun)
        self.transport = Transport(key, settings.listen, self._accepts)
        self.broker = Broker(settings.broker, [])
        self.miner = Miner(settings.mining_workers)
        self.metrics = Metrics()
        self.replica: Replica | None = None
        self.reporter = Reporter(self)
        self._is_starting = False
        self._events: deque[tuple[Event, int]] = deque()
        self._event_bytes = 0
        self._checks: tuple[deque[CheckSignatures], deque[CheckSignatures]] = (deque(), deque())
        self._check_wake = trio.Event()
        self._queries = 0
        self._transactions: list[bytes] = []
        self._wake = trio.Event()
        self._room = trio.Event()
        self._mining = trio.CancelScope()
        self._encoded: tuple[PeerMessage | None, bytes] = (None, b"")
        self._nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.transport.run)
            await nursery.start(self.broker.run)
            await nursery.start(self.miner.run)
            await nursery.start(self.metrics.serve, self.settings.metrics_host, self.settings.metrics_port)
            nursery.start_soon(self._check_signatures)
            nursery.start_soon(self._receive_frames)
            nursery.start_soon(self._receive_broker)
            nursery.start_soon(self.reporter.run)
            self.transport.connect(self.genesis.coordinator_key, [self.settings.coordinator])
            self.reporter.notable("started")
            await self._perform_membership([])
            await self._loop()

    @property
    def at(self) -> Instant:
        """Now."""
        return Instant(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            await self._wait()
            effects: list[Effect] = []
            while self._events:
                event, size = self._events.popleft()
                self._event_bytes -= size
                effects += event()
            self._room.set()
            if self.replica is not None:
                if self._transactions:
                    batch, self._transactions = self._transactions[:_BATCH], self._transactions[_BATCH:]
                    effects += self.replica.on_transactions(batch, self.at)
                effects += self.replica.on_tick(self.at)
            await self._perform(effects)

    async def _wait(self) -> None:
        """Until there is an event, or the replica's deadline is due."""
        if self._events or self._transactions:
            await trio.lowlevel.checkpoint()
            return
        seconds = _IDLE_SECONDS
        if self.replica is not None:
            seconds = max(0.0, min(seconds, (self.replica.deadline - self.at.now) / 1000))
        with trio.move_on_after(seconds):
            await self._wake.wait()
        self._wake = trio.Event()

    def _put(self, event: Event, size: int = 0) -> None:
        self._events.append((event, size))
        self._event_bytes += size
        self._wake.set()

    async def _put_bounded(self, event: Event, size: int) -> None:
        """Like ``_put``, but waits for room: slows the network down rather than pile events up."""
        while len(self._events) >= _MAX_EVENTS or self._event_bytes >= _MAX_EVENT_BYTES:
            self._room = trio.Event()
            await self._room.wait()
        self._put(event, size)

    # -- effects ---------------------------------------------------------------------------------------------------

    async def _perform(self, effects: Sequence[Effect]) -> None:
        persist: list[Persist] = [e for e in effects if isinstance(e, Journal | Commit | Checkpoint | Abstain)]
        if persist:
            started = time.perf_counter()
            await self._store(self.storage.write, persist)
            self.metrics.write_seconds(time.perf_counter() - started)
        for effect in effects:
            self._do(effect)

    async def _store(self, write: Callable[..., None], *arguments: object) -> None:
        """Write, in a thread. While the disk is full this node stands still: it sends nothing that is not stored."""
        is_full = False
        while True:
            try:
                await trio.to_thread.run_sync(write, *arguments)
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
            case Send(peer, message):
                self._send(peer, self._frame(message))
            case Broadcast(message):
                assert self.replica is not None
                frame = self._frame(message)
                for key in self.replica.electorate.keys:
                    if key != self.key.public:
                        self._send(key, frame)
            case CheckSignatures():
                self._checks[effect.urgent].append(effect)
                self._check_wake.set()
            case Mine(token, prefix, bits):
                self._mining.cancel()
                self._mining = trio.CancelScope()
                self._nursery.start_soon(self._mine, self._mining, token, prefix, bits)
            case StopMining():
                self._mining.cancel()
            case Publish(encoded):
                assert self.replica is not None
                self.broker.publish(blocks_topic(self.genesis.network, self.replica.shard), encoded)
            case Refuse(items):
                self._refuse(items)
            case SendBlocks(peer, first):
                self._nursery.start_soon(self._send_blocks, peer, first)
            case SendBundles(peer, destination, sequence):
                self._nursery.start_soon(self._send_bundles, peer, destination, sequence)
            case Notable(text):
                self.reporter.notable(text)

    def _frame(self, message: PeerMessage) -> bytes:
        """A message goes to several peers in a row: it is encoded once."""
        if self._encoded[0] is not message:
            self._encoded = (message, encode(message))
        return self._encoded[1]

    def _refuse(self, items: Sequence[Refusal]) -> None:
        replica = self.replica
        assert replica is not None
        for start in range(0, len(items), 1000):
            part = tuple(items[start : start + 1000])
            refusals = Refusals(replica.shard, replica.electorate.epoch, replica.member, part)
            body = encode(refusals.signed(self.key))
            self.broker.publish(refusals_topic(self.genesis.network, replica.shard), body)

    async def _check_signatures(self) -> None:
        """One batch at a time, those that proposals wait for first: more threads would only fight for the interpreter."""
        later, urgent = self._checks
        while True:
            if not later and not urgent:
                self._check_wake = trio.Event()
                await self._check_wake.wait()
            check = (urgent or later).popleft()
            verdicts = await trio.to_thread.run_sync(_signature_verdicts, check.transactions)
            self._put(partial(self._on_checked, check.token, verdicts))

    def _on_checked(self, token: int, verdicts: Sequence[bool]) -> Sequence[Effect]:
        return self._replica().on_signatures_checked(token, verdicts, self.at)

    async def _mine(self, scope: trio.CancelScope, token: int, prefix: bytes, bits: int) -> None:
        with scope:
            nonce = await self.miner.solve(prefix, bits)
            self._put(lambda: self._replica().on_mined(token, nonce, self.at))

    async def _send_blocks(self, peer: bytes, first: int) -> None:
        """Blocks are passed on as they are stored, without taking them apart, and without their effects."""
        stored = await trio.to_thread.run_sync(self.storage.blocks, first, _SERVE_BYTES)
        if stored:
            parts = [decode_parts(block) for block in stored]
            self._send(peer, encode([6, [[block, finality] for block, finality, _ in parts]]))

    async def _send_bundles(self, peer: bytes, destination: int, sequence: int) -> None:
        for bundle in await trio.to_thread.run_sync(self.storage.bundles, destination, sequence, _SERVE_BYTES):
            self._send(peer, encode([9, Raw(bundle)]))

    def _send(self, peer: bytes, frame: bytes) -> None:
        if len(frame) <= MAX_FRAME_BYTES:
            self.transport.send(peer, frame)
        else:
            log.error("a message is too large to be sent", bytes=len(frame))

    # -- what comes in ---------------------------------------------------------------------------------------------

    async def _receive_frames(self) -> None:
        coordinator = self.genesis.coordinator_key
        async for item in self.transport.inbox:
            if item.peer == coordinator:
                await self._on_coordinator(item)
            else:
                size = len(item.frame) if isinstance(item, Message) else 0
                await self._put_bounded(self._peer_event(item), size)

    def _peer_event(self, item: Message | PeerUp | PeerDown) -> Event:
        def event() -> Sequence[Effect]:
            self._check_ready()
            if self.replica is None:
                return ()
            match item:
                case PeerUp(peer):
                    return self.replica.on_peer_up(peer, self.at)
                case PeerDown(peer):
                    return self.replica.on_peer_down(peer, self.at)
                case Message(peer, frame):
                    try:
                        message: PeerMessage = decode(PeerMessage, frame, MAX_FRAME_BYTES)  # type: ignore[arg-type]
                    except DecodeError as error:
                        self.reporter.notable(f"dropped {self.reporter.name_of(peer)}: it sent what is no message ({error})")
                        self.transport.ban(peer)
                        return ()
                    return self.replica.on_message(peer, message, self.at)

        return event

    async def _receive_broker(self) -> None:
        async for channel, body in self.broker.inbox:
            replica = self.replica
            if replica is None:
                continue
            if channel == transactions_topic(self.genesis.network, replica.shard):
                self._on_batch(body)
            elif channel == queries_topic(self.genesis.network, replica.shard) and self._queries < _MAX_QUERIES:
                self._queries += 1
                self._nursery.start_soon(self._on_query, body)

    def _on_batch(self, body: bytes) -> None:
        try:
            batch = decode(TransactionBatch, body, MAX_BROKER_BODY_BYTES)
        except DecodeError:
            self.metrics.bad_broker_message()
            return
        if len(self._transactions) < _MAX_WAITING_TRANSACTIONS:
            self._transactions += batch.transactions
            self._wake.set()

    async def _on_query(self, body: bytes) -> None:
        replica = self._replica()
        try:
            query = decode(Query, body, 4096)
            if query.member in (-1, replica.member):
                reply = await answer_query(query, replica, self.storage, self.settings.name, self.key)
                self.broker.publish(replies_topic(self.genesis.network, query.client), reply)
        except DecodeError:
            self.metrics.bad_broker_message()
        finally:
            self._queries -= 1

    # -- membership ------------------------------------------------------------------------------------------------

    async def _on_coordinator(self, item: Message | PeerUp | PeerDown) -> None:
        match item:
            case PeerUp():
                await self._perform_membership(self.membership.connected())
                self.reporter.notable("coordinator connected")
            case PeerDown():
                self.reporter.notable("coordinator lost; going on without it")
            case Message(_, frame):
                await self._perform_membership(self.membership.received(frame))
        self._check_ready()

    async def _perform_membership(self, effects: Sequence[MembershipEffect]) -> None:
        for effect in effects:
            match effect:
                case PersistDocument(signed):
                    if self.membership.phase is not Phase.MINING:  # nobody can have voted in this epoch yet
                        await self._store(self.storage.write, [Abstain(0)])
                    await trio.to_thread.run_sync(write_document, self._document_file, signed)
                case PersistBegun():
                    await self._store(self.storage.put, "begun", b"1")
                case SolvePuzzle(prefix, bits):
                    self._nursery.start_soon(self._solve_puzzle, prefix, bits)
                case Tell(message):
                    if isinstance(message, Application) and self.storage.abstains_through() is None:
                        await self._store(self.storage.write, [Abstain(0)])  # nor can who applies: it may miss the assignment
                    self.transport.send(self.genesis.coordinator_key, encode(message))
                case Notable(text):
                    self.reporter.notable(text)
        self._meet_peers()
        if self.membership.begun and self.membership.seat is not None and not self._is_starting:
            self._is_starting = True  # before anything is awaited: two replicas with one key would contradict each other
            await self._start_replica()

    async def _solve_puzzle(self, prefix: bytes, bits: int) -> None:
        nonce = await self.miner.solve(prefix, bits)
        await self._perform_membership(self.membership.puzzle_solved(nonce))

    def _meet_peers(self) -> None:
        """Connect with every node of the network: of each pair, the one with the greater key dials."""
        document = self.membership.document
        if document is None:
            return
        for committee in document.committees:
            for member in committee.members:
                if member.public_key < self.key.public:
                    self.transport.connect(member.public_key, member.addresses)

    def _accepts(self, public_key: bytes) -> bool:
        document = self.membership.document
        return document is not None and document.seat_of(public_key) is not None

    def _check_ready(self) -> None:
        """Tell the coordinator once a quorum of the committee can be reached."""
        document, seat = self.membership.document, self.membership.seat
        if document is None or seat is None or self.membership.phase is not Phase.HANDOFF:
            return
        electorate = document.electorates[seat[0]]
        reached = len(self.transport.connected.intersection(electorate.keys)) + 1
        if reached >= electorate.quorum:
            height = self.replica.state.height if self.replica is not None else 0
            for effect in self.membership.ready(height):
                if isinstance(effect, Tell):
                    self.transport.send(self.genesis.coordinator_key, encode(effect.message))

    async def _start_replica(self) -> None:
        document, seat = self.membership.document, self.membership.seat
        assert document is not None
        assert seat is not None
        shard = seat[0]
        rules, electorate = Rules(self.genesis, shard, document.shards), document.electorates[shard]
        recovered = await trio.to_thread.run_sync(recover, self.storage, rules, electorate)
        abstain = self.storage.abstains_through()
        state, last, journal = recovered.state, recovered.last, recovered.journal
        try:
            replica = Replica(self.genesis, document, self.key, state, last, journal, self.at, abstain)
        except DecodeError as error:
            raise StorageDamaged(f"a record of the consensus journal cannot be read: {error}") from error
        self.replica = replica
        network = self.genesis.network
        self.broker.subscribe(transactions_topic(network, shard), queries_topic(network, shard))
        self.reporter.notable(f"mining in shard {shard} as member {seat[1]}, from height {replica.state.height}")
        self._put(lambda: replica.start(self.at))
        for peer in self.transport.connected:
            self._put(lambda peer=peer: replica.on_peer_up(peer, self.at))  # type: ignore[misc]

    def _replica(self) -> Replica:
        assert self.replica is not None
        return self.replica


def _signature_verdicts(transactions: Sequence[Transaction]) -> list[bool]:
    return [transaction.has_valid_signatures() for transaction in transactions]
