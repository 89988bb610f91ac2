"""The coordinator is killed in one phase of each epoch, in each phase in turn: nobody needs it."""

import random
from collections import Counter
from collections.abc import Iterator

from node.protocol.genesis import Phase
from scripts.havoc.network import Network
from scripts.havoc.observer import Observer

PHASES = (Phase.MINING, Phase.REGISTRATION, Phase.REVEAL, Phase.HANDOFF, Phase.SETTLEMENT)
DOWN_SECONDS = (0.5, 6.0)
NAME = "coordinator"


class Deposing:
    """``tick`` it often. ``kills``: how often it was killed, by the phase in which."""

    def __init__(self, network: Network, observer: Observer, seed: int) -> None:
        self._network, self._observer = network, observer
        self._chance = random.Random(f"{seed} deposing")
        self._epoch = 0
        self._until: float | None = None
        self.kills: Counter[Phase] = Counter(dict.fromkeys(PHASES, 0))

    def tick(self, now: float) -> Iterator[str]:
        """What is done now, in words. ``now``: monotonic, seconds. Raises ProcessError."""
        if self._until is not None:
            if now >= self._until:
                self._until = None
                self._network.start([NAME])
            return
        document, phase = self._observer.document, self._observer.phase
        if document is None or document.number == self._epoch or not self._is_due(phase) or not self._network.runs(NAME):
            return
        self._epoch = document.number
        self.kills[phase] += 1
        seconds = self._chance.uniform(*DOWN_SECONDS)
        self._until = now + seconds
        self._network.kill([NAME])
        yield f"kill -9 {NAME} in phase {phase} of epoch {document.number}, down for {seconds:.1f} s"

    def _is_due(self, phase: Phase) -> bool:
        """Whether it was killed in no phase less often."""
        return self.kills[phase] == min(self.kills.values())
