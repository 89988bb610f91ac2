"""One run of a plan, from start to verdict."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

from msgspec import Struct

from node import membership, node
from node.protocol import certificate, codec, crypto, entries, epoch, queries, topics, transaction
from tests.simulation.limits import limited
from tests.simulation.mutants import mutated
from tests.simulation.plan import Plan
from tests.simulation.story import Story
from tests.simulation.violation import ViolationError
from tests.simulation.world import World

_VERIFIERS = (certificate, entries, epoch, membership, queries, topics, transaction)
_cached_verify = lru_cache(maxsize=1 << 16)(crypto.verify)
_cached_decode = lru_cache(maxsize=1 << 12)(codec.decode)


class Verdict(Struct):
    """``violation``: None when all invariants held. ``digest``: over everything that was sent and when. ``dropped_for``: why
    honest members dropped others. ``messages``: between nodes; ``checks``: of signatures, by all."""

    plan: Plan
    violation: str | None
    kind: str
    digest: str
    time: int
    events: int
    blocks: int
    transactions: int
    dropped_for: frozenset[str]
    messages: int
    checks: int


@contextmanager
def remembered(check: Callable[[bytes, bytes, bytes], bool] = _cached_verify) -> Iterator[Counter[str]]:
    """Checking a signature and decoding a frame are pure functions; many members do it with the same ones. Counts the checks."""
    counts = Counter[str]()

    def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
        counts["checks"] += 1
        return check(public_key, message, signature)

    cast(Any, node).decode = _cached_decode
    for module in _VERIFIERS:
        cast(Any, module).verify = verify
    try:
        yield counts
    finally:
        cast(Any, node).decode = codec.decode
        for module in _VERIFIERS:
            cast(Any, module).verify = crypto.verify


def simulate(plan: Plan, mutant: str | None = None, story: Story | None = None) -> Verdict:
    """Run a plan, on the core as it is or with one of the mutations applied."""
    violation, kind = None, ""
    with remembered() as counts, limited(plan.limits), mutated(mutant):
        world = World(plan, story)
        try:
            world.run_plan()
        except ViolationError as error:
            violation, kind = str(error), error.kind
            world.tell(None, "VIOLATION", violation)
    oracle = world.monitor.oracle
    blocks, transactions = sum(chain.height for chain in oracle.chains.values()), len(oracle.transactions)
    dropped_for = frozenset(world.monitor.dropped_for)
    result = plan, violation, kind, world.digest, world.time, world.events, blocks, transactions, dropped_for
    return Verdict(*result, world.frames, counts["checks"])
