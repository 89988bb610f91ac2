"""A day on which one epoch becomes the next: how many committees, who joins and leaves, what is lost, who ends when, who lies."""

from random import Random

from msgspec import Struct

from tests.simulation.boundary_liars import LIARS, LOSES_SEAT

TRAPS = ("", "", "Begin", "Pledge", "AcceptDocument", "Abandon", "Meet", "Publish")
"""Effects that a node persists or is about to say, and does not live to."""


class Plan(Struct, frozen=True):
    """``committees`` of four; of four nodes more ``joining`` want seats, ``late`` ms after the
    start at most; ``leaving`` members leave.

    epochs: how many boundaries. loss, broker_loss: of messages; delay: of those between nodes, ms at most. disturbed: nodes end
    until then, ms; ``trap``: and upon what.
    wiped: whether a member loses its disk. liar: the behaviour of one member. coordinator: calls, dead, or raging.
    outage: a whole committee is away for a while, when the shards settle. payments: so many each ``pace`` ms.
    patience: so long each step may take, attempts that are called off included, ms.
    short: the epoch is about to end when the day begins, and most payments are made while it does.
    """

    seed: int
    committees: int = 2
    joining: int = 0
    late: int = 1
    leaving: int = 0
    epochs: int = 1
    loss: float = 0.0
    broker_loss: float = 0.0
    delay: int = 10
    disturbed: int = 0
    trap: str = ""
    wiped: bool = False
    liar: str = ""
    coordinator: str = "calls"
    handoff_time: int = 30_000
    settle_time: int = 10_000
    checkpoint_interval: int = 600
    outage: bool = False
    payments: int = 4
    pace: int = 500
    patience: int = 240_000
    short: bool = False

    @property
    def busy(self) -> int:
        """Within so many ms the members that leave, or lose their disks, do."""
        return 400 if self.short else 1_500


def draw(seed: int, short: bool = False) -> Plan:
    """A day that an honest majority survives: it must end."""
    chance = Random(f"{seed}/{'short ' if short else ''}boundary")
    committees = chance.choice((1, 2, 2, 2, 2, 3) if short else (1, 1, 2, 2, 3))
    liar = chance.choice(("", "", *LIARS))
    disturbed = chance.choice((0, 800, 2_000) if short else (0, 4_000, 8_000))
    wiped = chance.random() < 0.2
    joining = chance.choice((0, 0, 2, 4))
    if committees == 1 and (liar in LOSES_SEAT or wiped or disturbed):
        joining = max(2, joining)  # else there would be too few for a committee
    spare = joining + 4 * (committees // 2) - (liar in LOSES_SEAT) - wiped - bool(disturbed)
    return Plan(
        seed=seed,
        committees=committees,
        joining=joining,
        late=chance.choice((1, 300 if short else 2_000)),
        leaving=chance.choice((0, 0, chance.randint(0, max(0, spare)))),
        epochs=1 if short else chance.choice((1, 1, 1, 2)),
        loss=chance.choice((0.0, 0.0, 0.05, 0.15)),
        broker_loss=chance.choice((0.0, 0.0, 0.2, 0.4)),
        delay=chance.choice((20, 40, 60) if short else (10, 10, 40)),
        disturbed=disturbed,
        trap=chance.choice(TRAPS),
        wiped=wiped,
        liar=liar,
        coordinator=chance.choice(("calls", "calls", "dead", "raging")),
        handoff_time=chance.choice((30_000, 30_000, 2_000)),
        settle_time=chance.choice((10_000, 10_000, 2_400)),
        checkpoint_interval=chance.choice((600, 8)),
        outage=chance.random() < 0.15,
        payments=2 if short else 4,
        pace=chance.choice((150, 60) if short else (500, 100)),
        short=short,
    )
