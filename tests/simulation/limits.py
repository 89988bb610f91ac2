"""The core's caps, set small: what no run would reach otherwise. Reaching one may refuse, delay or drop what comes again; it may
lose nothing. What a cap is for, the second implementation knows by the same name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import Random
from types import ModuleType

from node.consensus import fetching, simplex
from node.ledger import replay, rules, transfer, two_phase_commit
from node.protocol import block
from node.replica import inbox, mempool, payloads, proposing, refusing, retention, taking_over

CAPS: dict[str, tuple[tuple[tuple[ModuleType, str], ...], tuple[int, ...]]] = {
    "amount": (((transfer, "MAX_AMOUNT"),), (4_000, 9_000)),
    "waiting": (((two_phase_commit, "MAX_WAITING"),), (1, 3)),
    "due": (((two_phase_commit, "MAX_WOKEN"),), (1, 2)),
    "uncovered": (((two_phase_commit, "MAX_UNCOVERED"),), (1, 3)),
    "hashed": (((rules, "HASHED_ROWS"),), (2, 8)),
    "records": (((payloads, "MAX_BLOCK_RECORDS"),), (2, 6)),
    "payload": (((payloads, "MAX_BLOCK_PAYLOAD_BYTES"), (proposing, "MAX_BLOCK_PAYLOAD_BYTES")), (4_000, 8_000)),
    "mempool": (((mempool, "MAX_TRANSACTIONS"),), (2, 8)),
    "checked at once": (((mempool, "MAX_CHECKING"),), (2, 8)),
    "bundles ahead": (((inbox, "WINDOW"),), (1, 3)),
    "bodies wanted": (((fetching, "_MAX_WANTED"),), (1, 2)),
    "views ahead": (((simplex, "MAX_VIEWS_AHEAD"),), (1, 4)),
    "blocks not final": (((proposing, "_MAX_UNFINALIZED"),), (1, 3)),
    "views repeated": (((simplex, "_REPEATED_VIEWS"),), (1,)),
    "refusals": (((refusing, "MAX_REFUSALS"),), (1, 3)),
    "part": (((replay, "MAX_REPLAY_PART"),), (1, 3)),
    "far behind": (((taking_over, "FAR_BEHIND"), (retention, "FAR_BEHIND")), (4, 12)),
    "times noted": (((retention, "NOTED_EVERY"),), (1, 3)),
    "tallies": (((block, "_TALLIES"),), (1 << 18,)),
}
"""By name: where the core has it, and small values."""
_APART = {"tallies", "part", "far behind", "times noted"}
"""Not drawn with the others: the one brings a client of its own; seeds stay as they were."""


def draw(chance: Random) -> dict[str, int]:
    """Some caps, in some runs."""
    if chance.random() < 0.6:
        return {}
    names = sorted(CAPS.keys() - _APART)
    return {name: chance.choice(CAPS[name][1]) for name in chance.sample(names, chance.randint(1, 4))}


@contextmanager
def limited(values: Mapping[str, int]) -> Iterator[None]:
    """Run with these caps."""
    changed = [(module, attribute, value) for name, value in values.items() for module, attribute in CAPS[name][0]]
    originals = [(module, attribute, getattr(module, attribute)) for module, attribute, _ in changed]
    try:
        for module, attribute, value in changed:
            setattr(module, attribute, value)
        yield
    finally:
        for module, attribute, value in originals:
            setattr(module, attribute, value)
