"""Nodes come and go: in each epoch some are launched, and a quarter is told to leave, as far as the committees bear it.

How many come is drawn: so the network grows until a shard splits, and shrinks until two merge.
"""

import random
from collections.abc import Iterator

from node.protocol.epoch import EpochDocument
from scripts.devnet.leave import LeaveError, ask_to_leave
from scripts.havoc.burden import Burden
from scripts.havoc.disks import Disks
from scripts.havoc.network import Network
from scripts.havoc.observer import Observer

SHARE = 4
"""Of so many nodes one leaves in an epoch."""
BEGIN, PATIENCE = 0.3, 0.6
"""Shares of an epoch's time: when nodes are launched, and how long others wait for them to be registered until they leave."""


class Turnover:
    """One for a network. ``tick`` it often.

    Attributes:
        joined, left: how many nodes came, and are gone. stayed: who was told to leave and has not, with the epoch it was told in.
    """

    def __init__(
        self, network: Network, observer: Observer, disks: Disks, burden: Burden, seed: int, seconds: int, committees: int
    ) -> None:
        """``seconds``: an epoch's. ``committees``: how many there are to be at least."""
        self._network, self._observer, self._disks, self._burden = network, observer, disks, burden
        self._chance, self._seconds, self._least = random.Random(f"{seed} turnover"), seconds, committees
        self._epoch, self._began = 0, 0.0
        self._coming: list[str] | None = None
        """Who was launched in this epoch; None before."""
        self._is_done = False
        self.joined = self.left = 0
        self.stayed: dict[str, int] = {}

    def gone(self) -> Iterator[str]:
        """Who has left now, in words."""
        for name in [name for name in self.stayed if name not in self._network.nodes]:
            del self.stayed[name]
            self._burden.leaving.discard(name)
            self.left += 1
            yield f"{name} has left"

    def tick(self, now: float) -> Iterator[str]:
        """What is done now, in words. ``now``: monotonic, seconds. Raises ProcessError, FolderError, OSError."""
        document = self._observer.document
        if document is None:
            return
        if document.number != self._epoch:
            self._epoch, self._began, self._coming, self._is_done = document.number, now, None, False
        share = (now - self._began) / self._seconds
        if self._coming is None and share >= BEGIN:
            self._coming = self._launch(document)
            if self._coming:
                yield f"launched {', '.join(self._coming)}"
        if self._coming is not None and not self._is_done and self._is_time_to_leave(share):
            self._is_done = True
            if leaving := self._leave(document):
                yield f"told to leave: {', '.join(leaving)}"

    def _is_time_to_leave(self, share: float) -> bool:
        return share >= PATIENCE or set(self._coming or ()) <= self._observer.registered

    def _launch(self, document: EpochDocument) -> list[str]:
        staying = len(self._network.nodes) - len(self.stayed)
        wanted = self._fewest(document) + len(document.committees[0].members) * self._chance.randint(0, 1)
        count = min(wanted - staying + staying // SHARE, self._network.room)
        if count <= 0:
            return []
        names = self._network.add(count)
        self._disks.add({name: self._network.folder.home(name) for name in names}, self._network.folder.log)
        self._network.start(names)
        self.joined += count
        return names

    def _fewest(self, document: EpochDocument) -> int:
        """How many nodes are to stay at least."""
        return self._least * len(document.committees[0].members)

    def _leave(self, document: EpochDocument) -> list[str]:
        """Only who answers is told."""
        nodes = self._network.nodes
        fit = [
            name for name in sorted(self._observer.answering) if name in nodes and name not in self._burden.down | {*self.stayed}
        ]
        self._chance.shuffle(fit)
        most = min(len(nodes) // SHARE, len(nodes) - len(self.stayed) - self._fewest(document))
        chosen = self._burden.bearable(fit, self._observer.documents)[: max(0, most)]
        try:
            ask_to_leave(self._network.folder, chosen)
        except LeaveError:  # one of them was killed a moment ago
            return []
        self.stayed |= dict.fromkeys(chosen, document.number)
        self._burden.leaving.update(chosen)
        return chosen
