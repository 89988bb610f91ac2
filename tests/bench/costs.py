"""CPU of each hot part of a node's core, in signature checks: ``python -m tests.bench.costs``.

Each round makes the same small network anew, times every part of it once, and signature checks in between. What a part costs is
its least CPU time of all rounds, over theirs: what else the machine does only adds to either.
"""

import gc
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count, islice
from time import thread_time
from typing import NamedTuple

from node.client.blocks import read_block
from node.events import Recovered
from node.ledger.admission import admit
from node.ledger.execution import Execution, execute
from node.protocol.block import Block
from node.protocol.certificate import VoteKind, sign_vote
from node.protocol.channel import Bundle
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Ballot, PeerMessage
from node.protocol.transaction import Transaction, decode_transaction
from node.replica.mempool import Mempool, Pooled, read_pooled
from node.replica.proposing import choose_transactions
from node.replica.replica import Replica
from scripts.benchmark.checks import burst
from tests.chains import Network, Shard, key, leg
from tests.unit.replicas import at, replica_of, settle, signed

ROUNDS = 7
PAYMENTS = 256
TICKS = 256
REPEATED = 4


class World(NamedTuple):
    """Two shards in which everybody has money, and payments that wait: ``plain`` in the first, ``crossing`` to the second."""

    home: Shard
    other: Shard
    plain: list[Pooled]
    crossing: list[Pooled]
    network: Network


Work = tuple[Callable[[], object], int]
"""What is timed, and of how many transactions, blocks or events it is the work."""


def make_world() -> World:
    network = Network(checkpoint_interval=200)
    home, other = network.shards
    payers, payees = people(network, home), people(network, other)
    issuer = network.issuers["USD"]
    for start in range(0, PAYMENTS, 16):
        legs = [leg(issuer, payer, "USD", 1_000) for payer in payers[start : start + 16]]
        network.shard_of(issuer).add(network.sign([issuer], *legs))
    network.exchange()
    plain = [read_pooled(encode(network.pay(payer, payers[i - 1], 1))) for i, payer in enumerate(payers)]
    crossing = [read_pooled(encode(network.pay(payer, payees[i], 1))) for i, payer in enumerate(payers)]
    return World(home, other, plain, crossing, network)


def people(network: Network, shard: Shard) -> list[KeyPair]:
    keys = (key(f"payer {number}") for number in count())
    return list(islice((pair for pair in keys if network.shard_of(pair) is shard), PAYMENTS))


def run(shard: Shard, entries: Sequence[Pooled], bundles: Sequence[Bundle] = ()) -> Execution:
    """Execute the next block, without committing it."""
    pairs = [(one.id, one.transaction) for one in entries]
    time = shard.head.time + 100
    return execute(shard.state, shard.rules, shard.state.height + 1, time, bundles, pairs, Transaction.has_valid_signatures)


def member_of(world: World, shard: Shard) -> Replica:
    """One that keeps a shard, up to its last block, and leads neither the next view nor the one after."""
    recovered = Recovered(shard.state, shard.last(len(shard.chain)), (), shard.peaks(len(shard.chain)))
    member = (shard.head.view + 3) % len(shard.members)
    now = at(100 * len(shard.chain))
    replica = Replica(world.network.genesis, world.network.document, shard.members[member], "n", recovered, now, True)
    replica.start(now)
    return replica


# -- the parts -------------------------------------------------------------------------------------------------------------


def encoding(world: World) -> Work:
    return lambda: [encode(one.transaction) for one in world.plain], PAYMENTS


def decoding(world: World) -> Work:
    body = encode(world.home.build([one.transaction for one in world.plain]).block)
    return lambda: list(map(decode_transaction, decode(Block, body, MAX_FRAME_BYTES).transactions)), PAYMENTS


def following(world: World) -> Work:
    block, execution = world.home.build([one.transaction for one in world.plain])
    body = encode(world.home.certify(block, execution.effects))
    return lambda: read_block(body, world.home.electorate), PAYMENTS


def admitting(world: World) -> Work:
    state, rules, time = world.home.state, world.home.rules, world.home.head.time
    return lambda: [admit(state, rules, one.id, one.transaction, time) for one in world.plain], PAYMENTS


def choosing(world: World) -> Work:
    state, rules, mempool, time = world.home.state, world.home.rules, Mempool(), world.home.head.time

    def choose() -> None:
        for one in world.plain:
            mempool.add(one)
        chosen, _, _ = choose_transactions(state, state, rules, mempool, time)
        mempool.remove([one.id for one in chosen])
        assert len(chosen) == PAYMENTS

    return choose, PAYMENTS


def executing(world: World) -> Work:
    return lambda: run(world.home, world.plain), PAYMENTS


def beginning(world: World) -> Work:
    return lambda: run(world.home, world.crossing), PAYMENTS


def preparing(world: World) -> Work:
    bundles = run(world.home, world.crossing).outbox
    return lambda: run(world.other, (), bundles), PAYMENTS


def committing(world: World) -> Work:
    overlay = run(world.home, world.plain).overlay
    return lambda: world.home.state.commit(overlay), PAYMENTS


def taking_in(world: World) -> Work:
    replica, batch = member_of(world, world.home), [one.encoded for one in world.plain]
    now = at(100 * len(world.home.chain))
    return lambda: replica.on_transactions(batch, now), PAYMENTS


def verifying(world: World) -> Work:
    shard, replica = world.home, member_of(world, world.home)
    now = at(100 * len(shard.chain) + 100)
    settle(replica, replica.on_transactions([one.encoded for one in world.plain], now), now.now)
    block = shard.build([one.transaction for one in world.plain]).block
    proposal, leader = signed(shard, block), shard.electorate.keys[block.header.proposer]

    def verify() -> None:
        assert replica.on_message(leader, proposal, now), "it votes"

    return verify, PAYMENTS


def empty_blocks(world: World) -> Work:
    """All that members hear of them: the proposals and the others' votes."""
    heard = empty_chain()
    replicas = [replica_of(empty_network(), 0) for _ in range(REPEATED)]
    for replica in replicas:
        replica.start(at(0))

    def hear() -> None:
        for replica in replicas:
            for height, sender, message in heard:
                replica.on_message(sender, message, at(height * 100))
            assert replica.state.height == heard[-1][0], "all of them are final"

    return hear, REPEATED * heard[-1][0]


@cache
def empty_network() -> Network:
    return Network(committees=1, checkpoint_interval=200)


@cache
def empty_chain() -> list[tuple[int, bytes, PeerMessage]]:
    """Blocks of views that member 0 does not lead: heights, senders and messages."""
    shard = empty_network().shards[0]
    keys, heard = shard.electorate.keys, list[tuple[int, bytes, PeerMessage]]()
    for height in range(1, len(keys)):
        block = shard.add().block
        heard.append((height, keys[block.header.proposer], signed(shard, block)))
        for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
            for i in range(1, len(keys)):
                vote = sign_vote(shard.members[i], i, shard.electorate, kind, block.header.view, block.header.hash)
                heard.append((height, keys[i], Ballot(vote)))
    return heard


def ticking(world: World) -> Work:
    replica, now = member_of(world, world.home), at(100 * len(world.home.chain))
    return lambda: [replica.on_tick(now) for _ in range(TICKS)], TICKS


PARTS: dict[str, Callable[[World], Work]] = {
    "encode": encoding,
    "decode": decoding,
    "follow": following,
    "admit": admitting,
    "mempool": choosing,
    "execute": executing,
    "begin": beginning,
    "prepare": preparing,
    "take in": taking_in,
    "verify": verifying,
    "tick": ticking,
    "empty block": empty_blocks,
    "commit": committing,  # last: it changes the shard
}


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """What each part costs, in signature checks."""
    parts, checks = defaultdict[str, list[float]](list), []
    for _ in range(rounds):
        world = make_world()
        for name, make in PARTS.items():
            work, units = make(world)
            checks.append(burst())
            gc.collect()
            gc.disable()
            began = thread_time()
            work()
            parts[name].append((thread_time() - began) / units)
            gc.enable()
    return {name: min(seconds) / min(checks) for name, seconds in parts.items()}


if __name__ == "__main__":
    costs = measure()
    if sys.argv[1:] == ["--json"]:
        print(json.dumps(costs))
    else:
        print("\n".join(f"{name:<12} {cost:8.3f}" for name, cost in costs.items()))
