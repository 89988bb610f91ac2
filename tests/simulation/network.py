"""The wires: delays, losses, repetitions and cuts, between nodes and over the broker."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from node.events import For, Transactions
from node.network.events import Message, PeerDown, PeerUp
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Frame, PeerMessage
from node.protocol.topics import blocks_topic, refusals_topic
from tests.simulation.plan import Cut, Links

if TYPE_CHECKING:
    from tests.simulation.clients import Gateway
    from tests.simulation.host import Host
    from tests.simulation.world import World

_MAX_TAIL = 2_000
_MOST = 4
"""Connections of a node with members of other committees: few, so that they go and come."""
_UNUSED = 1_500
"""For how long such a connection may be unused, ms."""
_HANDSHAKE = 6
"""Times that something goes from one side to the other before the first frame."""


def arrivals(links: Links, chance: Random) -> list[int]:
    """When copies of a message arrive, ms from now: none when it is lost, two when it is repeated."""
    if chance.random() < links.loss:
        return []
    found = []
    for _ in range(2 if chance.random() < links.duplication else 1):
        delay = chance.randint(*links.delay)
        if chance.random() < links.tail:
            delay += int(_MAX_TAIL * chance.random() ** 2)
        found.append(delay)
    return found


class Connections:
    """Those between members of different committees: made when there is something to send, few of each node, ended when they are
    not used."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = Random(f"{world.plan.seed}/connections")
        self._used: dict[frozenset[int], int] = {}
        """When a frame last went over each, by the two nodes; the least recently used first."""
        self.made = 0
        self.most = 0
        """Of one node at once."""

    def connect(self, source: "Host", target: "Host") -> int | None:
        """How long a frame waits for the connection, ms; None: there is none to be had."""
        pair, now = frozenset((source.index, target.index)), self._world.time
        if target.node is None:
            return None
        if self._used.pop(pair, None) is not None:
            self._used[pair] = now
            return 0
        self._end([other for other, used in self._used.items() if used + _UNUSED <= now])
        for node in (source, target):
            if len(own := self._of(node)) >= _MOST:
                self._end(own[:1])
        self._used[pair] = now
        self.made += 1
        self.most = max(self.most, len(self._of(source)), len(self._of(target)))
        source.put(PeerUp(target.key.public))
        target.put(PeerUp(source.key.public))
        return sum(self._chance.randint(*self._world.network.links.delay) for _ in range(_HANDSHAKE))

    def part(self, node: "Host") -> list["Host"]:
        """It crashed: those that it was connected with."""
        gone = self._of(node)
        for pair in gone:
            del self._used[pair]
        return [self._world.nodes[index] for pair in gone for index in pair if index != node.index]

    def _of(self, node: "Host") -> list[frozenset[int]]:
        return [pair for pair in self._used if node.index in pair]

    def _end(self, pairs: list[frozenset[int]]) -> None:
        for pair in pairs:
            if self._used.pop(pair, None) is not None:
                one, other = (self._world.nodes[index] for index in sorted(pair))
                one.put(PeerDown(other.key.public))
                other.put(PeerDown(one.key.public))


class Network:
    """Carries frames between nodes."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = Random(f"{world.plan.seed}/network")
        self.links = world.plan.links
        self.timing = world.plan.timing
        self.cuts: list[Cut] = []
        self.connections = Connections(world)
        self._encoded: tuple[PeerMessage | None, Chain | None, bytes] = (None, None, b"")
        self._decoded: dict[bytes, PeerMessage] = {}

    def _is_cut(self, source: int, target: int) -> bool:
        return any(source in cut.sources and target in cut.targets for cut in self.cuts)

    def send(self, source: "Host", target: "Host", message: PeerMessage, chain: Chain | None = None) -> None:
        """Messages travel as bytes, so all that is sent can be encoded. ``chain``: as ``Host.send`` has it."""
        world = self._world
        chain = chain or Chain(1, target.index // world.plan.size)
        if self._encoded[0] is not message or self._encoded[1] != chain:
            self._encoded = (message, chain, encode(Frame(chain.epoch, chain.shard, message)))
        frame = self._encoded[2]
        world.note_frame(source, target, frame)
        if world.story is not None:
            world.story.sent(world.time, source, target, message)
        if self.cuts and self._is_cut(source.index, target.index):
            return
        waits = 0 if source.shares_committee(target) else self.connections.connect(source, target)
        if waits is None:
            return
        life = target.life
        later = self._held_back(target) if self.timing else 0
        for delay in arrivals(self.links, self._chance):
            world.after(waits + max(delay, later), lambda: self._arrive(source, target, frame) if target.life == life else None)

    def _held_back(self, target: "Host") -> int:
        """For how long, ms, somebody who knows the protocol would keep a message from its receiver."""
        if target.replica is None:
            return 0
        consensus, size = target.replica.consensus, self._world.plan.size
        timer = min(max(0, target.replica.deadline - self._world.time), _MAX_TAIL)
        if self.timing == "around timers":
            return timer + self._chance.choice((-1, 0, 1)) if self._chance.random() < 0.3 else 0
        if self.timing == "one member starved":
            return timer + 1 if target.index % size == self._world.plan.seed % size and self._chance.random() < 0.9 else 0
        leads_next = consensus.leader_of(consensus.view + 1) == target.index % size
        return timer + 1 if leads_next and self._chance.random() < 0.7 else 0

    def _arrive(self, source: "Host", target: "Host", frame: bytes) -> None:
        if target.replica is None:
            return
        self._world.monitor.on_arrival(source, target, frame)
        if target.adversary is not None:
            with suppress(DecodeError):  # another adversary's
                target.adversary.hears(source.key.public, decode(Frame, frame, MAX_FRAME_BYTES).message)
        target.put(Message(source.key.public, frame))


class Broker:
    """Publish and subscribe: drops, repeats, and is away at times."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = Random(f"{world.plan.seed}/broker")
        self.links = world.plan.broker
        self.is_up = True

    def _carry(self, event: Callable[[], None]) -> None:
        if self.is_up:
            for delay in arrivals(self.links, self._chance):
                self._world.after(delay, event)

    def submit(self, shard: int, batch: list[bytes]) -> None:
        """A batch of transactions, to every member of the home shard's committee."""
        for node in self._world.committee(shard):
            self._carry(lambda node=node: node.put(For(Chain(1, shard), Transactions(tuple(batch)))))  # type: ignore[misc]

    def publish(self, node: "Host", topic: str, body: bytes) -> None:
        """Of what nodes publish, gateways here take in blocks and refusals."""
        shard = node.index // self._world.plan.size
        if topic == blocks_topic(self._world.genesis.network, Chain(1, shard)):
            for gateway in self._world.gateways:
                self._carry(lambda gateway=gateway: gateway.on_block(shard, body))  # type: ignore[misc]
        elif topic == refusals_topic(self._world.genesis.network, Chain(1, shard)):
            for gateway in self._world.gateways:
                self._carry(lambda gateway=gateway: gateway.on_refusals(shard, body))  # type: ignore[misc]

        elif self._world.inquirer is not None and topic == self._world.inquirer.topic:
            self._world.inquirer.on_reply(node, body)

    def query_blocks(self, gateway: "Gateway", shard: int, node: "Host", first: int) -> None:
        """A question to one member, and its answer: final blocks from ``first`` on."""

        def ask() -> None:
            if node.replica is not None and not node.stalled:
                blocks = node.disk.blocks(first, 1 << 20, 20)
                if node.adversary is not None:
                    blocks = node.adversary.answers(blocks)
                for encoded in blocks:
                    self._carry(lambda encoded=encoded: gateway.on_block(shard, encoded))  # type: ignore[misc]

        self._carry(ask)
