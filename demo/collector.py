"""What the page shows: broker messages in, a model of the whole network out. Pure: time is handed in (ms), nothing is sent.

Every buffer is bounded, and a message that does not fit is counted as ignored and changes nothing else.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from demo.chain import Chain
from demo.epoch import clock, moves, ranges
from demo.sources import ROLES, Source, Sources
from node.chronicle import NewBulletin, Refused
from node.client.epochs import Epochs, NewDocument, NewPhase, News
from node.protocol.change import Bulletin, RegisterPhase
from node.protocol.codec import DecodeError
from node.protocol.epoch import Committee, EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.reports import (
    CoordinatorFigures,
    Figures,
    GatewayFigures,
    Latency,
    Left,
    NodeFigures,
    Notable,
    numbers,
    read_report,
)

HISTORY = 300
"""Seconds of history kept for the charts."""
FEED_LINES = 50
FEED_RATE = 20
"""Lines the feed takes in per second for long, and FEED_LINES at once: a network that starts has much to tell, a liar too."""

COLUMNS = (
    "time", "intra", "cross", "refused", "p50", "p99", "cross_p50", "cross_p99", "finalization",
    "logins", "sign_ups", "purchases", "transfers", "balance_reads",
)  # fmt: skip
"""Of one row of history; rates per second, latencies in ms or None."""
ACTIVITIES = ("logins", "sign_ups", "purchases", "transfers", "balance_reads")


class Collector:
    """Feed it with ``report``, ``announcement``, ``bulletin``, ``block`` and ``connection``; ``tick`` once a second; then read.

    ``on_document`` is called with each document in force, as it comes.
    """

    def __init__(self, genesis: Genesis, gateway: str, now: int) -> None:
        """``gateway``: URL where a person's browser reaches the gateway."""
        self.genesis = genesis
        self.epochs = Epochs(genesis)
        self.chain = Chain(genesis)
        self._gateway = gateway
        self.sources = Sources()
        self.ignored = 0
        self.messages = 0
        self._connected_since: int | None = None
        self._lost_since: int | None = now
        self._feed: deque[dict[str, Any]] = deque(maxlen=FEED_LINES)
        self._feed_number = 0
        self._feed_budget = FEED_LINES
        self._ticked = now
        self._counted = (0, 0, 0, 0)
        self._counted_by_shard: dict[int, int] = {}
        self._message_rate = 0.0
        self._shard_rates: dict[int, float] = {}
        self._rows: deque[list[float | None]] = deque(maxlen=HISTORY)
        self._load: dict[int, deque[list[float]]] = {}
        self._phase: tuple[int, RegisterPhase] | None = None
        self.on_document: Callable[[EpochDocument], None] = lambda _: None

    # -- in ---------------------------------------------------------------------------------------------------------------

    def report(self, body: bytes, now: int) -> None:
        """A message of the reports topic."""
        self.messages += 1
        try:
            report = read_report(body)
        except DecodeError:
            self.ignored += 1
            return
        if isinstance(report.content, Notable):
            self._note(report.source, report.content.text, now)
        elif isinstance(report.content, Left):
            self.sources.drop("node", report.source, self.epochs.seats)
        else:
            self._figures(report.source, report.content, report.time, now)

    def _figures(self, name: str, figures: Figures, time: int, now: int) -> None:
        known = self.sources.get(ROLES[type(figures)], name)
        if known is None:
            self.ignored += not self.sources.add(Source(name, figures, time, now), self.epochs.seats)
            return
        restarts = known.restarts
        known.update(figures, time, now)
        if known.restarts > restarts:
            self._note(known.name, f"{known.role} was restarted", now)

    def announcement(self, body: bytes, now: int) -> None:
        """A message of the epoch topic."""
        self.messages += 1
        for news in self.epochs.announce(body):
            self._take(news, now)

    def bulletin(self, body: bytes, now: int) -> None:
        """A message of the bulletins topic."""
        self.messages += 1
        for news in self.epochs.hear(body):
            self._take(news, now)

    def _take(self, news: News, now: int) -> None:
        match news:
            case NewDocument(document):
                members = len(self.epochs.seats)
                text = f"epoch {document.number}: {members} nodes form {len(document.committees)} committees"
                self._note("coordinator" if document.number == 1 else "register", text, now)
                self._phase = None
                self.chain.begin(document)
                self._load = {shard: rows for shard, rows in self._load.items() if shard in document.electorates}
                self.on_document(document)
            case NewPhase(notice):
                self._note("coordinator", f"epoch {notice.epoch}: phase {notice.phase}", now)
            case NewBulletin(bulletin):
                self._note_phase(bulletin, now)
            case Refused():
                self.ignored += 1

    def _note_phase(self, bulletin: Bulletin, now: int) -> None:
        register, attempt = bulletin.change.register, bulletin.change.attempt
        if register is not None and self._phase != (attempt, register.phase):
            self._phase = attempt, register.phase
            text = f"change to epoch {bulletin.epoch + 1}, attempt {attempt}: {register.phase.name.lower()}"
            self._note("register", text, now)

    def block(self, shard: int, body: bytes, epoch: int = 1) -> None:
        """A message of a chain's blocks topic; until the committees are known nobody can tell a block from a lie. What comes of
        an epoch that is over is passed over."""
        self.messages += 1
        if self.epochs.document is None or epoch != self.epochs.document.number:
            return
        try:
            found = self.chain.add(shard, body, self.epochs.document)
        except DecodeError:
            self.ignored += 1
            return
        for contradiction in found:
            self._note(f"shard {contradiction.home}", str(contradiction), self._ticked)

    def connection(self, connected: bool, now: int) -> None:
        """Whether the dashboard itself hears the broker."""
        if connected == self.connected:
            return
        self._connected_since, self._lost_since = (now, None) if connected else (None, now)
        self._note("dashboard", "connected to the broker" if connected else "lost the broker", now)

    @property
    def connected(self) -> bool:
        return self._connected_since is not None

    def tick(self, now: int) -> None:
        """Once a second: who fell silent, and a row of history."""
        self._feed_budget = min(FEED_LINES, self._feed_budget + FEED_RATE)
        for source in self.sources.age(now, self._connected_since, self.epochs.seats):
            if source.state != "unknown":
                self._note(source.name, f"{source.role} is {source.state}", now)
        seconds = max(now - self._ticked, 1) / 1000
        counts = (self.chain.intra, self.chain.cross, self.chain.refused, self.messages)
        intra, cross, refused, self._message_rate = (
            (new - old) / seconds for new, old in zip(counts, self._counted, strict=True)
        )
        by_shard = dict(self.chain.by_shard)
        self._shard_rates = {n: (count - self._counted_by_shard.get(n, 0)) / seconds for n, count in by_shard.items()}
        self._counted, self._counted_by_shard, self._ticked = counts, by_shard, now
        activity = [sum(gateway.rate(name) for gateway in self.sources.of(GatewayFigures)) for name in ACTIVITIES]
        row = [now, intra, cross, refused, *self._latencies(), *activity]
        self._rows.append([_short(value) for value in row])
        for committee in self._committees():
            self._load.setdefault(committee.shard, deque(maxlen=HISTORY)).append(self._committee_load(committee))

    def _latencies(self) -> list[float | None]:
        """In ms: p50 and p99 of the slowest gateway, within a shard and across; the mean of the nodes' own."""
        present = [source.figures for source in self.sources if source.is_up]
        gateways = [figures for figures in present if isinstance(figures, GatewayFigures)]
        replicas = [figures.replica for figures in present if isinstance(figures, NodeFigures)]
        own = [r.latency_us for r in replicas if r is not None and r.latency_us is not None]
        return [
            *_slowest([g.intra for g in gateways if g.intra is not None]),
            *_slowest([g.cross for g in gateways if g.cross is not None]),
            sum(own) / len(own) / 1000 if own else None,
        ]

    def _committee_load(self, committee: Committee) -> list[float]:
        nodes = [n for member in committee.members if (n := self.sources.get("node", member.name)) and n.is_up]
        cpu = sum(node.cpu_percent for node in nodes)
        return [round(cpu, 1), sum(node.figures.process.memory for node in nodes)]

    def _note(self, source: str, text: str, now: int) -> None:
        if self._feed_budget == 0:
            self.ignored += 1
            return
        self._feed_budget -= 1
        self._feed_number += 1
        self._feed.append({"number": self._feed_number, "time": now, "source": source, "text": text})

    # -- out --------------------------------------------------------------------------------------------------------------

    def update(self, now: int) -> dict[str, Any]:
        """The present: everything but the history, of which only the newest row."""
        notice, document, prospect = self.epochs.notice, self.epochs.document, self.epochs.chronicle.prospect
        return {
            "time": now,
            "network": {"name": self.genesis.name, "id": self.genesis.network.hex(), "gateway": self._gateway},
            "broker": {
                "connected": self.connected,
                "since": self._connected_since if self._connected_since is not None else self._lost_since,
                "messages": round(self._message_rate, 1),
                "ignored": self.ignored,
            },
            "epoch": document.number if document else notice.epoch if notice else None,
            "phase": str(notice.phase) if notice else None,
            "clock": clock(self.epochs, self.genesis),
            "ranges": ranges(document),
            "next_ranges": ranges(prospect),
            "moves": moves(document, prospect) if document and prospect else [],
            "committees": [self._committee(committee) for committee in self._committees()],
            "sources": [self._source(source, now) for source in sorted(self.sources, key=_order)],
            "activity": self._activity(),
            "finalized": {"intra": self.chain.intra, "cross": self.chain.cross, "refused": self.chain.refused},
            "supply": self.chain.supply(document),
            "contradictions": self.chain.contradictions,
            "blocks": list(self.chain.latest),
            "feed": list(self._feed),
            "columns": COLUMNS,
            "row": self._rows[-1] if self._rows else None,
        }

    def snapshot(self, now: int) -> dict[str, Any]:
        """The present and the history."""
        load = {shard: list(rows) for shard, rows in self._load.items()}
        return {**self.update(now), "history": list(self._rows), "load_history": load}

    def _committees(self) -> tuple[Committee, ...]:
        return self.epochs.document.committees if self.epochs.document else ()

    def _committee(self, committee: Committee) -> dict[str, Any]:
        shard = self.chain.shards.get(committee.shard)
        nodes = [self.sources.get("node", member.name) for member in committee.members]
        up = [n for n in nodes if n is not None and n.is_up]
        replicas = [n.figures.replica for n in up if isinstance(n.figures, NodeFigures) and n.figures.replica is not None]
        ahead = max(replicas, key=lambda replica: replica.view, default=None)
        cpu, memory = self._committee_load(committee)
        return {
            "shard": committee.shard,
            "members": [member.name for member in committee.members],
            "leader": ahead.leader if ahead else None,
            "up": len(up),
            "faults_tolerated": (len(nodes) - 1) // 3,
            "height": shard.header.height if shard else None,
            "view": shard.header.view if shard else None,
            "block_time": shard.header.time if shard else None,
            "pending": shard.totals.pending if shard else 0,
            "missed": shard.missed if shard else 0,
            "rate": round(self._shard_rates.get(committee.shard, 0.0), 1),
            "cpu": cpu,
            "memory": memory,
        }

    def _source(self, source: Source, now: int) -> dict[str, Any]:
        figures = source.figures
        shown: dict[str, Any] = {
            "role": source.role,
            "name": source.name,
            "state": source.state,
            "age": now - source.last_seen,
            "restarts": source.restarts,
            "doing": figures.process.doing,
            "pid": figures.process.pid,
            "cpu": round(source.cpu_percent, 1),
            "memory": figures.process.memory,
        }
        match figures:
            case NodeFigures():
                rates = {f"{name}_rate": round(source.rate(name)) for name in ("bytes_in", "bytes_out", "hashes")}
                root = figures.replica.state_root.hex()[:8] if figures.replica else None
                shown |= {**numbers(figures), **rates, "phase": figures.phase, "state_root": root}
            case CoordinatorFigures():
                shown |= {**numbers(figures), "phase": figures.phase}
            case GatewayFigures():
                shown |= {"pending": figures.pending, **{name: source.totals[name] for name in ACTIVITIES}}
        return shown

    def _activity(self) -> dict[str, list[float]]:
        """Gateways' work together: [count, per second] by kind."""
        gateways = self.sources.of(GatewayFigures)
        return {
            name: [sum(g.totals[name] for g in gateways), round(sum(g.rate(name) for g in gateways), 2)] for name in ACTIVITIES
        }


def _order(source: Source) -> tuple[int, str]:
    return list(ROLES.values()).index(source.role), source.name


def _short(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else round(value, 2)


def _slowest(latencies: list[Latency]) -> tuple[float | None, float | None]:
    if not latencies:
        return None, None
    return max(latency.p50_us for latency in latencies) / 1000, max(latency.p99_us for latency in latencies) / 1000
