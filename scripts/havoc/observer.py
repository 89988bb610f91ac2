"""Asks every node where it stands, again and again, and remembers: two states at one height of a chain would be a fork. Follows
the epochs meanwhile."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from node.protocol.bulletins import GetChange
from node.protocol.chain import Chain
from node.protocol.change import RegisterPhase
from node.protocol.codec import encode
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Phase, read_genesis
from node.protocol.queries import GetStatus, NodeStatus
from node.protocol.topics import asks_topic
from scripts.devnet.client import Client, ClientError
from scripts.devnet.layout import Devnet
from scripts.havoc.story import story

PAUSE_SECONDS = 0.5
ANSWER_SECONDS = 1.5
_PHASES = {
    RegisterPhase.REGISTRATION: Phase.REGISTRATION,
    RegisterPhase.REVEAL: Phase.REVEAL,
    RegisterPhase.HANDOFF: Phase.HANDOFF,
    RegisterPhase.SETTLEMENT: Phase.SETTLEMENT,
    RegisterPhase.CLOSED: Phase.SETTLEMENT,
}


class Round(NamedTuple):
    """What the members of an epoch's committees said when they were asked at the moment ``began`` (monotonic)."""

    began: float
    epoch: int
    seats: dict[str, int]
    """Shards by node name: who is expected to answer."""
    statuses: dict[str, NodeStatus]


class Observer(threading.Thread):
    """Attributes:
    forks: what was seen that must never be.
    compared: answers compared with another member's at the same height.
    """

    def __init__(self, devnet: Devnet) -> None:
        super().__init__(daemon=True)
        genesis = read_genesis(devnet.folder.genesis)
        self._client = Client(devnet.broker_url, genesis)
        self._epochs, self._asks = self._client.epochs, asks_topic(genesis.network)
        self._lock, self._end = threading.Lock(), threading.Event()
        self._roots: dict[tuple[Chain, int], tuple[str, bytes]] = {}
        self._heights: dict[Chain, int] = {}
        self._round = Round(0.0, 0, {}, {})
        self.forks: list[str] = []
        self.compared = 0

    def run(self) -> None:
        with self._client:
            while not self._end.is_set():
                with suppress(ClientError):
                    self._ask()
                self._client.wait(self._end.is_set, PAUSE_SECONDS)

    def _ask(self) -> None:
        """Raises ClientError."""
        began, document = time.monotonic(), self._client.document()
        self._client.publish(self._asks, encode(GetChange(document.number, document.register)))
        questions = [self._client.ask(electorate, GetStatus()) for electorate in document.electorates.values()]
        self._client.wait(lambda: self._end.is_set() or all(question.is_done for question in questions), ANSWER_SECONDS)
        seats, statuses = dict[str, int](), dict[str, NodeStatus]()
        for committee, question in zip(document.committees, questions, strict=True):
            self._client.close(question)
            names = [member.name for member in committee.members]
            seats |= dict.fromkeys(names, committee.shard)
            statuses |= {names[i]: answer for i, answer in question.answers.items() if isinstance(answer, NodeStatus)}
        with self._lock:
            self._round = Round(began, document.number, seats, statuses)
            for name, status in statuses.items():
                self._compare(Chain(document.number, seats[name]), name, status)

    def _compare(self, chain: Chain, name: str, status: NodeStatus) -> None:
        self._heights[chain] = max(status.height, self._heights.get(chain, 0))
        other, root = self._roots.setdefault((chain, status.height), (name, status.state_root))
        if root != status.state_root:
            where = f"epoch {chain.epoch} shard {chain.shard} height {status.height}"
            self.forks.append(f"{where}: {name} has state {status.state_root.hex()}, {other} had {root.hex()}")
        self.compared += other != name

    def end(self) -> None:
        self._end.set()
        self.join(10)

    # -- the epochs ------------------------------------------------------------------------------------------------

    @property
    def document(self) -> EpochDocument | None:
        """Of the epoch in force."""
        return self._epochs.document

    @property
    def documents(self) -> list[EpochDocument]:
        """Of the epoch in force and, once it is known, of the next."""
        return [document for document in (self._epochs.document, self._epochs.chronicle.prospect) if document is not None]

    @property
    def phase(self) -> Phase:
        """How far the change to the next epoch is; mining as long as nobody is registered for that."""
        bulletin = self._epochs.chronicle.register
        written = bulletin.change.register if bulletin is not None else None
        if written is None or (written.phase is RegisterPhase.REGISTRATION and not written.registrations):
            return Phase.MINING
        return _PHASES[written.phase]

    @property
    def registered(self) -> set[str]:
        """Names of the nodes that are registered for the next epoch."""
        bulletin = self._epochs.chronicle.register
        written = bulletin.change.register if bulletin is not None else None
        return {registration.name for registration in written.registrations} if written is not None else set()

    @property
    def story(self) -> dict[str, int]:
        """How the epochs followed one another."""
        bulletin = self._epochs.chronicle.register
        return story(list(self._epochs.documents), bulletin.change.attempt if bulletin is not None else 1)

    # -- the nodes -------------------------------------------------------------------------------------------------

    def heights(self) -> dict[Chain, int]:
        """The greatest height seen in each chain of the latest epoch."""
        with self._lock:
            return {chain: height for chain, height in sorted(self._heights.items()) if chain.epoch == self._round.epoch}

    @property
    def answering(self) -> set[str]:
        """The members who answered last time."""
        with self._lock:
            return set(self._round.statuses)

    def silent(self, since: float) -> Sequence[str] | None:
        """Who did not answer in a round begun after the moment ``since`` (monotonic); None when there was no such round."""
        with self._lock:
            asked = self._round
        return None if asked.began < since else sorted(asked.seats.keys() - asked.statuses.keys())

    def behind(self, heights: dict[Chain, int], since: float) -> Sequence[str] | None:
        """Who has not got beyond ``heights`` in such a round: silent, or behind. Any block of a later epoch is beyond."""
        with self._lock:
            asked = self._round
        if asked.began < since:
            return None
        return [
            f"{name} at {asked.statuses[name].height}" if name in asked.statuses else f"{name} silent"
            for name, shard in sorted(asked.seats.items())
            if name not in asked.statuses or asked.statuses[name].height <= heights.get(Chain(asked.epoch, shard), 0)
        ]

    def agreement(self, since: float) -> dict[Chain, tuple[int, str]] | None:
        """(height, state root) by chain, when in such a round every member answered and each committee alike."""
        with self._lock:
            asked = self._round
        if asked.began < since or asked.seats.keys() - asked.statuses.keys():
            return None
        found: dict[Chain, set[tuple[int, str]]] = {}
        for name, status in asked.statuses.items():
            found.setdefault(Chain(asked.epoch, asked.seats[name]), set()).add((status.height, status.state_root.hex()))
        if any(len(answers) > 1 for answers in found.values()):
            return None
        return {chain: answers.pop() for chain, answers in sorted(found.items())}
