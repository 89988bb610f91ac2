"""The coordinator on trio: feeds libp2p and the clock to ``phases`` and performs its effects, stored before sent.

One task owns the state machine, so nothing needs a lock. What arrives together is stored in one disk write.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
import trio
from prometheus_client import Counter, Gauge

from config.settings import CoordinatorSettings
from node.network.broker import Broker
from node.network.broker import Message as Published
from node.network.events import Inbound, Message, PeerDown, PeerUp
from node.network.metrics import Exporter
from node.network.transport import Transport
from node.process import this_process
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_ASK_BYTES, MAX_FRAME_BYTES
from node.protocol.reports import CoordinatorFigures, Notable, Report
from node.protocol.topics import asks_topic, bulletins_topic, epoch_topic, reports_topic
from signaling.epochs import Publish
from signaling.phases import MAX_MESSAGE_BYTES, Announce, Coordinator, Drop, Effect, Persist, SendTo
from signaling.storage import Storage, StorageFull

TICK = 1.0
"""Seconds between announcements."""
FAREWELL = 0.1
"""Seconds for the last events to reach the broker."""
MAX_BATCH = 256
"""Events handled between two disk writes."""
_FULL_SECONDS = 2.0

log = structlog.get_logger()


class Runtime:
    """One coordinator process."""

    def __init__(self, settings: CoordinatorSettings, genesis: Genesis, key: KeyPair) -> None:
        """Raises StorageError, InvalidDocument (damaged state) or ValueError (a bad address or URL)."""
        self._storage = Storage(Path(settings.data) / "coordinator.db", genesis.hash)
        saved = self._storage.load(_now())
        self._coordinator = Coordinator(genesis, key, settings.registration_deadline, settings.answer_deadline, saved)
        self._transport = Transport(
            key,
            settings.listen,
            self._coordinator.accepts,
            known=self._coordinator.knows,
            max_frame=MAX_MESSAGE_BYTES,
        )
        self._bulletins_topic, self._asks_topic = bulletins_topic(genesis.network), asks_topic(genesis.network)
        self._broker = Broker(settings.broker, {self._bulletins_topic: MAX_FRAME_BYTES, self._asks_topic: MAX_ASK_BYTES})
        self._arrive, self._arrived = trio.open_memory_channel[Inbound | Published](MAX_BATCH)
        self._epoch_topic = epoch_topic(genesis.network)
        self._reports_topic = reports_topic(genesis.network)
        self._metrics_at = settings.metrics_host, settings.metrics_port
        self._metrics = Metrics()

    async def run(self, stop: trio.Event) -> None:
        """Serve until ``stop`` is set. Raises OSError when a port is taken."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._metrics.serve, *self._metrics_at)
                await nursery.start(self._broker.run)
                await nursery.start(self._transport.run)
                log.info("listening", addresses=self._transport.addresses, doing=self._coordinator.doing)
                self._publish(Notable(f"coordinator started: {self._coordinator.doing}"))
                nursery.start_soon(self._pass_on, self._transport.inbox)
                nursery.start_soon(self._pass_on, self._broker.inbox)
                nursery.start_soon(self._serve)
                await stop.wait()
                self._publish(Notable("coordinator stopping"))
                await trio.sleep(FAREWELL)
                nursery.cancel_scope.cancel()
        finally:
            self._storage.close()

    async def _pass_on(self, inbox: trio.MemoryReceiveChannel[Inbound] | trio.MemoryReceiveChannel[Published]) -> None:
        async for item in inbox:
            await self._arrive.send(item)

    async def _serve(self) -> None:
        next_tick = trio.current_time()
        while True:
            effects: list[Effect] = []
            with trio.move_on_at(next_tick):
                event = await self._arrived.receive()
                effects += self._handle(event)
            for event in self._waiting():
                effects += self._handle(event)
            if trio.current_time() >= next_tick:
                next_tick = trio.current_time() + TICK
                effects += self._coordinator.tick(_now())
                self._report()
            await self._perform(effects)

    def _waiting(self) -> Iterator[Inbound | Published]:
        """Events that are there already, a batch at most."""
        for _ in range(MAX_BATCH):
            try:
                yield self._arrived.receive_nowait()
            except trio.WouldBlock:
                return

    def _handle(self, event: Inbound | Published) -> list[Effect]:
        match event:
            case (topic, body):
                is_ask = topic == self._asks_topic
                return self._coordinator.asked(body, _now()) if is_ask else self._coordinator.hear(body)
            case Message(peer, frame):
                return self._coordinator.receive(peer, frame, _now())
            case PeerUp(peer):
                return self._coordinator.connect(peer, _now())
            case PeerDown(peer):
                return self._coordinator.disconnect(peer, _now())

    async def _perform(self, effects: Sequence[Effect]) -> None:
        if durable := [effect for effect in effects if isinstance(effect, Persist)]:
            await self._store(durable)
        for effect in effects:
            match effect:
                case SendTo(peer, message):
                    self._transport.send(peer, encode(message))
                case Announce(announcement):
                    frame = encode(announcement)
                    self._broker.publish(self._epoch_topic, frame)
                    for peer in self._transport.connected:
                        self._transport.send(peer, frame)
                case Drop(peer, reason):
                    self._metrics.dropped.inc()
                    log.warning("peer dropped", peer=peer.hex(), reason=reason)
                    self._transport.disconnect(peer)
                case Publish(topic, body):
                    self._broker.publish(topic, body)
                case Notable(text):
                    self._notable(text)

    async def _store(self, durable: Sequence[Persist]) -> None:
        """Durably; while the disk is full it stands still, and says nothing that it has not stored."""
        is_full = False
        while True:
            try:
                await trio.to_thread.run_sync(self._storage.write, durable)
            except StorageFull as error:
                if not is_full:
                    self._notable(f"standing still: {error}")
                is_full = True
                await trio.sleep(_FULL_SECONDS)
                continue
            if is_full:
                self._notable("there is room on the disk again; going on")
            return

    def _notable(self, text: str) -> None:
        log.info(text)
        self._publish(Notable(text))

    def _report(self) -> None:
        c, m, notice = self._coordinator, self._metrics, self._coordinator.announcement.notice
        figures = CoordinatorFigures(
            process=this_process(c.doing),
            epoch=notice.epoch,
            phase=notice.phase,
            wanted=c.wanted,
            registered=notice.registered,
            acknowledged=len(c.acknowledged),
            ready=len(c.ready),
        )
        self._publish(figures)
        m.registered.set(notice.registered)
        m.connected.set(c.connected)
        m.epoch.set(notice.epoch)
        m.broker.set(self._broker.connected)
        for phase in Phase:
            m.phase.labels(phase.value).set(phase is notice.phase)
        m.alive()

    def _publish(self, content: CoordinatorFigures | Notable) -> None:
        self._broker.publish(self._reports_topic, encode(Report("coordinator", _now(), content)))


class Metrics(Exporter):
    """What Prometheus reads from the coordinator."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = Gauge("shardpay_coordinator_epoch", "Current epoch", registry=self.registry)
        self.phase = Gauge("shardpay_coordinator_phase", "1 for the current phase", ["phase"], registry=self.registry)
        self.registered = Gauge("shardpay_coordinator_registered_nodes", "Nodes registered", registry=self.registry)
        self.connected = Gauge("shardpay_coordinator_connected_nodes", "Nodes connected", registry=self.registry)
        self.broker = Gauge("shardpay_coordinator_broker_connected", "1 while the broker is reached", registry=self.registry)
        self.dropped = Counter("shardpay_coordinator_dropped_peers", "Peers that broke the protocol", registry=self.registry)


_AHEAD = time.time_ns() - time.monotonic_ns()


def _now() -> int:
    """Since the Unix epoch, ms; never goes back."""
    return (_AHEAD + time.monotonic_ns()) // 1_000_000
