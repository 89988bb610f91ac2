"""The fixed cost of a block: what a node uses when there is nothing, or next to nothing, to do."""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from node.protocol.block import Outcome
from scripts.benchmark import measure
from scripts.benchmark.checks import Cost, checks_timed
from scripts.benchmark.client import LoadClient
from scripts.benchmark.load import ASSET, BenchError, Payers, run_load, send
from scripts.benchmark.network import Network
from scripts.benchmark.profile import profile_figures, sampled
from scripts.benchmark.report import cost_us, memory_mb, say

START_SECONDS = 120.0
SETTLE_SECONDS = 3.0
BLOCKS_PER_SECOND = 20
"""Payments sent to each shard in a second, at even distances: one for a block of its own."""


class Quiet(Struct, frozen=True):
    """CPU seconds that all nodes together used in so many seconds, bytes of memory of each, the blocks that all of them made
    final meanwhile - one of a committee of four counts four times - and what a signature check cost meanwhile. ``profile``: CPU
    seconds by place, if that was asked for."""

    cpu: float
    memory: tuple[int, ...]
    seconds: float
    blocks: int
    check: Cost
    profile: Mapping[str, float] = {}


def measure_idle(network: Network, seconds: float) -> Quiet:
    """Heartbeats only, from when every node has made a block. Raises BenchError, OSError."""
    pids, ports = network.pids(*network.devnet.node_names), network.metrics_ports()
    deadline = time.monotonic() + START_SECONDS
    while min(measure.heights(ports)) < 1:
        if time.monotonic() > deadline:
            raise BenchError(f"not every node has made a block within {START_SECONDS:.0f} s")
        time.sleep(0.2)
    time.sleep(SETTLE_SECONDS)
    say(f"nothing to do for {seconds:.0f} s ...")
    heights = sum(measure.heights(ports))
    with checks_timed() as timed:
        before, began = measure.cpu_seconds(pids), time.monotonic()
        time.sleep(seconds)
        cpu, ended = measure.cpu_seconds(pids) - before, time.monotonic()
    heights = sum(measure.heights(ports)) - heights  # to ask costs the nodes something, too
    return Quiet(cpu, measure.memory(pids), ended - began, heights, timed.cost)


def measure_busy(network: Network, client: LoadClient, payers: Payers, options: argparse.Namespace) -> Quiet:
    """A block with one payment inside its shard, ``BLOCKS_PER_SECOND`` times a second in each shard.

    Raises:
        BenchError, ClientError, OSError: something is wrong with the network.
    """
    seconds, rate = options.seconds, BLOCKS_PER_SECOND * len(client.document.committees)
    sent, decided = payers.payments(int(rate * seconds), 0.0, ASSET), set[bytes]()
    say(f"{BLOCKS_PER_SECOND} blocks a second with a payment each, for {seconds:.0f} s ...")
    pids = network.pids(*network.devnet.node_names)
    client.receipts(0.0)
    with checks_timed() as timed, sampled(network, *network.devnet.node_names) as profile:
        before, height, began = measure.cpu_seconds(pids), client.height, time.monotonic()
        for number, payment in enumerate(sent):
            while (left := began + number / rate - time.monotonic()) > 0:
                decided |= {r.transaction_id for _, r in client.receipts(left) if r.outcome is Outcome.COMMITTED}
            send(client, [payment])
        cpu, height, ended = measure.cpu_seconds(pids) - before, client.height - height, time.monotonic()
    late = [payment for payment in sent if payment.id not in decided]
    rest = run_load(client, late, len(sent))
    if rest.failed:
        raise BenchError(f"payments failed: {dict(rest.failed)}")
    blocks = height * client.genesis.parameters.committee_size
    return Quiet(cpu, measure.memory(pids), ended - began, blocks, timed.cost, profile.seconds)


def empty_figures(idle: Quiet, busy: Quiet) -> dict[str, Any]:
    """Plain JSON values. R6 is the CPU of a block with one payment in a node, in signature checks."""
    figures = {"idle": quiet_figures(idle), "busy": quiet_figures(busy)}
    if busy.profile:
        figures["busy"]["profile"] = profile_figures(busy.profile, figures["busy"]["cpu_per_block_us"])
    return figures | {"R6": figures["busy"]["checks_per_block"]}


def quiet_figures(quiet: Quiet) -> dict[str, Any]:
    nodes, per_block = len(quiet.memory), quiet.cpu / max(1, quiet.blocks)
    return {
        "seconds": round(quiet.seconds, 1),
        "nodes": nodes,
        "blocks_per_s": round(quiet.blocks / nodes / quiet.seconds, 1),
        "cpu_share": round(quiet.cpu / quiet.seconds / nodes, 4),
        "cpu_per_block_us": round(per_block * 1e6),
        "checks_per_block": round(per_block / quiet.check.median, 1),
        "check_us": cost_us(quiet.check),
        "memory_mb": memory_mb(quiet.memory),
    }
