"""A committee of real replicas, wired together: a clock, a network that loses messages, and a disk for each member."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter
from random import Random

from node.consensus.journal import remembered
from node.effects import Broadcast, CheckSignatures, Commit, Effect, Journal, Publish, Send, SendBlocks
from node.events import Recovered
from node.ledger.following import execute_final
from node.ledger.register import prospect, register_of
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.block import skip_height
from node.protocol.certificate import CertifiedBlock, CertifiedHeader, FinalBlock
from node.protocol.change import RegisterPhase
from node.protocol.codec import encode
from node.protocol.entries import Entry
from node.protocol.messages import ChainReply, PeerMessage
from node.protocol.transaction import Transaction
from node.replica.replica import Replica
from tests.chains import Network
from tests.unit.entries import call, disclosure, enrolment, ready
from tests.unit.replicas import at

DELAY = 5
"""Of a message, ms."""


class Disk:
    """What a member has stored."""

    def __init__(self) -> None:
        self.blocks: list[CertifiedBlock] = []
        self.journal: dict[tuple[int, str], Journal] = {}

    def store(self, effect: Journal | Commit) -> None:
        if isinstance(effect, Journal):
            self.journal[(effect.view, effect.slot)] = effect
            return
        assert effect.height == len(self.blocks) + 1
        self.blocks.append(effect.block)
        self.journal = {key: record for key, record in self.journal.items() if key[0] > effect.view}


class Committee:
    """That of a network's only shard, which is its register.

    Attributes:
        replicas: by member; None: it is down. disks: what they have stored.
        published: (member, effect).
        is_lost: whether the message from one member to another is.
    """

    def __init__(self, network: Network, down: Sequence[int] = (), loss: float = 0.0, seed: int = 0) -> None:
        self.network = network
        self.shard = network.shards[0]
        document = network.document
        self.rules = Rules(network.genesis, document.network_id, 0, document.shards, document)
        self.now = 0
        self.disks = [Disk() for _ in self.shard.members]
        self.replicas: list[Replica | None] = [None for _ in self.shard.members]
        self.published: list[tuple[int, Publish]] = []
        random = Random(seed)
        self.is_lost: Callable[[int, int, PeerMessage], bool] = lambda source, sink, message: random.random() < loss
        self._events: list[tuple[int, int, int, bytes, PeerMessage]] = []
        self._order = count()
        self._members = {public: i for i, public in enumerate(self.shard.electorate.keys)}
        for member in range(len(self.replicas)):
            if member not in down:
                self.start(member)

    def start(self, member: int) -> Replica:
        """With what its disk holds."""
        replica = Replica(
            self.network.genesis, self.network.document, self.shard.members[member], "n", self.recovered(member), at(self.now)
        )
        self.replicas[member] = replica
        self._perform(member, replica.start(at(self.now)))
        return replica

    def stop(self, member: int) -> None:
        self.replicas[member] = None

    def recovered(self, member: int) -> Recovered:
        """As ``node.recovery`` has it."""
        disk, state = self.disks[member], State.genesis(self.rules)
        headers = {0: self.shard.genesis}
        for certified in disk.blocks:
            header = certified.block.header
            state.commit(execute_final(certified.block, state, self.rules).overlay)
            headers[header.height] = header
        height = len(disk.blocks)
        peaks = {height: headers[height].hash}
        while height:
            height = skip_height(height)
            peaks[height] = headers[height].hash
        last = CertifiedHeader(disk.blocks[-1].block.header, disk.blocks[-1].finality) if disk.blocks else None
        return Recovered(state, last, tuple(map(remembered, disk.journal.values())), peaks)

    # -- time ------------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], limit: int = 120_000) -> None:
        """Until that is so; at most so long, ms."""
        end = self.now + limit
        while not until():
            assert self.now < end, "it takes too long"
            deadlines = [replica.deadline for replica in self.replicas if replica is not None]
            self.now = max(self.now, min([*deadlines, *(event[0] for event in self._events[:1])]))
            while self._events and self._events[0][0] <= self.now:
                _, _, sink, source, message = heappop(self._events)
                if (replica := self.replicas[sink]) is not None:
                    self._perform(sink, replica.on_message(source, message, at(self.now)))
            for member, replica in enumerate(self.replicas):
                if replica is not None and replica.deadline <= self.now:
                    self._perform(member, replica.on_tick(at(self.now)))

    def run_for(self, ms: int) -> None:
        end = self.now + ms
        self.run(lambda: self.now >= end, ms + 10_000)

    def pay(self, transaction: Transaction) -> None:
        """Have all members take it in."""
        for member, replica in self.up:
            self._perform(member, replica.on_transactions([encode(transaction)], at(self.now)))

    # -- the change to the next epoch ------------------------------------------------------------------------------

    def submit(self, *entries: Entry) -> None:
        """To all members, as over the broker."""
        batch = list(map(encode, entries))
        for member, replica in self.up:
            self._perform(member, replica.on_entries(batch, at(self.now)))

    @property
    def up(self) -> list[tuple[int, Replica]]:
        return [(member, replica) for member, replica in enumerate(self.replicas) if replica is not None]

    @property
    def phase(self) -> RegisterPhase:
        """The furthest that is final anywhere."""
        return max(register_of(replica.state.change, self.rules).phase for _, replica in self.up)

    def change_until(self, phase: RegisterPhase) -> None:
        """Have entries written down, said again every second, until the register is in that phase."""
        while self.phase < phase:
            self.submit(*self._wanted())
            again = self.now + 1_000
            self.run(lambda again=again: self.now >= again or self.phase >= phase)  # type: ignore[misc]

    def _wanted(self) -> list[Entry]:
        nodes = self.shard.members
        change = max((replica.state for _, replica in self.up), key=attrgetter("height")).change
        match register_of(change, self.rules).phase:
            case RegisterPhase.REGISTRATION:
                return [*(enrolment(self.network, node, change.attempt) for node in nodes), call(self.network, change.attempt)]
            case RegisterPhase.REVEAL:
                return [disclosure(node, change.attempt) for node in nodes]
            case RegisterPhase.HANDOFF:
                document = prospect(register_of(change, self.rules), self.rules, change.attempt)
                return [ready(document, node) for node in nodes]
        return []

    def _perform(self, member: int, effects: Sequence[Effect]) -> None:
        disk, replica = self.disks[member], self.replicas[member]
        for effect in effects:
            match effect:
                case Journal() | Commit():
                    disk.store(effect)
                case Send(peer, message):
                    self._send(member, peer, message)
                case Broadcast(message):
                    for peer in self._members:
                        if peer != self.shard.electorate.keys[member]:
                            self._send(member, peer, message)
                case SendBlocks(peer, first):
                    blocks = tuple(FinalBlock(stored.block, stored.finality) for stored in disk.blocks[first - 1 :][:64])
                    self._send(member, peer, ChainReply(blocks))
                case CheckSignatures(token, transactions) if replica is not None:
                    verdicts = [transaction.has_valid_signatures() for transaction in transactions]
                    self._perform(member, replica.on_signatures_checked(token, verdicts, at(self.now)))
                case Publish():
                    self.published.append((member, effect))

    def _send(self, source: int, peer: bytes, message: PeerMessage) -> None:
        sink = self._members.get(peer)
        if sink is not None and not self.is_lost(source, sink, message):
            public = self.shard.electorate.keys[source]
            heappush(self._events, (self.now + DELAY, next(self._order), sink, public, message))
