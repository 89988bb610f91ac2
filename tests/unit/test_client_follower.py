"""Following a chain that is lost in parts, out of order, forged, forked, or nonsense that a captured committee has certified."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec import structs

from node.client.blocks import ProvenBlock, prove_block, read_block
from node.client.follower import MAX_AHEAD, PACES, REORDERING, STALL, Ask, Follower
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import encode
from node.protocol.queries import GetBlocks
from tests.chains import Network

NETWORK = Network()
ELECTORATE = NETWORK.document.electorates[0]
MEMBERS = len(ELECTORATE.keys)
MOST, PATIENCE = PACES[0]


def proven(certified: CertifiedBlock) -> ProvenBlock:
    block = read_block(encode(certified), ELECTORATE)
    assert block is not None
    return block


def chain_of(network: Network, blocks: int) -> list[ProvenBlock]:
    """Of its shard 0; the first two bring money, the next three spend some of it."""
    shard, payer, payee = network.shards[0], network.person(0), network.person(0, 1)
    network.fund(payer, 5)
    for height in range(3, blocks + 1):
        shard.add(*([network.pay(payer, payee, 1)] if height <= 5 else []))
    return [proven(certified) for certified in shard.chain]


CHAIN = chain_of(Network(), 10)


def heights(blocks: tuple[ProvenBlock, ...]) -> list[int]:
    return [block.header.height for block in blocks]


def caught_up(blocks: list[ProvenBlock]) -> Follower:
    """A follower that has taken in these and knows of no more, at time 0."""
    follower = Follower(ELECTORATE)
    follower.answered(blocks, 0.0)
    assert follower.height == len(blocks)
    return follower


def rest(follower: Follower) -> None:
    """Nobody has anything for it, at time 0."""
    while follower.ask(0.0):
        follower.answered([], 0.0)


def asked(follower: Follower, now: float) -> int | None:
    """From which height on it asks."""
    ask = follower.ask(now)
    return None if ask is None else ask.request.first


def test_it_says_so_when_no_member_keeps_the_next_block_any_more_and_goes_on_asking() -> None:
    follower = caught_up(CHAIN[:2])
    follower.published([CHAIN[8]], 1.0)
    said: list[str] = []
    for now in (10, 14):
        assert not follower.is_cut_off, "one may still have it"
        while follower.ask(now):
            said += follower.answered([], now, oldest=4).notables
    assert follower.is_cut_off
    assert said == ["shard 0: no member keeps block 3 any more; an archive does"], "once"
    assert asked(follower, 100.0) == 3
    follower.answered(CHAIN[2:9], 100.0, oldest=3)
    assert (follower.height, follower.is_cut_off) == (9, False)


def test_who_lacks_what_nobody_keeps_has_not_caught_up_though_nothing_was_published() -> None:
    follower = Follower(ELECTORATE)
    for now in (10, 14, 18):
        while follower.ask(now):
            follower.answered([], now, oldest=4)
    assert (follower.is_cut_off, follower.caught_up) == (True, False)
    rest(follower)
    for now in (30, 34):
        while follower.ask(now):
            follower.answered([], now, oldest=1)
    assert (follower.is_cut_off, follower.caught_up) == (False, True)


@pytest.mark.parametrize(("is_over", "is_sent"), [(True, True), (True, False), (False, True)])
def test_of_a_chain_that_is_over_nobody_answers_any_more_who_deleted_it(is_over: bool, is_sent: bool) -> None:
    follower, said = Follower(ELECTORATE), list[str]()
    if is_over:
        follower.finish(CHAIN[8].header)
    for now in (10, 14, 18):
        while follower.ask(now):
            said += follower.answered(None, now, is_sent=is_sent).notables
    assert (follower.is_cut_off, follower.caught_up) == (is_over and is_sent, False)
    assert said == ["shard 0: no member gives block 1 any more; an archive does"] * follower.is_cut_off
    follower.answered(CHAIN[:9], 30.0)
    assert (follower.is_cut_off, follower.is_complete) == (False, is_over)


def behind(known: int = 10) -> Follower:
    """It has nothing at time 0, and has seen a block that is as high."""
    follower = Follower(ELECTORATE)
    follower.published([CHAIN[known - 1]], 0.0)
    return follower


def serve(follower: Follower, blocks: Sequence[ProvenBlock], members: Mapping[int, float], seconds: float) -> list[Ask]:
    """What it asks until it has caught up or for so long. ``members``: who answers, with how many blocks a second."""
    asks, now = list[Ask](), 1.0
    while now < seconds and follower.height < len(blocks):
        if (ask := follower.ask(now)) is None:
            now = follower.due
            continue
        asks.append(ask)
        given = blocks[ask.request.first - 1 :][: ask.request.count]
        takes = len(given) / members[ask.member] if ask.member in members else math.inf
        now += min(takes, ask.patience)
        follower.answered(given if takes < ask.patience else None, now)
    return asks


def test_while_nobody_gives_what_is_there_it_asks_for_less_and_waits_longer() -> None:
    follower, now = behind(), 1.0
    for count, patience in PACES:
        for member in range(MEMBERS):
            assert follower.ask(now) == Ask(member, GetBlocks(1, count), patience)
            follower.answered(None, now)
    assert follower.ask(now) is None
    assert follower.due == now + STALL
    assert (PACES[0], PACES[-1]) == ((128, 1.5), (1, 12.0))


def test_who_has_one_quick_answer_asks_for_much_again() -> None:
    follower = behind()
    for _ in range(2 * MEMBERS):
        assert follower.ask(1.0)
        follower.answered(None, 1.0)
    assert follower.ask(1.0) == Ask(0, GetBlocks(1, PACES[2][0]), PACES[2][1])
    follower.answered(CHAIN[:1], 1.02)
    assert follower.ask(1.02) == Ask(1, GetBlocks(2, MOST), PATIENCE)


@pytest.mark.parametrize("rate", [0.2, 1.0, 5.3, 12.0, 50.0, 1000.0], ids=str)
def test_a_slow_link_is_followed_at_its_speed_and_fails_only_while_that_is_found_out(rate: float) -> None:
    blocks = chain_of(Network(), 300)
    follower = Follower(ELECTORATE)
    follower.published([blocks[-1]], 0.0)
    asks = serve(follower, blocks, dict.fromkeys(range(MEMBERS), rate), 10_000)
    assert follower.height == len(blocks)
    failed = [place for place, ask in enumerate(asks[1:]) if ask.request.first == asks[place].request.first]
    assert failed == list(range(len(failed))), "all at first"
    assert len(failed) <= MEMBERS * (len(PACES) - 1)


@pytest.mark.parametrize("stopped", [{1}, {0, 2}, {0, 1, 3}], ids=str)
def test_members_that_are_stopped_do_not_make_it_ask_the_others_for_less(stopped: set[int]) -> None:
    blocks = chain_of(Network(), 300)
    follower = Follower(ELECTORATE)
    follower.published([blocks[-1]], 0.0)
    asks = serve(follower, blocks, {member: 1e6 for member in range(MEMBERS) if member not in stopped}, 60)
    assert follower.height == len(blocks)
    assert {(ask.request.count, ask.patience) for ask in asks} == {PACES[0]}


def test_where_nothing_is_known_to_be_missing_silence_makes_nobody_wait_longer() -> None:
    follower = caught_up(CHAIN[:3])
    for now in (10.0, 20.0, 30.0):
        for _ in range(ELECTORATE.faults_tolerated + 1):
            ask = follower.ask(now)
            assert ask is not None
            assert ask.patience == PATIENCE
            follower.answered(None, now)
        assert follower.ask(now) is None


def test_once_nothing_is_missing_it_has_the_patience_of_the_beginning() -> None:
    follower = behind(known=3)
    for _ in range(MEMBERS):
        assert follower.ask(1.0)
        follower.answered(None, 1.0)
    follower.published(CHAIN[:2], 1.0)
    assert follower.height == 3
    assert follower.ask(1.0 + STALL) == Ask(0, GetBlocks(4, MOST), PATIENCE)


@pytest.mark.parametrize(
    "told", [[(None, False)] * 2, [(None, True), (None, False)], [(None, False), ([], True)]], ids=["none", "one", "the second"]
)
def test_a_question_that_could_not_be_sent_is_no_silence(told: list[tuple[list[ProvenBlock] | None, bool]]) -> None:
    follower = behind()
    for now in (10.0, 20.0, 30.0, 40.0, 50.0):
        for blocks, is_sent in told:
            ask = follower.ask(now)
            assert ask is not None
            assert (ask.request.count, ask.patience) == PACES[0]
            follower.answered(blocks, now, is_sent=is_sent)
        assert follower.ask(now) is None


def test_that_nobody_gives_a_block_is_said_only_after_all_were_asked_for_one_alone_with_the_greatest_patience() -> None:
    follower, now, waited = Follower(ELECTORATE), 10.0, list[float]()
    follower.finish(CHAIN[8].header)
    while not follower.is_cut_off:
        if (ask := follower.ask(now)) is None:
            now = follower.due
        else:
            now += ask.patience
            waited.append(ask.patience)
            follower.answered(None, now)
    assert waited[-MEMBERS:] == [PACES[-1][1]] * MEMBERS
    assert now < 10.0 + 100.0, "in time"


def test_a_liar_that_keeps_nothing_holds_nobody_up_for_long() -> None:
    follower = Follower(ELECTORATE)
    for now in (10, 14):
        while ask := follower.ask(now):
            follower.answered([], now, oldest=4 if ask.member == 1 else 1)
    assert follower.caught_up


def test_a_member_that_does_not_answer_or_keeps_the_block_cuts_nobody_off() -> None:
    follower = caught_up(CHAIN[:2])
    follower.published([CHAIN[8]], 1.0)
    for begin, answer, oldest in ((100, None, 1), (200, [], 3), (300, [], 4)):
        for now in range(begin, begin + 40, 4):
            while ask := follower.ask(now):
                follower.answered(answer if ask.member == 2 else [], now, oldest=oldest if ask.member == 2 else 4)
        assert follower.is_cut_off is (oldest == 4)


@pytest.mark.parametrize(
    ("begun", "given", "taken", "forks"),
    [
        ({}, [[1, 2], [2, 3]], [[1, 2], [3]], 0),
        ({}, [[4, 2, 3], [1]], [[], [1, 2, 3, 4]], 0),
        ({"from_now": True}, [[], [5], [4, 6], [8]], [[], [5], [6], []], 0),
        ({"height": 5, "block_hash": CHAIN[4].hash}, [[6]], [[6]], 0),
        ({"height": 5, "block_hash": b"\x01" * 32}, [[6]], [[]], 1),
    ],
    ids=["in order", "late", "from the first it sees", "goes on", "does not link"],
)
def test_published_blocks_are_taken_in_order_from_where_it_began(
    begun: dict[str, Any], given: list[list[int]], taken: list[list[int]], forks: int
) -> None:
    follower = Follower(ELECTORATE, **begun)
    assert [heights(follower.published([CHAIN[i - 1] for i in some], 0.0).blocks) for some in given] == taken
    assert (follower.forks, follower.known) == (forks, max(map(max, filter(None, given))))
    if last := [height for some in taken for height in some]:
        assert (follower.height, follower.hash) == (last[-1], CHAIN[last[-1] - 1].hash)


def test_one_that_starts_now_asks_for_nothing_before_its_first_block() -> None:
    follower = Follower(ELECTORATE, from_now=True)
    assert follower.ask(1e9) is None
    follower.published(CHAIN[4:5], 0.0)
    assert follower.caught_up
    follower.published(CHAIN[6:7], 0.0)
    assert asked(follower, 1.0) == 6


def test_what_is_not_proven_is_refused() -> None:
    certified = CHAIN[2].certified
    other_payload = structs.replace(certified, block=structs.replace(certified.block, transactions=()))
    other_effects = structs.replace(certified, effects=structs.replace(certified.effects, receipts=()))
    foreign = NETWORK.shards[1].forge()
    bodies = [b"", b"junk", encode(other_payload), encode(other_effects), encode(foreign)]
    follower = Follower(ELECTORATE)
    progress = follower.published([read_block(body, ELECTORATE) for body in bodies], 0.0)
    assert progress.blocks == ()
    assert follower.refused == len(bodies)
    assert len(progress.notables) == 1


def test_it_asks_first_then_member_after_member_until_f_plus_1_in_a_row_have_nothing() -> None:
    follower = Follower(ELECTORATE)
    assert follower.ask(100.0) == Ask(0, GetBlocks(1, MOST), PATIENCE)
    assert heights(follower.answered(CHAIN[:3], 100.0).blocks) == [1, 2, 3]
    assert follower.ask(100.0) == Ask(1, GetBlocks(4, MOST), PATIENCE)
    follower.answered([], 100.0)
    assert follower.ask(100.0) == Ask(2, GetBlocks(4, MOST), PATIENCE)
    follower.answered(CHAIN[3:5], 100.0)
    for member in (3, 0):
        assert not follower.caught_up
        assert follower.ask(100.0) == Ask(member, GetBlocks(6, MOST), PATIENCE)
        follower.answered([], 100.0)
    assert follower.caught_up
    assert follower.ask(100.0) is None
    assert follower.due == 100.0 + STALL


def test_silence_is_no_end_of_the_chain() -> None:
    follower = Follower(ELECTORATE)
    while follower.ask(0.0):
        follower.answered(None, 0.0)
    assert not follower.caught_up
    assert follower.ask(STALL - 0.01) is None
    assert follower.ask(STALL) is not None


def test_a_gap_is_asked_for_after_a_moment_and_again_while_it_lasts() -> None:
    follower = caught_up(CHAIN[:2])
    rest(follower)
    follower.published([CHAIN[3]], 1.0)
    assert follower.ask(1.0) is None
    assert follower.due == 1.0 + REORDERING
    for begun in (1.0 + REORDERING, 2.0 + STALL):
        for _ in range(ELECTORATE.faults_tolerated + 1):
            assert asked(follower, begun) == 3
            follower.answered([], 2.0)
        assert follower.due == 2.0 + STALL, "members are not asked again and again for what nobody has"
    assert heights(follower.published([CHAIN[2]], 3.0).blocks) == [3, 4]
    assert follower.due == 3.0 + STALL
    follower.published([CHAIN[5]], 3.1)
    assert follower.due == 3.1 + REORDERING, "what is missing now may well be there"


def test_a_gap_too_wide_to_keep_what_is_behind_it_is_asked_for_too() -> None:
    blocks = chain_of(Network(), MAX_AHEAD + 5)
    follower = caught_up(blocks[:2])
    rest(follower)
    follower.published([blocks[-1]], 0.5)
    assert asked(follower, 0.5 + REORDERING) == 3
    for block in blocks[3:]:
        follower.published([block], 0.6)
    assert heights(follower.answered([blocks[2]], 1.0).blocks) == list(range(3, 3 + MAX_AHEAD))
    assert heights(follower.answered(blocks[follower.height :], 1.0).blocks)[-1] == len(blocks)


def test_a_second_certified_chain_is_told_once_and_the_first_one_goes_on() -> None:
    other = prove_block(NETWORK.shards[0].forge(CHAIN[3].certified, parent=b"\x07" * 32), ELECTORATE)
    follower = caught_up(CHAIN[:3])
    first = follower.published([other], 0.0)
    assert first.blocks == ()
    assert len(first.notables) == 1
    assert follower.published([other], 0.0).notables == ()
    assert heights(follower.published([CHAIN[3], CHAIN[4]], 0.0).blocks) == [4, 5]
    late = prove_block(NETWORK.shards[0].forge(CHAIN[2].certified, state_root=b"\x08" * 32), ELECTORATE)
    assert len(follower.published([late], 0.0).notables) == 1
    assert follower.forks == 3
    assert follower.height == 5


def test_a_false_block_waiting_ahead_does_not_keep_the_true_one_out() -> None:
    other = prove_block(NETWORK.shards[0].forge(CHAIN[4].certified, parent=b"\x07" * 32), ELECTORATE)
    follower = caught_up(CHAIN[:3])
    follower.published([other], 0.0)
    assert heights(follower.published([CHAIN[3]], 0.0).blocks) == [4]
    assert follower.forks == 1
    assert heights(follower.answered([CHAIN[4]], 0.0).blocks) == [5]


def test_nonsense_that_a_quorum_certified_is_told_counted_and_followed() -> None:
    shard = NETWORK.shards[0]
    network = Network()
    prepare = network.pay(network.person(1), network.person(0), 1)
    garbage = shard.forge(
        transactions=[b"", b"\x00", encode(prepare)[:-1], encode(prepare)], bundles=[b"", b"junk", encode([1, 2, 3])]
    )
    follower = Follower(ELECTORATE)
    progress = follower.published([proven(garbage)], 0.0)
    assert heights(progress.blocks) == [1]
    assert progress.blocks[0].transactions == (prepare,)
    assert progress.blocks[0].unreadable == 6
    late, parent = garbage.block.header.time + 2**50, garbage.block.header.hash
    second = shard.forge(height=2, parent=parent, time=late, proposer=77)
    third = shard.forge(height=3, parent=second.block.header.hash, time=late - 1)
    progress = follower.published([proven(second), proven(third)], 0.0)
    assert heights(progress.blocks) == [2, 3]
    assert len(progress.notables) == 2
    assert follower.nonsense == 3


def test_what_other_shards_ask_to_prepare_is_read_from_bundles() -> None:
    network = Network()
    payer, payee = network.person(0), network.person(1)
    network.fund(payer, 10)
    payment, before = network.pay(payer, payee, 3), network.shards[0].head.height
    network.shards[0].add(payment)
    network.exchange()
    blocks = [prove_block(certified, network.document.electorates[1]) for certified in network.shards[1].chain]
    prepared = [seen for block in blocks if block for seen in block.incoming if seen.transaction == payment]
    assert [(seen.source, seen.height) for seen in prepared] == [(0, before + 1)]
