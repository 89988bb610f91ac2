"""One epoch becomes the next on a bad day, thousands of times: ``python -m tests.simulation.boundaries FIRST COUNT``.

Each seed is a plan: how many committees, who joins and leaves, what is lost, who ends when, who lies. Payments go on,
and clients say them again, to whoever keeps the home now. Prints what each seed violates.
"""

import sys
import time
from collections.abc import Sequence
from random import Random

from msgspec import Struct

from node.protocol.transaction import Transaction
from tests.chains import TIME, Network, key
from tests.simulation.boundary_liars import LIARS, LOSES_SEAT, call
from tests.simulation.epochs import SOON, Host, World
from tests.simulation.mutants import Mutation, applied
from tests.simulation.run import remembered
from tests.simulation.violation import ViolationError, violated
from tests.vectors.change_reference import SETTLEMENT

NEVER = 86_400_000
PEOPLE = [key(f"person {number}") for number in range(16)]
TRAPS = ("", "", "Begin", "Pledge", "AcceptDocument", "Abandon", "Meet", "Publish")
"""Effects that a node persists or is about to say, and does not live to."""


class Plan(Struct, frozen=True):
    """``committees`` of four; of four nodes more ``joining`` want seats, ``late`` ms after the
    start at most; ``leaving`` members leave.

    epochs: how many boundaries. loss, broker_loss: of messages. disturbed: nodes end until then, ms; ``trap``: and upon what.
    wiped: whether a member loses its disk. liar: the behaviour of one member. coordinator: calls, dead, or raging.
    outage: a whole committee is away for a while, when the shards settle. payments: so many each ``pace`` ms.
    patience: so long each step may take, attempts that are called off included, ms.
    """

    seed: int
    committees: int = 2
    joining: int = 0
    late: int = 1
    leaving: int = 0
    epochs: int = 1
    loss: float = 0.0
    broker_loss: float = 0.0
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


def draw(seed: int) -> Plan:
    """A day that an honest majority survives: it must end."""
    chance = Random(f"{seed}/boundary")
    committees = chance.choice((1, 1, 2, 2, 3))
    liar = chance.choice(("", "", *LIARS))
    disturbed = chance.choice((0, 4_000, 8_000))
    wiped = chance.random() < 0.2
    joining = chance.choice((0, 0, 2, 4))
    if committees == 1 and (liar in LOSES_SEAT or wiped or disturbed):
        joining = max(2, joining)  # else there would be too few for a committee
    spare = joining + 4 * (committees // 2) - (liar in LOSES_SEAT) - wiped - bool(disturbed)
    return Plan(
        seed=seed,
        committees=committees,
        joining=joining,
        late=chance.choice((1, 2_000)),
        leaving=chance.choice((0, 0, chance.randint(0, max(0, spare)))),
        epochs=chance.choice((1, 1, 1, 2)),
        loss=chance.choice((0.0, 0.0, 0.05, 0.15)),
        broker_loss=chance.choice((0.0, 0.0, 0.2, 0.4)),
        disturbed=disturbed,
        trap=chance.choice(TRAPS),
        wiped=wiped,
        liar=liar,
        coordinator=chance.choice(("calls", "calls", "dead", "raging")),
        handoff_time=chance.choice((30_000, 30_000, 2_000)),
        settle_time=chance.choice((10_000, 10_000, 2_400)),
        checkpoint_interval=chance.choice((600, 8)),
        outage=chance.random() < 0.15,
        pace=chance.choice((500, 100)),
    )


class Client:
    """Pays, and says what is not decided again: at each home the payment has, from epoch to epoch."""

    def __init__(self, world: World, many: int, pace: int) -> None:
        self._world, self._many, self._pace = world, many, pace
        self._until: dict[bytes, int] = {}
        self._open: dict[bytes, Transaction] = {}
        self.ends = False
        self._fund()
        self._work()

    def _fund(self) -> None:
        issuer = self._world.network.issuers["USD"]
        minted = [self._world.network.pay(issuer, person, 1_000, valid_until=TIME + 30_000) for person in PEOPLE]
        self._say(minted)

    def _say(self, payments: Sequence[Transaction]) -> None:
        self._open |= {payment.id: payment for payment in payments}
        self._world.submit(payments)

    def _work(self) -> None:
        world = self._world
        self._forget()
        world.submit(list(self._open.values())[:64])
        if not self.ends:
            until = TIME + world.now + world.chance.choice((3_000, 10_000, 20_000))
            pairs = [world.chance.sample(PEOPLE, 2) for _ in range(self._many)]
            self._say([world.network.pay(a, b, world.chance.randint(1, 400), valid_until=until) for a, b in pairs])
        if not self.ends or self._open:
            world.after(self._pace, self._work)

    def _forget(self) -> None:
        """What is decided, or can be included no more."""
        oracle, now = self._world.oracle, TIME + self._world.now
        self._open = {
            one: payment
            for one, payment in self._open.items()
            if oracle.end_at_home(one) is None and (one in oracle.transactions or payment.order.valid_until > now)
        }

    @property
    def is_done(self) -> bool:
        self._forget()
        return not self._open


class Day:
    """A plan at work."""

    def __init__(self, plan: Plan) -> None:
        age = 3_000 if plan.coordinator == "dead" else NEVER
        times = {"epoch_time": age, "handoff_time": plan.handoff_time, "settle_time": plan.settle_time}
        times["checkpoint_interval"] = plan.checkpoint_interval
        network = Network(committees=plan.committees, **{**SOON, **times})  # type: ignore[arg-type]  # no strings among them
        self.plan = plan
        self.world = World(network, 4, plan.seed, plan.loss, plan.broker_loss)
        self._chance = Random(f"{plan.seed}/day")

    def run(self) -> None:
        """Raises ViolationError."""
        plan, world = self.plan, self.world
        world.run(lambda: world.is_open, plan.patience)
        client = Client(world, plan.payments, plan.pace)
        if plan.liar:
            host = self._chance.choice(world.hosts[: 4 * plan.committees])
            host.liar = LIARS[plan.liar](world, host.key)
        for host in world.hosts[4 * plan.committees :][: plan.joining]:
            world.after(self._chance.randint(1, plan.late), host.start)
        honest = [host for host in world.hosts[: 4 * plan.committees] if host.liar is None]
        for host in self._chance.sample(honest, plan.leaving):
            assert host.node is not None
            world.after(self._chance.randint(0, 1_500), lambda host=host: host.node and host.node.leave())  # type: ignore[misc]
        for host in honest:
            host.trap = plan.trap if self._chance.random() < 0.3 else ""
        if plan.coordinator != "dead":
            call(world, lambda: world.document.number > plan.epochs, plan.coordinator == "raging")
        self._disturb(honest)
        if plan.outage:
            self._go_out()
        if plan.wiped:
            world.after(self._chance.randint(1, 2_000), lambda: self._wipe(self._chance.choice(honest)))
        world.run(lambda: world.document.number > plan.epochs and world.is_open, plan.patience)
        world.run(self._goes_on, plan.patience)
        client.ends = True
        world.run(lambda: client.is_done and self._is_drained(), plan.patience)
        world.oracle.check_drained()

    def _disturb(self, honest: Sequence[Host]) -> None:
        """Nodes end and begin again."""
        world = self.world
        if world.now < self.plan.disturbed:
            host = self._chance.choice(honest)
            if host.node is not None and world.may_end(host):
                host.stop()
                world.after(self._chance.randint(1, 3_000), host.start)
            world.after(self._chance.randint(100, 1_000), lambda: self._disturb(honest))
        elif self.plan.disturbed:
            world.loss = world.broker_loss = 0.0

    def _go_out(self) -> None:
        """Once the shards settle: one of them is lost for a while, with all that it was asked."""
        world, last = self.world, self.world.document.electorates[max(self.world.document.electorates)]
        register = world.oracle.chains[1, min(world.document.electorates)].ledger.register
        if register.phase < SETTLEMENT:
            world.after(10, self._go_out)
        elif register.phase == SETTLEMENT and last.epoch == 1:
            for host in [world.by_key[key_] for key_ in last.keys]:
                host.stop()
                world.after(self._chance.randint(2_000, 6_000), host.start)

    def _wipe(self, victim: Host) -> None:
        if victim.node is not None and self.world.may_end(victim):
            self._check_votes(victim, victim.epoch)
            victim.stop()
            victim.disks.clear()
            victim.pledges.clear()
            victim.begun.clear()
            victim.start()

    def _check_votes(self, victim: Host, lost: int) -> None:
        """Who lost its disk never votes again in that epoch."""

        def check() -> None:
            for chain, replica in victim.node.replicas.items() if victim.node is not None else ():
                if chain.epoch == lost and replica.consensus.has_votes:
                    violated("votes", f"{victim.name} lost its disk in epoch {lost}, and votes again in it")
            self.world.after(5, check)

        self.world.after(1, check)

    def _goes_on(self) -> bool:
        """Whether payments are made in the new epoch."""
        return any(chain.ends for chain in self.world.oracle.chains_of(self.plan.epochs + 1).values())

    def _is_drained(self) -> bool:
        """Whether nothing is undecided, and all members are there and keep their chains."""
        world = self.world
        members = (world.by_key[key_] for electorate in world.document.electorates.values() for key_ in electorate.keys)
        chains = world.oracle.chains_of(world.oracle.epoch).values()
        return not any(chain.undecided for chain in chains) and all(host.node is not None for host in members) and world.is_open


class Verdict(Struct):
    """``violation``: None when all held."""

    violation: str | None
    blocks: int
    payments: int
    epochs: int


def run(plan: Plan, mutations: Sequence[Mutation] = ()) -> Verdict:
    """Run a plan, with some rules of the core taken away."""
    violation, day = None, None
    with remembered(), applied(mutations):
        try:
            day = Day(plan)
            day.run()
        except ViolationError as error:
            violation = str(error)
        except Exception as error:  # whatever a node or the second implementation cannot bear
            violation = f"stopped: {type(error).__name__}: {str(error)[:300]}"
    if day is None:
        return Verdict(violation, 0, 0, 0)
    oracle = day.world.oracle
    return Verdict(violation, sum(chain.height for chain in oracle.chains.values()), len(oracle.transactions), oracle.epoch)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 1 when anything was violated."""
    first, count = map(int, arguments)
    begun, blocks, payments, boundaries, failed = time.process_time(), 0, 0, 0, list[int]()
    for seed in range(first, first + count):
        verdict = run(draw(seed))
        blocks, payments = blocks + verdict.blocks, payments + verdict.payments
        boundaries += max(0, verdict.epochs - 1)
        if verdict.violation is not None:
            failed.append(seed)
            print(f"seed {seed} violates {verdict.violation}\n  {draw(seed)}", flush=True)
    each = (time.process_time() - begun) / count
    print(f"{count} seeds: {boundaries} boundaries, {blocks} blocks, {payments} payments, {each:.2f} CPU seconds each")
    print(f"violated: {failed}" if failed else "all invariants hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
