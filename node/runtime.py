"""The node's shell on trio: it tells the mind of what comes in and performs its effects - all that persist first, durably (the
rows of each chain in one transaction; ``persisting`` says what may wait), then the rest in order.

One loop owns the mind. What takes long happens elsewhere (mining, recovery, reading) or a little between its turns (signatures),
and comes back as an event. While it stores what binds the node (``writing``), further events gather, and are handled, persisted
and answered together.
"""

import time
from collections.abc import Sequence
from math import inf
from pathlib import Path

import structlog
import trio

from config.settings import NodeSettings
from node.effects import (
    Ban,
    Broadcast,
    ChainEffect,
    CheckSignatures,
    In,
    Meet,
    Mine,
    NodeEffect,
    Persist,
    Publish,
    Recover,
    ReplyBlocks,
    Retire,
    Send,
    SendBlocks,
    SendBundles,
    SendCheckpoint,
    SendParts,
    StopMining,
    Subscribe,
    Tell,
    Unsubscribe,
)
from node.events import For, Instant, Mined
from node.intake import Intake
from node.leaving import is_leaving, note_left
from node.listening import Listening
from node.metrics import Metrics
from node.mining import Miner
from node.network.beat import next_beat
from node.network.broker import Broker
from node.network.connection import VERSIONS
from node.node import Node
from node.persisting import Persisting
from node.protocol.chain import Chain
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Genesis
from node.protocol.reports import Notable
from node.reading import Reading
from node.recovery import bring_back
from node.reporter import Reporter
from node.stores import Stores
from node.talking import Talking
from node.verifying import Verifying
from node.writing import Writing

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_FAREWELL = 0.1
"""Seconds for the last report to reach the broker."""


class Runtime:
    """One node. ``run`` returns once it has left the network.

    Raises:
        StorageError: a database cannot be used.
        Diverged: the committee finalized what does not execute here.
        InvalidDocument: from the constructor, when a stored succession is damaged.
        OSError: a port is taken.
    """

    def __init__(
        self,
        settings: NodeSettings,
        genesis: Genesis,
        key: KeyPair,
        stores: Stores,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        """``versions``: of the protocol, that are spoken with others."""
        self._settings = settings
        self._stores = stores
        addresses = settings.advertise or (settings.listen,)
        self.node = Node(genesis, key, settings.name, addresses, stores.stored(), settings.keep_blocks)
        self._folder = Path(settings.data)
        self._talking = Talking(settings, key, genesis.coordinator_key, versions)
        self._broker = Broker(settings.broker)
        self._line = Broker(settings.broker)
        self._miner = Miner(settings.mining_workers)
        self._metrics = Metrics()
        lines, transport = (self._broker, self._line), self._talking.transport
        self.reporter = Reporter(settings.name, genesis.network, self.node, transport, lines, self._miner, self._metrics)
        self._intake = Intake(transport.inbox)
        self._listening = Listening(genesis.network, self.node, self._broker, self._line, self._intake, self._metrics)
        self._persisting = Persisting()
        self._verifying = Verifying(self._intake.put)
        self._reading = Reading(stores, self._talking)
        self._writing = Writing(stores, self._metrics, self.reporter.notable)
        self._mining: dict[Chain | None, trio.CancelScope] = {}
        """By chain; None: of the node itself."""
        self._nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._talking.transport.run)
            await nursery.start(self._broker.run)
            await nursery.start(self._line.run)
            await nursery.start(self._miner.run)
            await nursery.start(self._metrics.serve, self._settings.metrics_host, self._settings.metrics_port)
            nursery.start_soon(self._intake.run)
            nursery.start_soon(self._verifying.run)
            nursery.start_soon(self._listening.run)
            nursery.start_soon(self.reporter.run)
            nursery.start_soon(self._leave_when_told)
            self._talking.start()
            self.reporter.notable("started")
            try:
                await self._loop()
                note_left(self._folder)
                self.reporter.left()
                await trio.sleep(_FAREWELL)
                nursery.cancel_scope.cancel()
            finally:  # a clean end: what may wait need not be fetched again
                for chain, rows in self._persisting.flush():
                    self._stores.write(chain, rows)

    async def _leave_when_told(self) -> None:
        """Whatever is told, and when, stands in the folder: before a start, while the node starts, and after a restart."""
        while not is_leaving(self._folder):  # a file tells nobody
            await next_beat(_LOOK_SECONDS)
        self.reporter.notable("leaving the network")
        self.node.leave()
        self._intake.wake()

    @property
    def _at(self) -> Instant:
        """Now."""
        return Instant(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        await self._perform(self.node.start())
        while not self.node.has_left:
            await self._wait()
            effects: list[NodeEffect] = []
            for event in self._intake.take(self._verifying.has_room):
                effects += self.node.handle(event, self._at)
            await self._perform(effects)

    async def _wait(self) -> None:
        """Until there is an event, or the mind's deadline is due."""
        deadline = self.node.deadline
        until = inf if deadline is None else trio.current_time() + (deadline - self._at.now) / 1000
        await self._intake.wait(until, self._verifying.has_room)

    # -- effects ---------------------------------------------------------------------------------------------------

    async def _perform(self, effects: Sequence[NodeEffect]) -> None:
        for chain, rows in self._persisting.take(effects, self._at.now):
            await self._writing.write(chain, rows)
        if records := [effect for effect in effects if isinstance(effect, Persist)]:
            await self._writing.remember(records)
        with self._talking.transport.together():
            for effect in effects:
                self._do(effect)

    def _do(self, effect: NodeEffect) -> None:
        """Perform an effect that is not about the disk; none of them waits."""
        match effect:
            case In(chain, wanted):
                self._do_in(chain, wanted)
            case Tell(message):
                self._talking.tell(message)
            case Meet():
                self._talking.meet(effect)
            case Subscribe():
                self._listening.subscribe(effect)
            case Unsubscribe(chain):
                self._listening.unsubscribe(chain)
            case Retire(chain):
                self._listening.retire(chain)
            case Mine() | StopMining():
                self._mine(None, effect)
            case Ban() | Publish() | Notable():
                self._say(effect)

    def _do_in(self, chain: Chain, effect: ChainEffect) -> None:
        """The same for one that concerns a chain."""
        match effect:
            case Send(peer, message, shard):
                self._talking.send(Chain(chain.epoch, chain.shard if shard is None else shard), message, [peer])
            case Broadcast(message) if (duty := self.node.duties.get(chain)) is not None:
                self._talking.send(chain, message, duty.electorate.keys)
            case SendBlocks() | SendBundles() | SendCheckpoint() | SendParts():
                self._nursery.start_soon(self._reading.answer, chain, effect)
            case ReplyBlocks():
                self._nursery.start_soon(self._reply, chain, effect)
            case Recover():
                self._nursery.start_soon(self._recover, chain, effect)
            case CheckSignatures():
                self._verifying.check(chain, effect)
            case Mine() | StopMining():
                self._mine(chain, effect)
            case Ban() | Publish() | Notable():
                self._say(effect)

    def _say(self, effect: Ban | Publish | Notable) -> None:
        match effect:
            case Ban(peer, reason):
                self.reporter.notable(f"dropped {self.reporter.name_of(peer)}: {reason}")
                self._talking.ban(peer)
            case Publish(topic, body):
                self._broker.publish(topic, body)
            case Notable(text):
                self.reporter.notable(text)

    # -- what takes long -------------------------------------------------------------------------------------------

    async def _reply(self, chain: Chain, wanted: ReplyBlocks) -> None:
        seat = self.node.seat_in(chain)
        if seat is None:  # another ledger is being brought back
            return
        self._intake.question_waits()
        try:
            reply = await self._reading.reply(chain, wanted, seat)
        finally:
            self._intake.question_answered()
        if reply is not None:
            self._listening.answered(wanted.query, len(reply.body))
            self._say(reply)

    async def _recover(self, chain: Chain, wanted: Recover) -> None:
        answer = await self._writing.despite_full(bring_back, wanted, self._stores.open)
        self._intake.put(For(chain, answer))

    def _mine(self, chain: Chain | None, wanted: Mine | StopMining) -> None:
        if (scope := self._mining.pop(chain, None)) is not None:
            scope.cancel()
        if isinstance(wanted, Mine):
            self._mining[chain] = trio.CancelScope()
            self._nursery.start_soon(self._solve, self._mining[chain], chain, wanted)

    async def _solve(self, scope: trio.CancelScope, chain: Chain | None, work: Mine) -> None:
        with scope:
            mined = Mined(work.token, await self._miner.solve(work.prefix, work.bits))
            self._intake.put(mined if chain is None else For(chain, mined))
