"""Entries that wait for the register: which are kept, which go into a block, and how soon."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec import structs

from node.consensus.round import Seat
from node.consensus.simplex import Turn
from node.effects import Commit
from node.ledger.execution import execute
from node.ledger.rules import Rules
from node.ledger.state import Overlay, State
from node.protocol.block import Block
from node.protocol.certificate import VoteKind
from node.protocol.change import RegisterPhase
from node.protocol.codec import encode
from node.protocol.entries import Entry
from node.protocol.limits import MAX_BLOCK_ENTRIES
from node.protocol.messages import Certified
from node.protocol.transaction import Transaction
from node.recovery import recover
from node.replica import desk
from node.replica.desk import Desk
from node.replica.payloads import read_entries
from node.replica.proposing import build_block
from node.storage import Storage
from tests.chains import TIME, Network, Shard, key
from tests.unit.entries import call, disclosure, enrolment, farewell
from tests.unit.replicas import at, signed, votes
from tests.unit.wired import Committee

NETWORK = Network(committees=1, epoch_pause=2_000)
RULES = Rules(NETWORK.genesis, NETWORK.document.network_id, 0, NETWORK.document.shards, NETWORK.document)
HEARTBEAT, INTERVAL = NETWORK.genesis.parameters.heartbeat, NETWORK.genesis.parameters.block_interval
NODES = NETWORK.shards[0].members
ENROLMENTS = [enrolment(NETWORK, node) for node in NODES]


def build(shard: Shard, *entries: Entry) -> Block:
    """The first block, with these."""
    rules, leader, turn = RULES, shard.members[1], Turn(1, shard.head.hash, None, ())
    seat, state = Seat(leader, 1, shard.electorate), state_of()
    skip = shard.header(0).hash
    return build_block(state, turn, skip, seat, rules, TIME + 1, ((), ()), (), entries=entries).block


def state_of(rules: Rules = RULES) -> State:
    return State.genesis(rules)


def after(parent: State | Overlay, *entries: Entry, time: int = TIME) -> Overlay:
    """A block with these, on ``parent``."""
    valid = Transaction.has_valid_signatures
    return execute(parent, RULES, parent.height + 1, time, (), (), valid, entries).overlay


def make_final(desk: Desk, state: State, *entries: Entry, time: int = TIME) -> None:
    state.commit(after(state, *entries, time=time))
    desk.took(entries)


def offered(state: State, entries: Iterable[Entry], rules: Rules = RULES) -> Desk:
    desk = Desk(state, rules)
    desk.offer(list(map(encode, entries)))
    return desk


def test_only_what_could_be_written_down_now_is_kept() -> None:
    stranger = key("stranger")
    good: list[Entry] = [ENROLMENTS[0], farewell(NETWORK, NODES[1]), call(NETWORK)]
    bad: list[Entry] = [
        disclosure(NODES[0]),
        farewell(NETWORK, stranger),
        call(NETWORK, 2),
        enrolment(NETWORK, NODES[2], attempt=2),
    ]
    state = state_of()
    desk = offered(state, [*bad, *good])
    desk.offer([b"", encode(good[0]) + b"\x00"])
    assert desk.choose(state) == good


def test_shards_that_are_not_the_register_keep_none() -> None:
    network = Network(committees=2)
    document = network.document
    for shard in (0, 1):
        rules = Rules(network.genesis, document.network_id, shard, document.shards, document)
        assert len(offered(state_of(rules), [call(network)], rules)) == (shard == document.register)


def test_the_first_enrolment_of_a_key_waits_and_none_once_one_is_written() -> None:
    state, another = state_of(), enrolment(NETWORK, NODES[0], name="another")
    desk = offered(state, [ENROLMENTS[0], ENROLMENTS[1], another])
    assert desk.choose(state) == ENROLMENTS[:2]
    make_final(desk, state, another)
    assert len(desk) == 1, "whichever it was"
    desk.offer([encode(ENROLMENTS[0])])
    assert desk.choose(state) == [ENROLMENTS[1]]


def test_of_a_kind_and_key_one_costs_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can sign can sign as many as it likes."""
    state = state_of()
    some = offered(state, ENROLMENTS[:1])
    monkeypatch.delattr(desk, "written")
    some.offer([encode(enrolment(NETWORK, NODES[0], name=str(number))) for number in range(8)])
    assert len(some) == 1


def test_a_block_has_no_entry_that_one_before_it_has_written_down() -> None:
    state = state_of()
    desk = offered(state, ENROLMENTS[:2])
    parent = after(state, ENROLMENTS[0])
    assert desk.choose(parent) == [ENROLMENTS[1]]
    assert len(desk) == 2, "that block may never become final"


def test_what_no_block_can_have_any_more_is_forgotten() -> None:
    """The coordinator's call, written down from other bytes."""
    state, one = state_of(), call(NETWORK)
    desk = offered(state, [one])
    state.commit(after(state, one))
    assert desk.choose(state) == []
    assert len(desk) == 0


def test_with_its_phase_what_waits_for_it_is_over() -> None:
    state = state_of()
    desk = offered(state, [*ENROLMENTS, farewell(NETWORK, NODES[3])])
    make_final(desk, state, *ENROLMENTS, call(NETWORK), time=TIME + 2_000)
    assert state.change.register is not None
    assert state.change.register.phase is RegisterPhase.REVEAL
    assert len(desk) == 1, "a farewell has its time still"
    desk.offer([encode(disclosure(NODES[0]))])
    assert desk.choose(state) == [farewell(NETWORK, NODES[3]), disclosure(NODES[0])]


@pytest.mark.parametrize(("limit", "room"), [("MAX_ENTRIES", 2), ("MAX_BYTES", 2 * len(encode(ENROLMENTS[0])) + 5)])
def test_the_desk_has_its_limits(monkeypatch: pytest.MonkeyPatch, limit: str, room: int) -> None:
    monkeypatch.setattr(desk, limit, room)
    state = state_of()
    full = offered(state, ENROLMENTS)
    assert len(full) == 2
    make_final(full, state, ENROLMENTS[0])
    full.offer([encode(ENROLMENTS[3])])
    assert ENROLMENTS[3] in full.choose(state)


def test_of_a_batch_and_for_a_block_only_so_many_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_CHECKED", 2)
    state = state_of()
    some = offered(state, ENROLMENTS)
    assert len(some) == 2
    monkeypatch.setattr(desk, "MAX_BLOCK_ENTRIES", 1)
    assert len(some.choose(state)) == 1


def test_too_many_entries_are_not_read() -> None:
    one = encode(ENROLMENTS[0])
    assert read_entries([one] * MAX_BLOCK_ENTRIES) is not None
    assert read_entries([one] * (MAX_BLOCK_ENTRIES + 1)) is None


# -- in a replica ------------------------------------------------------------------------------------------------------


def test_entries_are_work_and_need_not_wait_for_the_heartbeat() -> None:
    committee = Committee(NETWORK)
    committee.run_for(2 * HEARTBEAT + 10)
    begun = committee.now
    committee.submit(*ENROLMENTS)
    replicas = [replica for _, replica in committee.up]
    committee.run(lambda: all((r := replica.state.change.register) and len(r.registrations) == 4 for replica in replicas))
    assert committee.now - begun < HEARTBEAT // 2
    heights = {replica.state.height for replica in replicas}
    committee.run_for(HEARTBEAT // 2)
    assert {replica.state.height for replica in replicas} == heights, "nothing waits any more"


def test_entries_in_blocks_that_are_not_final_are_no_work() -> None:
    shard, leader = NETWORK.shards[0], Committee(NETWORK).up[2][1]
    leader.on_entries([encode(ENROLMENTS[0])], at(1))
    block = build(shard, ENROLMENTS[0])
    notarization = shard.certificate(VoteKind.NOTARIZE, 1, block.header.hash)
    for message in (signed(shard, block), Certified((notarization,))):
        leader.on_message(shard.electorate.keys[1], message, at(10))
    assert leader.consensus.turn is not None
    assert leader.deadline >= HEARTBEAT


def test_a_block_has_no_more_entries_than_it_may() -> None:
    network = Network(committees=1, standby=MAX_BLOCK_ENTRIES, epoch_pause=10_000)
    committee = Committee(network)
    committee.submit(*(enrolment(network, node) for node in network.nodes.values()))
    committee.run(lambda: all(not replica.desk for _, replica in committee.up))
    written = [len(certified.block.entries) for certified in committee.disks[0].blocks]
    assert [count for count in written if count] == [MAX_BLOCK_ENTRIES, 4]


@pytest.mark.parametrize(
    "entries",
    [[b"nonsense"], [encode(disclosure(NODES[0]))], [encode(ENROLMENTS[0])] * 2],
    ids=["malformed", "too early", "twice"],
)
def test_a_block_with_an_entry_that_is_not_admissible_gets_no_vote(entries: list[bytes]) -> None:
    shard = NETWORK.shards[0]
    block = shard.build().block
    for added, vote in ((entries, VoteKind.NULLIFY), ([], VoteKind.NOTARIZE)):
        voter = Committee(NETWORK).up[0][1]
        forged = structs.replace(block, entries=tuple(added))
        header = structs.replace(block.header, payload_root=forged.payload_root())
        proposal = signed(shard, structs.replace(forged, header=header))
        assert votes(voter.on_message(shard.electorate.keys[1], proposal, at(60))) == [vote]


def test_what_the_register_wrote_down_comes_back_after_a_restart(tmp_path: Path) -> None:
    committee = Committee(NETWORK)
    committee.change_until(RegisterPhase.REVEAL)
    replica, storage = committee.up[0][1], Storage(tmp_path / "node.db", NETWORK.genesis.network)
    for certified in committee.disks[0].blocks:
        header = certified.block.header
        storage.write([Commit(header.height, header.view, certified, encode(certified), ())])
    assert recover(storage, RULES, replica.electorate).state.change == replica.state.change
