"""What a large network does, simulated: ``python -m tests.measure_large --nodes 400``.

Real nodes of all committees in this process, on virtual cores, lines and time; signatures are modelled
(``tests.simulation.large``, ``modelled``). Without ``--committee-size`` committees are as large as they have to be: with the
share ``--bad`` of all nodes bad, the chance that any committee has too many of them is at most RapidChain's, once in 4580 years
of epochs of a day.

With ``--epoch`` no payments are made, but the epoch changes: all nodes register again, and get new seats.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterable
from resource import RUSAGE_SELF, getrusage
from statistics import mean
from typing import Any

from node.effects import NodeEffect
from node.events import Event, Instant
from node.network.events import Message
from node.protocol.bulletins import decode_message
from node.protocol.change import Bulletin
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair, verify
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Ballot, Frame
from node.protocol.topics import asks_topic, bulletins_topic, entries_topic
from scripts.committee_odds import epoch_fails, smallest_size
from tests.bench import costs as parts
from tests.chains import Network
from tests.simulation.large import World
from tests.simulation.machine import Costs, Host, Line
from tests.simulation.modelled import Meter, modelled
from tests.simulation.paying import Payers, fund

CHANCE = 1 / (4580 * 365)
"""That RapidChain fails in an epoch of a day."""
PATIENT: dict[str, Any] = {"heartbeat": 10_000, "view_timeout": 20_000, "commit_timeout": 120_000, "settle_time": 300_000}
PATIENT |= {"checkpoint_interval": 10_000, "reveal_time": 1_200_000, "handoff_time": 1_200_000}
"""Parameters of a network of large committees on slow lines."""
FOR_EPOCHS: dict[str, Any] = {"epoch_time": 2_000, "epoch_pause": 1_000, "heartbeat": 2_000}
"""With which the epoch ends as soon as all is said, and a shard without payments answers soon."""
_PATIENCE = 1_200_000
"""Ms that a change of epochs may take."""


def largest_share(nodes: int, size: int) -> float:
    """The largest share of bad nodes that committees of this size hold."""
    held = (bad for bad in range(nodes // 3, -1, -1) if epoch_fails(nodes, bad, size) <= CHANCE)
    return next(held, 0) / nodes


def show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    print(f"\n{title}", *(f"  {name:<44} {value}" for name, value in rows), sep="\n", flush=True)


# -- costs -----------------------------------------------------------------------------------------------------------------


def seconds_of(work: object, times: int) -> float:
    """CPU of one call."""
    assert callable(work)
    began = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - began) / times


def calibrate(size: int) -> Costs:
    """As they are on this machine, in committees of ``size``; those of lines and disks as they were measured elsewhere."""
    pair, message = KeyPair(bytes(31) + b"\1"), bytes(32)
    signature = pair.sign(message)
    check, sign = seconds_of(lambda: verify(pair.public, message, signature), 500), seconds_of(lambda: pair.sign(message), 500)
    ratios = parts.measure(3)
    event, byte = _votes(size)
    taken, executed, committed = (1e6 * check * ratios[part] for part in ("take in", "verify", "commit"))
    return Costs(1e6 * check, 1e6 * sign, event, byte, taken, executed, committed)


def _votes(size: int) -> tuple[float, float]:
    """CPU of a vote without its signature, and of a byte of a long message, us."""
    spent: list[float] = []
    longest = b""

    def handle(host: Host, event: Event, at: Instant) -> list[NodeEffect]:
        nonlocal longest
        is_vote = isinstance(event, Message) and isinstance(decode(Frame, event.frame, MAX_FRAME_BYTES).message, Ballot)
        began = time.thread_time()
        effects = host.node.handle(event, at)
        _ = host.node.deadline
        if is_vote:
            spent.append(time.thread_time() - began)
        elif isinstance(event, Message):
            longest = max(longest, event.frame, key=len)
        return effects

    with modelled() as meter:
        network = Network(committees=1, size=size, **PATIENT)
        people = fund(network)
        world = World(network, meter, Line(), Costs())
        Payers(world, people, 0).start(1_000)
        world.handle = handle
        world.run(3_000)
    return 1e6 * mean(spent), 1e6 * seconds_of(lambda: decode(Frame, longest, MAX_FRAME_BYTES), 100) / len(longest)


# -- payments --------------------------------------------------------------------------------------------------------------


def measure_payments(world: World, payers: Payers, waiting: int, warm_up: float, seconds: float) -> None:
    payers.start(waiting)
    follow(world, payers, warm_up)
    before = [(host.up.bytes, host.down.bytes, host.busy, host.made) for host in world.hosts]
    carried, heights = world.carried, sum(world.heights.values())
    follow(world, payers, warm_up + seconds)
    spent = [
        (host.up.bytes - up, host.down.bytes - down, host.busy - busy, host.made - made)
        for host, (up, down, busy, made) in zip(world.hosts, before, strict=True)
    ]
    done = [one for one in payers.done if one[0] > 1e3 * warm_up]
    up, down, busy, made = zip(*spent, strict=True)
    shards = len(world.network.shards)
    replicas = [host.node.replica for host in world.hosts]
    rows = [
        ("payments committed a second", f"{len(done) / seconds:.0f} ({len(done)} in {seconds:g} s; {payers.failed} failed)"),
        ("  inside a shard", latencies(took for _, took, across in done if not across)),
        ("  across shards", latencies(took for _, took, across in done if across)),
        ("blocks of a shard, a second", f"{(sum(world.heights.values()) - heights) / shards / seconds:.2f}"),
        ("views given up", str(sum(r.consensus.view_timeouts for r in replicas if r is not None))),
        ("a node sends, kB a second: mean, most", f"{mean(up) / seconds / 1e3:.0f}, {max(up) / seconds / 1e3:.0f}"),
        ("a node receives", f"{mean(down) / seconds / 1e3:.0f}, {max(down) / seconds / 1e3:.0f}"),
        ("bytes received for a payment, by a node", f"{sum(down) / max(1, len(done)):.0f} by all"),
        ("core of a node is busy: mean, most", f"{mean(busy) / seconds / 1e3:.1%}, {max(busy) / seconds / 1e3:.1%}"),
        ("connections of a node, most", str(max(host.most for host in world.hosts))),
        ("new ones, a node and second", f"{mean(made) / seconds:.2f}"),
        ("the broker gives out, MB a second", f"{(world.carried - carried) / seconds / 1e6:.1f}"),
    ]
    show(f"{seconds:g} s, {waiting} payments under way in each shard", rows)


def follow(world: World, payers: Payers, until: float) -> None:
    """Until so many virtual seconds, and say every one of them how far it is."""
    while world.now < 1e3 * until:
        world.run(min(world.now + 1e3, 1e3 * until))
        heights = sorted(world.heights.values())
        told = f"{world.now / 1e3:g} s: heights {heights[:1]} to {heights[-1:]}, {len(payers.done)} payments committed"
        print(told, f"({time.process_time():.0f} s of CPU)", file=sys.stderr, flush=True)


def latencies(found: Iterable[float]) -> str:
    took = sorted(found)
    if not took:
        return "none"
    return f"{len(took)}; ms: median {took[len(took) // 2]:.0f}, 95 % {took[int(0.95 * len(took))]:.0f}, most {took[-1]:.0f}"


# -- a change of epochs ----------------------------------------------------------------------------------------------------


def measure_epoch(world: World) -> None:
    """Until every node has begun the next epoch, and each of its shards has a block."""

    def is_over() -> bool:
        return len(world.began[2]) == len(world.hosts) and sum(chain.epoch == 2 for chain in world.first) == shards

    shards = len(world.network.shards)
    world.run(_PATIENCE, is_over)
    phases: dict[str, float] = {}
    sizes = {maker.__name__: [len(b) for _, kind, b in world.told if kind == maker.__name__] for maker in _TOPICS}
    for at, kind, body in world.told:
        if kind == bulletins_topic.__name__ and isinstance(said := decode_message(body), Bulletin) and said.change.register:
            phases.setdefault(said.change.register.phase.name.lower(), at)
    first = sorted(at for chain, at in world.first.items() if chain.epoch == 2)
    rows = [(f"{phase} was told after, s", f"{at / 1e3:.1f}") for phase, at in phases.items()]
    if began := sorted(world.began[2]):
        rows.append(("nodes begin the next epoch: first, last", f"{began[0] / 1e3:.1f}, {began[-1] / 1e3:.1f}"))
    if first:
        rows.append((f"blocks of its shards ({len(first)} of {shards})", f"{first[0] / 1e3:.1f}, {first[-1] / 1e3:.1f}"))
    rows += [(f"{kind}: published, bytes of the largest", f"{len(some)}, {max(some, default=0)}") for kind, some in sizes.items()]
    rows += [
        ("a node receives in all, MB: mean, most", _both([host.down.bytes / 1e6 for host in world.hosts])),
        ("a node sends in all, MB", _both([host.up.bytes / 1e6 for host in world.hosts])),
        ("core of a node was busy, s", _both([host.busy / 1e3 for host in world.hosts])),
        ("the broker gave out, MB", f"{world.carried / 1e6:.0f}"),
        ("over after, s", f"{world.now / 1e3:.1f}" if is_over() else "not over"),
    ]
    show("a change of epochs, all nodes register again", rows)


_TOPICS = (entries_topic, bulletins_topic, asks_topic)


def _both(some: list[float]) -> str:
    return f"{mean(some):.1f}, {max(some):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--bad", type=float, default=0.1, help="share of bad nodes that committees shall hold (default 0.1)")
    parser.add_argument("--committee-size", type=int, help="members of a committee, whatever share they hold")
    parser.add_argument("--waiting", type=int, default=200, help="payments under way in each shard (default 200)")
    parser.add_argument("--across", type=float, default=0.0, help="share of payments across shards (default 0)")
    parser.add_argument("--warm-up", type=float, default=5.0, help="virtual seconds before it is measured (default 5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="virtual seconds that are measured (default 10)")
    parser.add_argument("--megabits", type=float, default=20.0, help="of a node's line, up as down (default 20)")
    parser.add_argument("--latency", type=float, default=100.0, help="one way between any two, ms (default 100)")
    parser.add_argument("--epoch", action="store_true", help="measure a change of epochs instead of payments")
    parser.add_argument("--calibrate", action="store_true", help="measure the costs on this machine, and use them")
    options = parser.parse_args()
    size = options.committee_size or smallest_size(options.nodes, round(options.bad * options.nodes), CHANCE)
    if size is None or not 1 <= size <= options.nodes:
        parser.error("no committee is large enough for this share")
    costs = calibrate(min(size, 64)) if options.calibrate else Costs()
    committees, line = options.nodes // size, Line(options.megabits, options.latency)
    show("costs, us of a core", [(name, f"{value:.4g}") for name, value in costs._asdict().items()])
    with modelled() as meter:
        run(options, committees, size, line, costs, meter)


def run(options: argparse.Namespace, committees: int, size: int, line: Line, costs: Costs, meter: Meter) -> None:
    parameters = PATIENT | (FOR_EPOCHS if options.epoch else {})
    standby = options.nodes - committees * size
    network = Network(committees=committees, size=size, standby=standby, **parameters)
    people = fund(network)
    document = network.document
    rows = [
        (
            "nodes",
            f"{options.nodes}: {committees} committees of {size} (quorum {document.electorates[0].quorum}), {standby} without",
        ),
        (
            "bad nodes that they hold",
            f"{largest_share(options.nodes, size):.1%}, with a chance of failure of {CHANCE:.1g} an epoch",
        ),
        ("lines", f"{line.megabits:g} Mbit/s, {line.latency:g} ms"),
        ("the epoch's document, bytes", str(len(encode(document)))),
    ]
    show("the network", rows)
    gc.disable()
    world = World(network, meter, line, costs, changes=options.epoch)
    if options.epoch:
        measure_epoch(world)
    else:
        measure_payments(world, Payers(world, people, options.across), options.waiting, options.warm_up, options.seconds)
    memory = getrusage(RUSAGE_SELF).ru_maxrss / (1 << 20)
    events = sum(host.events for host in world.hosts)
    show("this run", [("CPU, s; memory, GB", f"{time.process_time():.0f}; {memory:.1f}"), ("events", str(events))])


if __name__ == "__main__":
    main()
