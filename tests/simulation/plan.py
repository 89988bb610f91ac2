"""A run as plain data: drawn from a seed, printable, and easy to make smaller."""

from msgspec import Struct

TIMINGS = ("around timers", "one member starved", "late to who leads next")
"""How messages may be timed against the protocol."""
KINDS_OF_CRASH = ("idle", "before the write", "after the write", "between two sends")


class Crash(Struct, frozen=True):
    """Nodes lose power at the same moment, for ``down`` ms each; ``where``: what they were doing."""

    at: int
    nodes: tuple[int, ...]
    down: tuple[int, ...]
    where: str


class LostDisk(Struct, frozen=True):
    """A node crashes and comes back with an empty database."""

    at: int
    node: int
    down: int


class Stall(Struct, frozen=True):
    """A process stands still, and goes on as if nothing had happened."""

    at: int
    node: int
    lasting: int


class SlowDisk(Struct, frozen=True):
    """Each write takes ``latency`` ms."""

    at: int
    node: int
    lasting: int
    latency: int


class Skew(Struct, frozen=True):
    """A node's wall clock is off by ``offset`` ms."""

    at: int
    node: int
    lasting: int
    offset: int


class Cut(Struct, frozen=True):
    """Nothing gets from any of ``sources`` to any of ``targets``."""

    at: int
    lasting: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]


class BrokerOutage(Struct, frozen=True):
    """The broker delivers nothing."""

    at: int
    lasting: int


class CoordinatorOutage(Struct, frozen=True):
    """The coordinator is away; it comes back with what it had stored."""

    at: int
    lasting: int


Fault = Crash | LostDisk | Stall | SlowDisk | Skew | Cut | BrokerOutage | CoordinatorOutage


class Links(Struct, frozen=True):
    """Rates per message; delays in ms. ``tail``: share of messages that take up to two seconds."""

    delay: tuple[int, int] = (1, 4)
    tail: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0


class Plan(Struct, frozen=True):
    """One run. Nodes are numbered by seat: shard * size + member.

    ``byzantine``: (node, names of behaviours). ``active``: ms until faults stop and clients submit no more. ``settle``: ms
    after that within which everything must be decided. ``lies``: what the coordinator does wrong while nodes register.
    ``timing``: of messages between nodes, beside ``links``. ``swindled``: a client that lies is there. ``limits``: caps of the
    core that are set small. ``is_live``: whether no more than f members of each committee are faulty for good; if not,
    only safety is expected.
    """

    seed: int
    committees: int = 2
    size: int = 4
    parameters: dict[str, int] = {}
    links: Links = Links()
    broker: Links = Links()
    faults: tuple[Fault, ...] = ()
    byzantine: tuple[tuple[int, tuple[str, ...]], ...] = ()
    lies: tuple[str, ...] = ()
    transactions: tuple[int, ...] = tuple(range(30))
    """Numbers of those submitted: what one is, and when, depends on seed and number only."""
    gateways: int = 1
    resubmission: float = 0.0
    """Chance that a gateway sends again what is final."""
    flood: int = 0
    """How many payments one account of each gateway submits at once."""
    active: int = 8_000
    settle: int = 60_000
    timing: str = ""
    swindled: bool = False
    asked: bool = False
    """Whether a client asks members questions."""
    captured: bool = False
    """Whether the committee of a shard that issues nothing is in one hand; of three or more."""
    limits: dict[str, int] = {}
    keep_blocks: int = 0
    """Of every node."""
    is_live: bool = True
