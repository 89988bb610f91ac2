"""One epoch becomes the next on a bad day, thousands of times: ``python -m tests.simulation.boundaries FIRST COUNT [--short]``.

Each seed is a plan: how many committees, who joins and leaves, what is lost, who ends when, who lies. Payments go on,
and clients say them again, to whoever keeps the home now. Prints what each seed violates.
"""

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

from msgspec import Struct

from node.protocol.address import address_of
from node.protocol.crypto import KeyPair
from node.protocol.transaction import Transaction
from tests.chains import TIME, Network, key
from tests.simulation.boundary_liars import LIARS, call
from tests.simulation.boundary_plan import Plan, draw
from tests.simulation.epochs import SOON, Host, World
from tests.simulation.mutants import Mutation, applied
from tests.simulation.run import remembered
from tests.simulation.standing_in import standing_in, verify
from tests.simulation.violation import ViolationError, violated
from tests.vectors.change_reference import HANDOFF, SETTLEMENT

CALM = 400
NEVER = 86_400_000
AGAIN = 500
"""So often, ms, a client says what is not decided."""
PEOPLE = [key(f"person {number}") for number in range(16)]


class Client:
    """Pays, and says what is not decided again: at each home the payment has, from epoch to epoch."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world, self._plan = world, plan
        self._open: dict[bytes, Transaction] = {}
        self._ends = False
        self._fund()
        self._pay()
        self._insist()

    def _fund(self) -> None:
        issuer = self._world.network.issuers["USD"]
        minted = [self._world.network.pay(issuer, person, 1_000, valid_until=TIME + 30_000) for person in PEOPLE]
        self._say(minted)

    def _say(self, payments: Sequence[Transaction]) -> None:
        self._open |= {payment.id: payment for payment in payments}
        self._world.submit(payments)

    def _pay(self) -> None:
        """The first of each round across shards, if there are two."""
        world, many = self._world, self._plan.payments
        until = TIME + world.now + world.chance.choice((3_000, 10_000, 20_000))
        pairs = [(*world.chance.sample(PEOPLE, 2),) for _ in range(many - 1)]
        pairs.append(next((pair for pair in combinations(world.chance.sample(PEOPLE, 8), 2) if self._crosses(*pair)), pairs[0]))
        self._say([world.network.pay(a, b, world.chance.randint(1, 400), valid_until=until) for a, b in pairs])
        if not self._ends:
            world.after(self._pause(), self._pay)

    def _pause(self) -> int:
        """On a short day payments come thick and fast only when the shards are about to settle, or do."""
        phases = {
            chain.ledger.register.phase
            for chain in self._world.oracle.chains_of(self._world.oracle.epoch).values()
            if chain.ledger.is_register
        }
        is_calm = self._plan.short and not phases & {HANDOFF, SETTLEMENT}
        return max(CALM, self._plan.pace) if is_calm else self._plan.pace

    def _crosses(self, payer: KeyPair, payee: KeyPair) -> bool:
        home, other = (self._world.document.shards.shard_of(address_of(pair.public)) for pair in (payer, payee))
        return home != other

    def _insist(self) -> None:
        self._forget()
        self._world.submit(list(self._open.values())[:64])
        if not self._ends or self._open:
            self._world.after(AGAIN, self._insist)

    def _forget(self) -> None:
        """What is decided, or can be included no more; at the end, what nobody has included."""
        oracle, now = self._world.oracle, TIME + self._world.now
        self._open = {
            one: payment
            for one, payment in self._open.items()
            if oracle.end_at_home(one) is None
            and (one in oracle.transactions or (not self._ends and payment.order.valid_until > now))
        }

    def end(self) -> None:
        self._ends = True

    @property
    def is_done(self) -> bool:
        self._forget()
        return not self._open


class Day:
    """A plan at work."""

    def __init__(self, plan: Plan) -> None:
        age, pause = (400, 300) if plan.short else (3_000, 1_000)
        times = {"epoch_pause": pause, "epoch_time": age if plan.coordinator == "dead" else NEVER}
        times |= {"handoff_time": plan.handoff_time, "settle_time": plan.settle_time}
        times |= {"checkpoint_interval": plan.checkpoint_interval, "reveal_time": 2_000 if plan.short else 4_000}
        network = Network(committees=plan.committees, **{**SOON, **times})  # type: ignore[arg-type]  # no strings among them
        self.plan = plan
        self.world = World(network, 4, plan.seed, plan.loss, plan.broker_loss, delay=plan.delay)
        self._chance = Random(f"{plan.seed}/day")

    def run(self) -> None:
        """Raises ViolationError."""
        plan, world = self.plan, self.world
        world.run(lambda: world.is_open, plan.patience)
        client = Client(world, plan)
        if plan.liar:
            host = self._chance.choice(world.hosts[: 4 * plan.committees])
            host.liar = LIARS[plan.liar](world, host.key)
        for host in world.hosts[4 * plan.committees :][: plan.joining]:
            world.after(self._chance.randint(1, plan.late), host.start)
        honest = [host for host in world.hosts[: 4 * plan.committees] if host.liar is None]
        for host in self._chance.sample(honest, min(plan.leaving, len(honest))):
            assert host.node is not None
            world.after(self._chance.randint(0, plan.busy), lambda host=host: host.node and host.node.leave())  # type: ignore[misc]
        for host in honest:
            host.trap = plan.trap if self._chance.random() < 0.3 else ""
        if plan.coordinator != "dead":
            call(world, lambda: world.document.number > plan.epochs, plan.coordinator == "raging", 200 if plan.short else 1_000)
        self._disturb(honest)
        if plan.outage:
            self._go_out()
        if plan.wiped:
            world.after(self._chance.randint(1, plan.busy), lambda: self._wipe(self._chance.choice(honest)))
        world.run(lambda: world.document.number > plan.epochs and world.is_open, plan.patience)
        world.run(self._goes_on, plan.patience)
        client.end()
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
    with standing_in(), remembered(verify), applied(mutations):
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


class Task(NamedTuple):
    seed: int
    short: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.boundaries", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("count", type=int, help="how many")
    parser.add_argument("--short", action="store_true", help="the epoch is about to end when the day begins")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default %(default)s)")
    options = parser.parse_args(arguments)
    tasks = [Task(seed, options.short) for seed in range(options.first, options.first + options.count)]
    done, boundaries, blocks, payments, seconds, failed = 0, 0, 0, 0, 0.0, list[int]()
    for task, verdict, used in _verdicts(tasks, options.jobs):
        done, blocks, payments = done + 1, blocks + verdict.blocks, payments + verdict.payments
        boundaries, seconds = boundaries + max(0, verdict.epochs - 1), seconds + used
        if verdict.violation is not None:
            failed.append(task.seed)
            print(f"seed {task.seed} violates {verdict.violation}\n  {draw(*task)}", flush=True)
        if done % 100 == 0 or done == len(tasks):
            figures = f"{boundaries} boundaries, {blocks} blocks, {payments} payments, {len(failed)} violations"
            print(f"{done} seeds: {figures}, {seconds / done:.2f} CPU s each", flush=True)
    print(f"violated: {sorted(failed)}" if failed else "all invariants hold")
    return 1 if failed else 0


def _verdicts(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Verdict, float]]:
    if jobs == 1:
        yield from map(_judge, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_judge, tasks, chunksize=4)


def _judge(task: Task) -> tuple[Task, Verdict, float]:
    gc.set_threshold(100_000)  # a network has many objects and few cycles
    begun = time.process_time()
    return task, run(draw(*task)), time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())
