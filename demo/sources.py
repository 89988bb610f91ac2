"""The processes that report: their last figures, the rates between them, and for how long each was silent."""

from collections.abc import Collection, Iterator

from node.protocol.reports import (
    COUNTERS,
    CoordinatorFigures,
    DashboardFigures,
    Figures,
    GatewayFigures,
    NodeFigures,
    numbers,
)

ROLES: dict[type[Figures], str] = {
    CoordinatorFigures: "coordinator",
    GatewayFigures: "gateway",
    DashboardFigures: "dashboard",
    NodeFigures: "node",
}

DOWN_AFTER = 3_000
"""Milliseconds of silence after which a process counts as down."""
FORGET_AFTER = 20 * 60_000
"""Milliseconds of silence after which a process that holds no seat is no longer listed."""
MAX_SOURCES = 4096

REPEAT_WINDOW = 10_000
"""The broker may repeat: a report this little older than the last one (ms, sender's clock) is old news, not a clock set back."""
SHORTEST_INTERVAL = 200
"""Milliseconds between two reports below which a rate would be noise."""


class Source:
    """One process. ``totals`` goes on growing when the process restarts and counts from zero again; ``rates`` are per second."""

    def __init__(self, name: str, figures: Figures, time: int, now: int) -> None:
        """``time``: the sender's clock, for rates; ``now``: our own, for its age. Milliseconds."""
        self.role = ROLES[type(figures)]
        self.name = name
        self.figures = figures
        self.time = time
        self.last_seen = now
        self.state = "up"
        self.restarts = 0
        self._counters = _counters(figures)
        self.totals = dict(self._counters)
        self.rates: dict[str, float] = {}

    def update(self, figures: Figures, time: int, now: int) -> None:
        """Take in the next figures; a repetition changes nothing."""
        elapsed = time - self.time
        same_process = figures.process.pid == self.figures.process.pid
        if same_process and -REPEAT_WINDOW <= elapsed <= 0:
            return
        restarted = not same_process or figures.process.cpu_ms < self.figures.process.cpu_ms
        self.restarts += restarted
        before, counters = self._counters, _counters(figures)
        if restarted or elapsed <= 0:
            self.rates = {}
        for name, value in counters.items():
            old = before.get(name, 0)
            grown = value if restarted or value < old else value - old
            self.totals[name] = self.totals.get(name, 0) + grown
            if not restarted and elapsed >= SHORTEST_INTERVAL:
                self.rates[name] = grown * 1000 / elapsed
        self.figures, self._counters, self.time, self.last_seen = figures, counters, time, now

    @property
    def is_up(self) -> bool:
        return self.state == "up"

    def rate(self, counter: str) -> float:
        """Per second; 0 while the process is not known to be up."""
        return self.rates.get(counter, 0.0) if self.is_up else 0.0

    @property
    def cpu_percent(self) -> float:
        """Of one core."""
        return self.rate("cpu_ms") / 10


class Sources:
    """All processes heard of, at most ``MAX_SOURCES``. Those with a seat in a committee always find room."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], Source] = {}

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())

    def __len__(self) -> int:
        return len(self._sources)

    def get(self, role: str, name: str) -> Source | None:
        return self._sources.get((role, name))

    def of(self, kind: type[Figures]) -> list[Source]:
        """Those that send figures of this kind, by name."""
        return sorted((s for s in self if isinstance(s.figures, kind)), key=lambda source: source.name)

    def add(self, source: Source, seated: Collection[str]) -> bool:
        """List a new process. False when the list is full and ``seated``, the nodes with a seat, does not name it."""
        if len(self._sources) >= MAX_SOURCES and not (_has_seat(source, seated) and self._make_room(seated)):
            return False
        self._sources[source.role, source.name] = source
        return True

    def drop(self, role: str, name: str, seated: Collection[str]) -> None:
        """A process is gone for good; one in ``seated`` cannot be."""
        source = self.get(role, name)
        if source is not None and not _has_seat(source, seated):
            del self._sources[role, name]

    def _make_room(self, seated: Collection[str]) -> bool:
        others = [source for source in self if not _has_seat(source, seated)]
        if not others:
            return False
        stalest = min(others, key=lambda source: source.last_seen)
        del self._sources[stalest.role, stalest.name]
        return True

    def age(self, now: int, connected_since: int | None, seated: Collection[str]) -> list[Source]:
        """Judge every process by its silence; those whose state changed are returned.

        While we do not hear the broker ourselves (``connected_since`` is None), or only just began to again, silence says
        nothing: the state is ``unknown``.
        """
        deaf = connected_since is None or now - connected_since <= DOWN_AFTER
        changed = []
        for key, source in list(self._sources.items()):
            silence = now - source.last_seen
            if connected_since is not None and silence > FORGET_AFTER and not _has_seat(source, seated):
                del self._sources[key]
                continue
            heard = silence <= DOWN_AFTER and connected_since is not None
            state = "up" if heard else "unknown" if deaf else "down"
            if state != source.state:
                source.state = state
                changed.append(source)
        return changed


def _has_seat(source: Source, seated: Collection[str]) -> bool:
    return source.role == "node" and source.name in seated


def _counters(figures: Figures) -> dict[str, int]:
    return {name: value for name, value in numbers(figures).items() if name in COUNTERS}
