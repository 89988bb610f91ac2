"""A large network in one process: real nodes on virtual machines (``machine``), virtual time between them. It decides nothing.

All have the same latency to each other. Nothing is lost, nobody lies, no clock is wrong. The broker is a latency: what it would
have to carry is counted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from heapq import heappop, heappush
from itertools import count
from typing import Any

from node.effects import (
    Commit,
    NodeEffect,
    Pledge,
)
from node.events import AskedAbout, Bulletined, Entries, Event, For, Instant, Transactions
from node.network.events import Message
from node.protocol.certificate import CertifiedBlock
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.messages import Frame, PeerMessage
from node.protocol.topics import asks_topic, blocks_topic, bulletins_topic, entries_topic
from tests.chains import Network
from tests.simulation.disk import Disk
from tests.simulation.machine import FRAME_BYTES, Costs, Host, Line, OneDisk
from tests.simulation.modelled import Meter


class World:
    """``network``: its members are the nodes, in the state that its chains have. ``changes``: whether the broker carries what is
    said of the change of epochs.

    Attributes:
        now: ms since the start. carried: bytes that the broker gave out.
        told: when each entry, bulletin and question was published, of which kind, and what it says.
        began: when each node began an epoch. heights: of the chains; first: when each had its first block.
        on_block: told of each block, when a client hears it. handle: has a node handle an event.
    """

    def __init__(self, network: Network, meter: Meter, line: Line, costs: Costs, *, changes: bool = False) -> None:
        self.network, self.meter, self.line, self.costs, self._changes = network, meter, line, costs, changes
        self.now, self.carried, self.order = 0.0, 0, count()
        self.blocks: dict[tuple[Chain, int], bytes] = {}
        self.began: defaultdict[int, list[float]] = defaultdict(list)
        self.told: list[tuple[float, str, bytes]] = []
        self.heights: dict[Chain, int] = {}
        self.first: dict[Chain, float] = {}
        self.on_block: Callable[[Chain, CertifiedBlock], None] = lambda chain, block: None
        self.handle: Callable[[Host, Event, Instant], list[NodeEffect]] = lambda host, event, at: host.node.handle(event, at)
        self._wall = max(shard.head.time for shard in network.shards)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._encoded: tuple[PeerMessage | None, Chain | None, bytes] = (None, None, b"")
        self._topics = {maker(network.genesis.network): maker for maker in (entries_topic, bulletins_topic, asks_topic)}
        self._disks = {shard.electorate.chain: self._disk(shard) for shard in network.shards}
        self.hosts = [Host(self, number, pair) for number, pair in enumerate(network.nodes.values())]
        self.by_key = {host.key.public: host for host in self.hosts}
        self.is_starting = True
        for host in self.hosts:
            host.start()
        self.is_starting = False

    def _disk(self, shard: Any) -> OneDisk:
        disk = OneDisk(self.blocks, shard.electorate.chain)
        for certified, bundles in zip(shard.chain, shard.outboxes, strict=True):
            header = certified.block.header
            sent = tuple((b.bundle.destination, b.bundle.sequence, encode(b)) for b in bundles)
            included = shard.included[header.height]
            disk.write([Commit(header.height, header.view, certified, encode(certified), sent, (), included)])
        disk._bundles.clear()  # all were taken
        return disk

    def disk_of(self, chain: Chain, public_key: bytes) -> Disk:
        """A member's own."""
        disk = copy(self._disks[chain])
        disk._blocks, disk._sequences = list(disk._blocks), dict(disk._sequences)
        disk._bundles, disk._rows, disk._ids = {}, {}, disk._ids.copy()
        disk._journal = {}
        disk.write([Pledge(attempt=1, secret=self.network.secrets[public_key], roll=self.network.roll.hash)])
        return disk

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def instant(self) -> Instant:
        return Instant(int(self.now), self._wall + int(self.now))

    def at(self, moment: float, event: Callable[[], None]) -> None:
        heappush(self._events, (moment, next(self.order), event))

    def run(self, until: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Until that moment, ms, or until it is over."""
        while self._events and self._events[0][0] <= until and not is_over():
            self.now, _, event = heappop(self._events)
            event()
        self.now = max(self.now, until) if not is_over() else self.now

    # -- between nodes ---------------------------------------------------------------------------------------------

    def others(self, host: Host, chain: Chain) -> list[bytes]:
        duty = host.node.duties.get(chain)
        return [key for key in duty.electorate.keys if key != host.key.public] if duty is not None else []

    def send(self, source: Host, peers: Sequence[bytes], message: PeerMessage, chain: Chain) -> None:
        """Messages travel as bytes; those of one broadcast leave together."""
        if self._encoded[0] is not message or self._encoded[1] != chain:
            self._encoded = (message, chain, encode(Frame(chain.epoch, chain.shard, message)))
        frame, costs = self._encoded[2], self.costs
        size, targets = len(frame) + FRAME_BYTES, [self.by_key[peer] for peer in peers]
        source.occupy(len(targets) * (costs.wire + size * costs.wire_byte))
        waits = [source.reach(target) for target in targets]
        through = source.up.carry(size, self.now, len(targets))
        event = Message(source.key.public, frame)
        by_wait = defaultdict(list)
        for target, wait in zip(targets, waits, strict=True):
            by_wait[wait].append(target)
        for wait, some in by_wait.items():
            self.at(max(through, self.now + wait) + self.line.latency, lambda some=some: self._arrive(some, event, size))  # type: ignore[misc]

    def _arrive(self, targets: Iterable[Host], event: Event, size: int) -> None:
        for target in targets:
            target.put(target.down.carry(size, self.now), event, size)

    # -- over the broker -------------------------------------------------------------------------------------------

    def publish(self, source: Host, topic: str, body: bytes) -> None:
        kind = self._topics.get(topic)
        if kind is not None and not self._changes:
            return
        through = source.up.carry(len(body) + FRAME_BYTES, self.now)
        if kind is None:
            network = self.network.genesis.network
            for chain, block in source.last.items():
                if topic == blocks_topic(network, chain):
                    self._tell_clients(through, chain, block)
            return
        self.told.append((self.now, kind.__name__, body))
        self.at(through + self.line.latency, lambda: self._give_out(kind, body))

    def _tell_clients(self, through: float, chain: Chain, block: CertifiedBlock) -> None:
        self.at(through + 2 * self.line.latency, lambda: self.on_block(chain, block))

    def _give_out(self, kind: Callable[[bytes], str], body: bytes) -> None:
        if kind is entries_topic:
            for chain, members in self._who_hears().items():
                self.give(members, For(chain, Entries((body,))), len(body))
        else:
            self.give(self.hosts, (Bulletined if kind is bulletins_topic else AskedAbout)(body), len(body))

    def _who_hears(self) -> dict[Chain, list[Host]]:
        found: defaultdict[Chain, list[Host]] = defaultdict(list)
        for host in self.hosts:
            for chain, entries in host.hears.items():
                if entries:
                    found[chain].append(host)
        return found

    def give(self, members: Sequence[Host], event: Event, size: int) -> None:
        """From the broker to all of them."""
        self.carried += (size + FRAME_BYTES) * len(members)
        self.at(self.now + self.line.latency, lambda: self._arrive(members, event, size + FRAME_BYTES))

    def submit(self, chain: Chain, transactions: Sequence[bytes]) -> None:
        """A client's, to all members of the chain."""
        members = [host for host in self.hosts if chain in host.hears] if chain.epoch > 1 else self.members(chain)
        event = For(chain, Transactions(tuple(transactions)))
        self.at(self.now + self.line.latency, lambda: self.give(members, event, sum(map(len, transactions))))

    def members(self, chain: Chain) -> list[Host]:
        return [self.by_key[key] for key in self.network.document.electorates[chain.shard].keys]

    # -- what is noted ---------------------------------------------------------------------------------------------

    def committed(self, chain: Chain, block: CertifiedBlock) -> None:
        self.heights[chain] = max(self.heights.get(chain, 0), block.block.header.height)
        self.first.setdefault(chain, self.now)
