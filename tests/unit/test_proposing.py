"""When a leader makes a block, and what goes into it."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from msgspec import Struct, structs

from node.effects import Mine, StopMining
from node.ledger.execution import Execution
from node.ledger.state import Overlay, State
from node.protocol.certificate import VoteKind
from node.protocol.change import Change, Stage
from node.protocol.channel import Bundle, PrepareVote
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_BLOCK_PAYLOAD_BYTES, MAX_BLOCK_RECORDS, MAX_SHARDS
from node.protocol.messages import Certified
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction
from node.replica import proposing
from node.replica.inbox import Delivery
from node.replica.mempool import Mempool, Pooled, read_pooled
from node.replica.proposing import choose_bundles, choose_transactions
from tests.chains import TIME, Network, Shard, key, leg
from tests.unit.replicas import at, proposals, refusals, replica_of, signed, take_in

NETWORK = Network(committees=1)
INTERVAL, HEARTBEAT = NETWORK.genesis.parameters.block_interval, NETWORK.genesis.parameters.heartbeat


def payment(network: Network = NETWORK, valid_for: int = 60_000) -> Transaction:
    return network.pay(network.issuers["USD"], key("payee"), 5, valid_until=TIME + valid_for)


# -- when ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block_transactions", "valid_for", "due"),
    [
        (100, None, HEARTBEAT),
        (100, 60_000, INTERVAL),
        (1, 60_000, 2),
        (100, INTERVAL - 1, HEARTBEAT),  # expired on this clock, but not yet in block time
    ],
    ids=["nothing to do", "work", "a full block", "nothing it may include"],
)
def test_a_leader_proposes_in_time(block_transactions: int, valid_for: int | None, due: int) -> None:
    network = Network(committees=1, block_transactions=block_transactions)
    leader = replica_of(network, 1)
    leader.start(at(0))
    made = {2: proposals(take_in(leader, payment(network, valid_for)) if valid_for is not None else [])}
    for now in (INTERVAL - 1, INTERVAL, HEARTBEAT - 1, HEARTBEAT):
        made[now] = proposals(leader.on_tick(at(now)))
    assert [now for now, sent in made.items() if sent] == [due]


def test_a_leader_with_nothing_it_may_include_sleeps_until_the_heartbeat() -> None:
    leader = replica_of(NETWORK, 1)
    take_in(leader, payment(valid_for=70))
    leader.on_tick(at(100))
    assert leader.deadline >= HEARTBEAT


def test_what_expired_while_it_waited_is_refused_and_forgotten() -> None:
    network = Network(committees=1)
    shard, leader = network.shards[0], replica_of(network, 2)
    take_in(leader, payment(network, valid_for=100))
    block = shard.add(after=200).block
    leader.on_message(shard.electorate.keys[1], signed(shard, block), at(210))
    for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
        certificate = shard.certificate(kind, 1, block.header.hash)
        effects = leader.on_message(shard.electorate.keys[1], Certified((certificate,)), at(220))
    effects += leader.on_tick(at(210 + INTERVAL))
    assert refusals(leader, effects) == [Code.EXPIRED]
    assert len(leader.mempool) == 0


def test_transactions_in_blocks_that_are_not_final_are_no_work() -> None:
    network = Network(committees=1)
    shard, leader = network.shards[0], replica_of(network, 2)
    transaction = payment(network)
    take_in(leader, transaction)
    block = shard.build([transaction]).block
    notarization = shard.certificate(VoteKind.NOTARIZE, 1, block.header.hash)
    for message in (signed(shard, block), Certified((notarization,))):
        leader.on_message(shard.electorate.keys[1], message, at(10))
    assert leader.consensus.turn is not None
    assert leader.deadline > 10 + INTERVAL
    assert proposals(leader.on_tick(at(10 + HEARTBEAT - 1))) == []
    assert proposals(leader.on_tick(at(10 + HEARTBEAT)))


@pytest.mark.parametrize(("blocks", "waits"), [(64, False), (65, True)])
def test_beyond_64_blocks_that_are_not_final_a_leader_waits_for_the_heartbeat(blocks: int, waits: bool) -> None:
    """The proof that one of them is final holds the headers of all."""
    network = Network(committees=1)
    shard, leader = network.shards[0], replica_of(network, (blocks + 1) % 4)
    notarization = None
    for _ in range(blocks):
        block = shard.add(after=0).block
        proposal = structs.replace(signed(shard, block), notarization=notarization)
        leader.on_message(shard.electorate.keys[block.header.proposer], proposal, at(1))
        notarization = shard.certificate(VoteKind.NOTARIZE, block.header.view, block.header.hash)
    assert notarization is not None
    leader.on_message(shard.electorate.keys[0], Certified((notarization,)), at(1))
    take_in(leader, payment(network))
    assert leader.consensus.turn is not None
    assert leader.state.height == 0
    assert (proposals(leader.on_tick(at(2 + INTERVAL))) == []) == waits
    assert bool(proposals(leader.on_tick(at(2 + HEARTBEAT)))) == waits


def test_only_the_nonce_of_the_work_under_way_is_taken_and_stale_work_is_stopped() -> None:
    network = Network(committees=1, block_difficulty_bits=8)
    shard, leader = network.shards[0], replica_of(network, 1)
    leader.start(at(0))
    (mine,) = [effect for effect in leader.on_tick(at(HEARTBEAT)) if isinstance(effect, Mine)]
    assert leader.on_mined(mine.token + 1, bytes(8), at(HEARTBEAT)) == []
    skipped = Certified((shard.certificate(VoteKind.NULLIFY, 1, ZERO_HASH),))
    effects = leader.on_message(shard.electorate.keys[0], skipped, at(HEARTBEAT))
    assert StopMining() in effects
    assert proposals(leader.on_mined(mine.token, bytes(8), at(HEARTBEAT))) == []


def test_a_block_holds_a_mebibyte_of_transactions_at_most() -> None:
    network = Network(committees=1, block_transactions=2_000)
    leader, issuer = replica_of(network, 1), network.issuers["USD"]
    legs = [leg(issuer, key("payee"), "USD", 1)] * 16
    count = 0
    while sum(len(entry.encoded) for entry in leader.mempool) <= MAX_BLOCK_PAYLOAD_BYTES:
        take_in(leader, network.sign([issuer], *legs, salt=(count := count + 1)))
    (proposal,) = proposals(leader.on_tick(at(2 + 2 * INTERVAL)))
    assert len(proposal.block.leaves) == count - 1


# -- whose transactions ----------------------------------------------------------------------------------------------------


def entry(transaction: Transaction) -> Pooled:
    return read_pooled(encode(transaction))


def funded(*units: int, block_transactions: int = 100) -> tuple[Shard, list[KeyPair], Network]:
    """One shard, and accounts that have so much USD."""
    network = Network(committees=1, block_transactions=block_transactions)
    accounts = [network.person(0, number) for number in range(len(units))]
    for account, amount in zip(accounts, units, strict=True):
        network.fund(account, amount)
    return network.shards[0], accounts, network


def pool_of(*transactions: Transaction) -> Mempool:
    pool = Mempool()
    for transaction in transactions:
        pool.add(entry(transaction))
    return pool


def test_a_flood_of_one_payer_delays_nobody_else() -> None:
    shard, (dust, ann), network = funded(1, 5, block_transactions=10)
    flood = [network.pay(dust, ann, 1) for _ in range(100)]
    mine = network.pay(ann, dust, 1)
    pool = pool_of(*flood, mine)
    taken = []
    for _ in range(3):
        chosen, _, _ = choose_transactions(shard.state, shard.state, shard.rules, pool, shard.head.time + 100)
        shard.add(*(one.transaction for one in chosen))
        pool.remove([one.id for one in chosen])
        taken.append([one.transaction for one in chosen])
        pool.add(entry(network.pay(ann, dust, 1)))
    assert taken[0] == [flood[0], mine, *flood[1:9]]
    assert all(sum(one.order.payers[0] == mine.order.payers[0] for one in block) == 1 for block in taken)


def test_who_is_without_funds_after_a_block_that_is_not_final_is_passed_over_and_after_one_that_is_forgotten() -> None:
    shard, (ann, bob), network = funded(5, 5)
    all_of_it, more = network.pay(ann, bob, 5), network.pay(ann, bob, 1)
    pool, time = pool_of(all_of_it, more), shard.head.time + 100
    parent = shard.build([all_of_it]).execution.overlay
    assert choose_transactions(shard.state, parent, shard.rules, pool, time) == ([], [], [])
    shard.add(all_of_it)
    refused = [Refusal(more.id, Code.INSUFFICIENT_FUNDS)]
    stale = [all_of_it.id, more.id]
    assert choose_transactions(shard.state, shard.state, shard.rules, pool, time) == ([], stale, refused)


def test_a_block_in_which_a_payer_runs_out_of_money_is_made_and_voted_for() -> None:
    shard, (ann, bob), network = funded(5, 5)
    everything = [network.pay(ann, bob, 5) for _ in range(3)]
    chosen, _, _ = choose_transactions(shard.state, shard.state, shard.rules, pool_of(*everything), shard.head.time + 100)
    receipts = shard.add(*(one.transaction for one in chosen)).effects.receipts
    assert [receipt.code for receipt in receipts] == [Code.OK, Code.INSUFFICIENT_FUNDS, Code.INSUFFICIENT_FUNDS]


def test_only_so_many_are_looked_at_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposing, "MAX_IN_VAIN", 5)
    shard, (ann, bob), network = funded(5, 5)
    late = [network.pay(ann, bob, 1, valid_until=shard.head.time - 1) for _ in range(20)]
    good = [network.pay(bob, ann, 1) for _ in range(3)]
    pool, rounds = pool_of(*late, *good), 0
    while len(pool):
        chosen, stale, refused = choose_transactions(shard.state, shard.state, shard.rules, pool, shard.head.time)
        assert len(stale) == len(refused) <= 5
        assert rounds or chosen, "other payers have their turns"
        pool.remove([*stale, *(one.id for one in chosen)])
        rounds += 1
    assert rounds == 4


# -- bundles: in sequence, within limits, every channel in its turn ------------------------------------------------------------


class _Certified(Struct):
    bundle: Bundle


class _State(Struct):
    height: int

    def cursor(self, source: int) -> int:
        return 0


class _Inbox:
    """Each source's bundles, by (size in bytes, records)."""

    def __init__(self, channels: dict[int, list[tuple[int, int]]]) -> None:
        self._channels = channels
        self.sources = tuple(channels)

    def following(self, source: int, cursor: int) -> Iterator[Delivery]:
        for sequence, (size, records) in enumerate(self._channels[source], 1):
            bundle = Bundle(source, 0, sequence, (PrepareVote(bytes(32), Code.OK),) * records)
            yield Delivery(cast(Any, _Certified(bundle)), bytes(size))


def chosen(channels: dict[int, list[tuple[int, int]]], height: int = 0) -> list[tuple[int, int]]:
    """(source, sequence) of what goes into the block."""
    bundles, _ = choose_bundles(cast(Any, _State(height)), cast(Any, _Inbox(channels)))
    return [(b.bundle.source, b.bundle.sequence) for b in bundles]


def test_no_more_bundles_than_a_block_can_hold() -> None:
    assert len(chosen({source: [(10, 1)] * 64 for source in range(1, 40)})) == MAX_SHARDS


LARGE = MAX_BLOCK_PAYLOAD_BYTES


@pytest.mark.parametrize(
    ("channels", "taken"),
    [
        ({1: [(2 * LARGE, 1)], 2: [(10, 1)]}, [(1, 1)]),
        ({1: [(10, 2 * MAX_BLOCK_RECORDS)], 2: [(10, 1)]}, [(1, 1)]),
        ({1: [(LARGE // 3, 1)] * 9}, [(1, 1), (1, 2), (1, 3)]),
        ({1: [(10, MAX_BLOCK_RECORDS // 3)] * 9}, [(1, 1), (1, 2), (1, 3)]),
        ({1: [(10, 1), (LARGE, 1)], 2: [(10, 1)]}, [(1, 1), (2, 1)]),
    ],
    ids=["one of any size", "one of any records", "bytes", "records", "what does not fit leaves room for another channel"],
)
def test_bundles_are_taken_within_limits(channels: dict[int, list[tuple[int, int]]], taken: list[tuple[int, int]]) -> None:
    assert chosen(channels) == taken


def test_a_busy_channel_does_not_starve_the_others() -> None:
    channels = {source: [(LARGE, 1)] * 5 for source in (1, 2, 3)}
    assert [chosen(channels, height) for height in range(4)] == [[(1, 1)], [(2, 1)], [(3, 1)], [(1, 1)]]


# -- while the shard settles -----------------------------------------------------------------------------------------------


def settling(parent: State) -> Overlay:
    """A block on ``parent`` after which it does."""
    overlay = Overlay(parent, parent.height + 1, parent.time)
    overlay.change = Change(stage=Stage.SETTLING)
    return Execution(overlay, (), ()).overlay


def both_kinds() -> tuple[Network, Shard, Transaction, Transaction]:
    network = Network(committees=2)
    issuer = network.issuers["USD"]
    shard = network.shard_of(issuer)
    inside = network.pay(issuer, network.person(shard.number), 1)
    return network, shard, inside, network.pay(issuer, network.person(1 - shard.number), 1)


def test_while_a_shard_settles_what_touches_others_waits_and_is_not_refused() -> None:
    _, shard, inside, across = both_kinds()
    pool = Mempool(lambda transaction: transaction == inside)
    for transaction in (across, inside):
        pool.add(entry(transaction))
    chosen, *rest = choose_transactions(shard.state, settling(shard.state), shard.rules, pool, shard.state.time)
    assert ([one.transaction for one in chosen], rest) == ([inside], [[], []])
    chosen, *_ = choose_transactions(shard.state, shard.state, shard.rules, pool, shard.state.time)
    assert [one.transaction for one in chosen] == [across, inside]
    pool.remove([across.id])
    assert not pool.crossing


def test_what_waits_for_the_shard_to_have_settled_is_no_work() -> None:
    network, shard, inside, across = both_kinds()
    leader = replica_of(network, 1, number=shard.number)
    leader.state.commit(settling(leader.state))
    take_in(leader, across)
    assert leader.deadline >= HEARTBEAT
    take_in(leader, inside)
    assert leader.deadline <= INTERVAL
