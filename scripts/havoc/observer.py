"""Asks every node where it stands, again and again, and remembers: two states at one height would be a fork."""

import threading
import time
from collections.abc import Sequence

from node.protocol.chain import Chain
from node.protocol.genesis import read_genesis
from node.protocol.queries import NodeStatus
from scripts.devnet.layout import Devnet
from scripts.devnet.status import hear_nodes

PAUSE_SECONDS = 0.5


class Observer(threading.Thread):
    """Attributes:
    seats: shard by node name, once the committees are formed; in the latest epoch.
    forks: what was seen that must never be.
    compared: answers compared with another member's at the same height.
    """

    def __init__(self, devnet: Devnet) -> None:
        super().__init__(daemon=True)
        self._devnet, self._genesis = devnet, read_genesis(devnet.folder.genesis)
        self._lock, self._end = threading.Lock(), threading.Event()
        self._roots: dict[tuple[Chain, int], tuple[str, bytes]] = {}
        self._epoch = 0
        self._round: tuple[float, dict[str, NodeStatus]] = (0.0, {})
        self.seats: dict[str, int] = {}
        self.forks: list[str] = []
        self.compared = 0

    def run(self) -> None:
        while not self._end.wait(PAUSE_SECONDS):
            began = time.monotonic()
            heard = hear_nodes(self._devnet.folder, self._devnet.broker_url, self._genesis, set(self._devnet.node_names))
            with self._lock:
                if heard.document is not None:
                    self.seats, self._epoch = heard.seats, heard.document.number
                self._round = (began, heard.statuses)
                for name, status in heard.statuses.items():
                    self._compare(name, status)

    def _compare(self, name: str, status: NodeStatus) -> None:
        chain = Chain(self._epoch, self.seats[name])
        other, root = self._roots.setdefault((chain, status.height), (name, status.state_root))
        if root != status.state_root:
            where = f"epoch {chain.epoch} shard {chain.shard} height {status.height}"
            self.forks.append(f"{where}: {name} has state {status.state_root.hex()}, {other} had {root.hex()}")
        self.compared += other != name

    def end(self) -> None:
        self._end.set()
        self.join(10)

    def heights(self) -> dict[Chain, int]:
        """The greatest height seen in each chain of the latest epoch."""
        with self._lock:
            result: dict[Chain, int] = {}
            for chain, height in self._roots:
                if chain.epoch == self._epoch:
                    result[chain] = max(height, result.get(chain, 0))
            return dict(sorted(result.items()))

    def silent(self, since: float) -> Sequence[str] | None:
        """Who did not answer in a round begun after the moment ``since`` (monotonic); None when there was no such round."""
        with self._lock:
            began, statuses = self._round
            return None if began < since else sorted(self._expected() - statuses.keys())

    def _expected(self) -> set[str]:
        """Who has a seat; before there are committees, everybody."""
        return set(self.seats) & set(self._devnet.node_names) or set(self._devnet.node_names)

    def behind(self, heights: dict[Chain, int], since: float) -> Sequence[str] | None:
        """Who has not got beyond ``heights`` in such a round: silent, or behind. Any block of a later epoch is beyond."""
        with self._lock:
            began, statuses = self._round
            if began < since:
                return None
            return [
                f"{name} at {statuses[name].height}" if name in statuses else f"{name} silent"
                for name in sorted(self._expected())
                if name not in statuses or statuses[name].height <= heights.get(Chain(self._epoch, self.seats.get(name, -1)), 0)
            ]

    def agreement(self, since: float) -> dict[int, tuple[int, str]] | None:
        """(height, state root) by shard, when in such a round every node answered and each committee alike."""
        with self._lock:
            began, statuses = self._round
            if began < since or self._expected() - statuses.keys():
                return None
            found: dict[int, set[tuple[int, str]]] = {}
            for name, status in statuses.items():
                found.setdefault(self.seats[name], set()).add((status.height, status.state_root.hex()))
            if any(len(answers) > 1 for answers in found.values()):
                return None
            return {shard: answers.pop() for shard, answers in sorted(found.items())}
