"""No hot part of a node's core becomes twice as dear unnoticed."""

import json
import subprocess
import sys

from scripts.devnet.layout import ROOT

LIMITS = {  # CPU in signature checks, about 1.6 times what was measured when the line was written
    # of a payment
    "encode": 0.042,  # its bytes
    "decode": 0.19,  # back into a transaction, as part of a block
    "follow": 0.42,  # in a published block: certificate, roots, reading
    "admit": 0.069,  # may it go into a block?
    "mempool": 0.165,  # in, chosen with ``admit``, and out
    "take in": 0.38,  # from the broker to the signature check: decoding, screening
    "execute": 0.235,  # inside its shard, receipts and roots included
    "begin": 0.68,  # at home, when it touches another shard
    "prepare": 0.94,  # in the other shard
    "verify": 0.36,  # in a proposal that brings known payments: reading, executing, voting
    "commit": 0.085,  # into the state
    # of a block or an event
    "empty block": 29.0,  # a proposal and six votes of a committee of four, whose signatures are at least seven checks
    "tick": 0.24,  # an event when there is nothing to do
}
ATTEMPTS = 3
"""A burst of other work on the machine may spoil all rounds of a measurement, but not of each."""


def measured() -> dict[str, float]:
    """In a process of its own: without coverage, or what other tests have left."""
    command = [sys.executable, "-m", "tests.bench.costs", "--json"]
    costs: dict[str, float] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120).stdout)
    return costs


def test_each_part_costs_what_it_did() -> None:
    costs = measured()
    assert costs.keys() == LIMITS.keys()
    for _ in range(ATTEMPTS - 1):
        if not dearer(costs):
            break
        costs = {name: min(cost, costs[name]) for name, cost in measured().items()}
    assert not dearer(costs), "signature checks: (measured, at most)"


def dearer(costs: dict[str, float]) -> dict[str, tuple[float, float]]:
    return {name: (round(cost, 3), LIMITS[name]) for name, cost in costs.items() if cost > LIMITS[name]}
