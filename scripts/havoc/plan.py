"""What is done to the network: episodes of faults drawn from a seed. Pure; seats are (shard, member), so a seed means the same
on every run.

Within an episode at most f members of each committee are disturbed, and the next one begins when the network has recovered -
except in severe episodes, which take a whole committee or everything: then payments may pause, but nothing may be lost. Whose
database is lost votes no more, so it is the same f members of each committee whose are, again and again.
"""

import random
from collections.abc import Collection, Iterator

from msgspec import Struct

Seat = tuple[int, int]

SEVERAL = ("kill", "pause", "cut")
"""Befalls up to f members of each committee."""
SINGLE = ("disk", "damage", "delete", "clock")
"""Befalls one node."""
LOSING = ("damage", "delete")
"""Costs a node its vote for good."""
SERVICES = ("broker", "coordinator", "gateway", "stall")
SEVERE = ("committee", "freeze", "blackout", "split")
KINDS = {
    "kill": "kill -9 up to f members of each committee, start them again",
    "pause": "SIGSTOP up to f members of each committee, then SIGCONT",
    "disk": "no room on one node's disk",
    "damage": "one node's database file damaged while the node is down",
    "delete": "one node's database deleted while the node is down",
    "clock": "one node's clock minutes off",
    "broker": "kill -9 the broker, start it again",
    "coordinator": "the same to the coordinator",
    "gateway": "the same to a process of the gateway",
    "stall": "SIGSTOP a process of the gateway until its lease is over, then SIGCONT",
    "committee": "kill -9 all nodes of one committee",
    "freeze": "SIGSTOP all nodes of one committee, then SIGCONT",
    "blackout": "kill -9 every process at once",
    "cut": "cut up to f members of each committee off the network",
    "split": "cut the committees, or the members of each, into two networks",
}
_SECONDS = {
    "kill": (0.5, 8.0),
    "pause": (1.0, 8.0),
    "cut": (2.0, 10.0),
    "disk": (8.0, 14.0),
    "damage": (0.2, 2.0),
    "delete": (0.2, 2.0),
    "clock": (6.0, 12.0),
    "broker": (0.2, 6.0),
    "coordinator": (0.5, 8.0),
    "gateway": (0.2, 4.0),
    "stall": (5.0, 9.0),
    "committee": (0.2, 4.0),
    "freeze": (1.0, 6.0),
    "blackout": (0.2, 3.0),
    "split": (2.0, 8.0),
}
_LATEST_START = 2.0


class Fault(Struct, frozen=True):
    """``kind`` from second ``after`` of the episode on, for ``seconds``. ``detail`` seeds what is left to choose."""

    kind: str
    after: float
    seconds: float
    nodes: tuple[Seat, ...]
    detail: int

    @property
    def until(self) -> float:
        return self.after + self.seconds


class Episode(Struct, frozen=True):
    faults: tuple[Fault, ...]

    @property
    def seconds(self) -> float:
        return max(fault.until for fault in self.faults)


def episodes(seed: int, committees: int, size: int, kinds: Collection[str]) -> Iterator[Episode]:
    """Without end. Each kind comes once before any comes again. ``kinds``: a part of KINDS, not empty."""
    chance = random.Random(seed)
    draw = _Draw(chance, committees, size)
    possible = [kind for kind in KINDS if kind in kinds and (draw.can_lose or kind not in LOSING)]
    while True:
        deck = list(possible)
        chance.shuffle(deck)
        for kind in deck:
            main = draw.fault(kind)
            company = draw.company(main, kinds) if kind not in SEVERE else ()
            yield Episode((main, *company))


class _Draw:
    def __init__(self, chance: random.Random, committees: int, size: int) -> None:
        self._chance = chance
        self._seats = {shard: [(shard, member) for member in range(size)] for shard in range(committees)}
        self._bearable = (size - 1) // 3
        self._losing = [seat for seats in self._seats.values() for seat in chance.sample(seats, self._bearable)]

    @property
    def can_lose(self) -> bool:
        """Whether a committee goes on without somebody's vote."""
        return bool(self._losing)

    def fault(self, kind: str) -> Fault:
        after = 0.0 if kind in SEVERE else self._chance.uniform(0, _LATEST_START)
        seconds = self._chance.uniform(*_SECONDS[kind])
        return Fault(kind, round(after, 2), round(seconds, 2), self._nodes(kind), self._chance.getrandbits(32))

    def company(self, main: Fault, kinds: Collection[str]) -> tuple[Fault, ...]:
        """Now and then a second fault that leaves the first one's committees alone."""
        if self._chance.random() < 0.5:
            return ()
        others = [k for k in kinds if k in (SERVICES if main.nodes else SEVERAL)]
        return (self.fault(self._chance.choice(sorted(others))),) if others else ()

    def _nodes(self, kind: str) -> tuple[Seat, ...]:
        shards = list(self._seats)
        if kind in SEVERAL:
            hit = self._chance.sample(shards, self._chance.randint(1, len(shards)))
            return tuple(seat for shard in sorted(hit) for seat in self._some(shard, self._bearable))
        if kind in LOSING:
            return (self._chance.choice(self._losing),)
        if kind in SINGLE:
            return (self._chance.choice(self._seats[self._chance.choice(shards)]),)
        if kind in ("committee", "freeze"):
            return tuple(self._seats[self._chance.choice(shards)])
        if kind == "split":
            if len(shards) > 1 and self._chance.random() < 0.5:
                return tuple(
                    seat for shard in sorted(self._chance.sample(shards, len(shards) // 2)) for seat in self._seats[shard]
                )
            return tuple(seat for shard in shards for seat in self._some(shard, len(self._seats[shard]) // 2, exactly=True))
        return ()

    def _some(self, shard: int, most: int, exactly: bool = False) -> list[Seat]:
        count = most if exactly else self._chance.randint(min(1, most), most)
        return sorted(self._chance.sample(self._seats[shard], count))
