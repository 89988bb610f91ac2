"""Which faults a seed brings: each kind has its own rate per run. And their performance."""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from tests.simulation import limits
from tests.simulation.adversaries import BEHAVIOURS
from tests.simulation.coordinator import LIES
from tests.simulation.plan import (
    KINDS_OF_CRASH,
    TIMINGS,
    BrokerOutage,
    CoordinatorOutage,
    Crash,
    Cut,
    Fault,
    Links,
    LostDisk,
    Plan,
    Skew,
    SlowDisk,
    Stall,
)

CAPTURED = "captured shard"
_MORE = ("silent boaster", "twin network")
_HANDOFF = ("false parts", "withheld parts", "old checkpoint", "another checkpoint")
_BUNDLES = ("hoarded bundles", "bundles to liars")
_NAMES = ("bundles only named", "names of nothing")
"""What liars do beside what they do anyway: drawn apart, so that seeds stay as they were."""
Liars = tuple[tuple[int, tuple[str, ...]], ...]

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World


def draw(seed: int, behaviour: str = "", other: str = "") -> Plan:
    """The plan of a mixed run. ``behaviour``: of one more liar, in each committee that has none yet; or CAPTURED: a whole
    committee, as in one of 50 runs anyway. ``other``: of every second committee's instead."""
    chance, active = Random(f"{seed}/plan"), 8_000
    committees, size = (3, 4) if chance.random() < 0.1 else (2, 4)
    if chance.random() < 0.05:
        committees, size = 2, 7
    captured = behaviour == CAPTURED or seed % 50 == 49
    if captured:
        committees, size = 3, 4
    parameters = {
        "heartbeat": chance.choice((500, 800)),
        "block_difficulty_bits": 2 if chance.random() < 0.15 else 0,
        "checkpoint_interval": chance.choice((3, 6, 50)),
        "commit_timeout": chance.choice((2_000, 4_000, 8_000)),
        "validity_window": chance.choice((20_000, 25_000)),
    }
    flood = Random(f"{seed}/flood").choice((0, 0, 30))
    if flood:
        parameters["block_transactions"] = 6
    if Random(f"{seed}/window").random() < 0.2:  # ids are forgotten within the run
        parameters["validity_window"] = 6_000
    byzantine = _with_more(Random(f"{seed}/more"), _MORE, _byzantine(chance, committees, size))
    byzantine = _with_more(Random(f"{seed}/handoff"), _HANDOFF, byzantine)
    byzantine = _with_more(Random(f"{seed}/bundles"), _BUNDLES, byzantine)
    byzantine = _with_more(Random(f"{seed}/names"), _NAMES, byzantine)
    if behaviour and behaviour != CAPTURED:
        liars = {index // size: index for index, _ in reversed(byzantine)}
        names = [other if other and shard % 2 else behaviour for shard in range(committees)]
        focused = {liars.get(shard, shard * size + seed % size): (names[shard],) for shard in range(committees)}
        byzantine = tuple((dict(byzantine) | focused).items())
    caps = limits.draw(Random(f"{seed}/limits"))
    if Random(f"{seed}/tallies").random() < 0.05 and "amount" not in caps:  # with that, nobody has so much to send
        caps["tallies"] = 1 << 18
    if Random(f"{seed}/far").random() < 0.1:
        caps["far behind"] = 12
    keep_blocks = 0
    if (retention := Random(f"{seed}/retention")).random() < 0.15:
        keep_blocks, parameters["validity_window"] = retention.choice((1, 20)), 6_000
        caps |= {"far behind": retention.choice((4, 12)), "times noted": retention.choice((1, 3))}
    links, broker = _links(chance), _links(chance)
    faults = _faults(chance, committees, size, active, byzantine) + _late_power_cut(
        Random(f"{seed}/late"), committees * size, active
    )
    amnesia = _amnesia(Random(f"{seed}/amnesia"), size, active, byzantine)
    faults += amnesia + _away(Random(f"{seed}/away"), size, active, byzantine)
    return Plan(
        seed=seed,
        committees=committees,
        size=size,
        parameters=parameters,
        links=links,
        broker=broker,
        timing=Random(f"{seed}/timing").choice(("", "", *TIMINGS)),
        is_live=not amnesia,
        limits={} if captured else caps,
        captured=captured,
        swindled=seed % 2 == 0,
        asked=Random(f"{seed}/questions").random() < 0.1,
        faults=tuple(sorted(faults, key=lambda fault: (fault.at, repr(fault)))),
        byzantine=byzantine,
        lies=tuple(lie for lie in LIES if chance.random() < 0.5) if chance.random() < 0.1 else (),
        gateways=chance.choice((1, 1, 2)),
        resubmission=chance.choice((0.0, 0.2)),
        flood=flood,
        active=active,
        keep_blocks=keep_blocks,
    )


def _links(chance: Random) -> Links:
    kind = chance.random()
    if kind < 0.25:
        return Links()
    slowest = chance.choice((4, 30, 120))
    loss, duplication = chance.choice((0.0, 0.03, 0.15)), chance.choice((0.0, 0.05, 0.2))
    return Links((1, slowest), chance.choice((0.0, 0.02, 0.08)), loss, duplication)


def _byzantine(chance: Random, committees: int, size: int) -> Liars:
    """Up to f liars in each committee, each with one to three ways to lie."""
    liars, names = [], sorted(BEHAVIOURS.keys() - {*_MORE, *_HANDOFF, *_BUNDLES, *_NAMES})
    for shard in range(committees):
        count = chance.choice((0, 1, 1)) * ((size - 1) // 3)
        for member in chance.sample(range(size), count):
            liars.append((shard * size + member, tuple(chance.sample(names, chance.randint(1, 3)))))
    return tuple(liars)


def _with_more(chance: Random, more: Sequence[str], byzantine: Liars) -> Liars:
    return tuple((index, (*how, chance.choice(more)) if chance.random() < 0.1 else how) for index, how in byzantine)


def handoff(seed: int, behaviour: str = "") -> Plan:
    """The plan of a run in which a member of each committee loses its disk, once a state can be handed over, and then crashes a
    few times, at whatever it is; or, in every fourth run, is away for long. ``behaviour``: of another member."""
    chance, size = Random(f"{seed}/handoff"), 4
    faults: list[Fault] = []
    for shard in range(2):
        node, at = shard * size + seed % size, 3_000 + chance.randrange(500)
        if seed % 4 == 0:
            faults.append(Crash(at, (node,), (4_000,), "idle"))
            continue
        faults.append(LostDisk(at, node, 100))
        crashes = sorted(chance.randint(at + 105, at + 900) for _ in range(chance.choice((0, 1, 3))))
        faults += [Crash(when, (node,), (20,), chance.choice(KINDS_OF_CRASH)) for when in crashes]
    liars = tuple((shard * size + (seed + 1) % size, (behaviour,)) for shard in range(2)) if behaviour else ()
    return Plan(
        seed=seed,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        byzantine=liars,
        parameters={"checkpoint_interval": chance.choice((3, 6)), "heartbeat": 500},
        limits={"far behind": 4, "part": chance.choice((2, 4096))},
        links=chance.choice((Links(), Links((1, 30), 0.02, 0.03, 0.05))),
        active=8_000,
    )


def _faults(chance: Random, committees: int, size: int, active: int, byzantine: Liars) -> list[Fault]:
    everybody = tuple(range(committees * size))
    committee = [tuple(range(shard * size, (shard + 1) * size)) for shard in range(committees)]
    found: list[Fault] = []

    def times(rate: float) -> list[int]:
        """When a kind of fault strikes; most kinds are absent from most runs."""
        rate *= chance.choice((0, 0, 1, 3))
        return [chance.randint(200, active) for _ in range(int(rate) + (chance.random() < rate % 1))]

    def power_cut(at: int, nodes: tuple[int, ...]) -> Crash:
        return Crash(at, nodes, tuple(chance.randint(50, 3_000) for _ in nodes), chance.choice(KINDS_OF_CRASH))

    found += [power_cut(at, (chance.choice(everybody),)) for at in times(2)]
    found += [power_cut(at, chance.choice(committee)) for at in times(0.7)]
    found += [power_cut(at, everybody) for at in times(0.5)]
    found += [Stall(at, chance.choice(everybody), chance.randint(100, 3_000)) for at in times(1)]
    found += [SlowDisk(at, chance.choice(everybody), chance.randint(500, 4_000), chance.randint(5, 300)) for at in times(1)]
    found += [BrokerOutage(at, chance.randint(200, 3_000)) for at in times(0.5)]
    found += [CoordinatorOutage(chance.choice((1, 5, 15, at)), chance.randint(200, 2_000)) for at in times(0.5)]
    for at in times(1):
        found.append(Skew(at, chance.choice(everybody), chance.randint(500, 4_000), chance.randint(-800, 800)))
    lying = {index // size for index, _ in byzantine}
    for shard in range(committees):  # these are faults as bad as a lie: of all together no more than f
        if shard in lying:
            continue
        if chance.random() < 0.1:
            found.append(LostDisk(chance.randint(200, active), chance.choice(committee[shard]), chance.randint(10, 2_000)))
        elif chance.random() < 0.1:
            offset = chance.choice((-300_000, 300_000))
            found.append(Skew(chance.randint(200, active), chance.choice(committee[shard]), chance.randint(500, 6_000), offset))
    for at in times(1.5):
        kind, lasting = chance.random(), chance.randint(300, 4_000)
        if kind < 0.3:
            ours = chance.choice(committee)
        elif kind < 0.6:
            ours = (chance.choice(everybody),)
        else:
            ours = tuple(sorted(chance.sample(everybody, len(everybody) // 2)))
        theirs = tuple(node for node in everybody if node not in ours)
        found.append(Cut(at, lasting, ours, theirs))
        if chance.random() < 0.6:  # the others are deaf one way only
            found.append(Cut(at, lasting, theirs, ours))
    return found


def _late_power_cut(chance: Random, nodes: int, active: int) -> list[Fault]:
    """As late as can be: what clients send again just then must not count twice."""
    if chance.random() > 0.1:
        return []
    everybody = tuple(range(nodes))
    down = tuple(chance.randint(50, 1_000) for _ in everybody)
    return [Crash(active - chance.randint(1, 400), everybody, down, chance.choice(KINDS_OF_CRASH))]


def _amnesia(chance: Random, size: int, active: int, byzantine: Liars) -> list[Fault]:
    """Somebody who sits with a liar loses what it signed: together they are more than f, and may stop their shard, no more."""
    if not byzantine or chance.random() > 0.08:
        return []
    liars = {index for index, _ in byzantine}
    shard = chance.choice(byzantine)[0] // size
    honest = [node for node in range(shard * size, (shard + 1) * size) if node not in liars]
    return [
        LostDisk(chance.randint(200, active), node, chance.randint(10, 1_000))
        for node in chance.sample(honest, chance.randint(1, 2))
    ]


def _away(chance: Random, size: int, active: int, byzantine: Liars) -> list[Fault]:
    """Where somebody boasts of a height that nobody has, somebody else is away until faults stop, and has to catch up."""
    liars = {index for index, _ in byzantine}
    boasters = [index // size for index, how in byzantine if "silent boaster" in how]
    members = [sorted(set(range(shard * size, (shard + 1) * size)) - liars) for shard in boasters]
    return [Crash(active // 2, (chance.choice(honest),), (2 * active,), "idle") for honest in members]


def schedule(world: "World") -> None:
    """Have every fault of the plan happen in its time."""
    for fault in world.plan.faults:
        world.after(fault.at, lambda fault=fault: _strike(world, fault))  # type: ignore[misc]


def _strike(world: "World", fault: Fault) -> None:
    if world.time >= world.plan.active:
        return
    match fault:
        case Crash(_, nodes, down, where):
            for index, lasting in zip(nodes, down, strict=True):
                node = world.nodes[index]
                if where == "idle":
                    node.crash()
                else:
                    node.trap = where
                world.after(lasting + (0 if where == "idle" else 300), lambda node=node: _restart(node))  # type: ignore[misc]
        case LostDisk(_, index, lasting):
            world.nodes[index].lose_disk()
            world.after(lasting, world.nodes[index].start)
        case Stall(_, index, lasting):
            world.nodes[index].stall(lasting)
        case SlowDisk(_, index, lasting, latency):
            world.nodes[index].latency = latency
            world.tell(world.nodes[index], f"needs {latency} ms for a write from now on")
            world.after(lasting, lambda: setattr(world.nodes[index], "latency", 1))
        case Skew(_, index, lasting, offset):
            world.nodes[index].skew = offset
            world.tell(world.nodes[index], f"has its clock {offset} ms off")
            world.after(lasting, lambda: setattr(world.nodes[index], "skew", 0))
        case Cut(_, lasting, sources, targets):
            world.network.cuts.append(fault)
            cut = [", ".join(str(world.nodes[i]) for i in side) for side in (sources, targets)]
            world.tell(None, f"nothing gets from {cut[0]} to {cut[1]} for {lasting} ms")
            world.after(lasting, lambda: world.network.cuts.remove(fault) if fault in world.network.cuts else None)
        case BrokerOutage(_, lasting):
            world.broker.is_up = False
            world.tell(None, f"broker away for {lasting} ms")
            world.after(lasting, lambda: setattr(world.broker, "is_up", True))
        case CoordinatorOutage(_, lasting):
            world.coordinator.crash()
            world.after(lasting, world.coordinator.start_if_down)


def _restart(node: "Host") -> None:
    node.trap = ""
    node.start()
