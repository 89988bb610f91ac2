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
from node.network.events import Inbound, Message, PeerDown, PeerUp
from node.network.metrics import Exporter
from node.network.transport import Transport
from node.process import this_process
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Genesis, Phase
from node.protocol.reports import CoordinatorFigures, Notable, Report
from node.protocol.topics import epoch_topic, reports_topic
from signaling.phases import MAX_MESSAGE_BYTES, Announce, Coordinator, Drop, Effect, Persist, SendTo
from signaling.storage import Storage

TICK = 1.0
"""Seconds between announcements."""
FAREWELL = 0.1
"""Seconds for the last events to reach the broker."""
MAX_BATCH = 256
"""Transport events handled between two disk writes."""

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
            known=lambda peer: peer in self._coordinator.registrations,
            max_frame=MAX_MESSAGE_BYTES,
        )
        self._broker = Broker(settings.broker)
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
                nursery.start_soon(self._serve)
                await stop.wait()
                self._publish(Notable("coordinator stopping"))
                await trio.sleep(FAREWELL)
                nursery.cancel_scope.cancel()
        finally:
            self._storage.close()

    async def _serve(self) -> None:
        next_tick = trio.current_time()
        while True:
            effects: list[Effect] = []
            with trio.move_on_at(next_tick):
                event = await self._transport.inbox.receive()
                effects += self._handle(event)
            for event in self._waiting():
                effects += self._handle(event)
            if trio.current_time() >= next_tick:
                next_tick = trio.current_time() + TICK
                effects += self._coordinator.tick(_now())
                self._report()
            await self._perform(effects)

    def _waiting(self) -> Iterator[Inbound]:
        """Events that are there already, a batch at most."""
        for _ in range(MAX_BATCH):
            try:
                yield self._transport.inbox.receive_nowait()
            except trio.WouldBlock:
                return

    def _handle(self, event: Inbound) -> list[Effect]:
        match event:
            case Message(peer, frame):
                return self._coordinator.receive(peer, frame, _now())
            case PeerUp(peer):
                return self._coordinator.connect(peer, _now())
            case PeerDown(peer):
                return self._coordinator.disconnect(peer, _now())

    async def _perform(self, effects: Sequence[Effect]) -> None:
        if durable := [effect for effect in effects if isinstance(effect, Persist)]:
            await trio.to_thread.run_sync(self._storage.write, durable)
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
                case Notable(text):
                    log.info(text)
                    self._publish(effect)

    def _report(self) -> None:
        c, m = self._coordinator, self._metrics
        figures = CoordinatorFigures(
            process=this_process(c.doing),
            epoch=c.epoch,
            phase=c.phase,
            wanted=c.wanted,
            registered=len(c.registrations),
            acknowledged=len(c.acknowledged),
            ready=len(c.ready),
        )
        self._publish(figures)
        m.registered.set(len(c.registrations))
        m.connected.set(c.connected)
        m.epoch.set(c.epoch)
        m.broker.set(self._broker.connected)
        for phase in Phase:
            m.phase.labels(phase.value).set(phase is c.phase)
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


def _now() -> int:
    return time.time_ns() // 1_000_000
