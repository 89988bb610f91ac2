"""Blocks that a member lacks, and those that it keeps."""

import pytest
from msgspec import structs

from node.consensus import simplex
from node.effects import Send
from node.protocol.block import Block
from node.protocol.messages import BodyRequest, PeerMessage, Proposal, TransactionsRequest
from tests.unit.member import (
    A1,
    B2,
    C3,
    FOUR,
    GENESIS,
    NOTARIZE,
    NULLIFY,
    OTHER,
    Bench,
    Complete,
    Lacking,
    Work,
    block,
    done,
    final,
    finalized,
    no,
    notarized,
    nullified,
    proposal,
    vote,
    yes,
)

# -- rule 5: missing bodies ------------------------------------------------------------------------------------------------


def asked(bench: Bench) -> list[int]:
    """Whom it asks for bodies."""
    requests = [e for e in bench.effects if isinstance(e, Send) and isinstance(e.message, BodyRequest)]
    peers = [FOUR.keys.index(request.peer) for request in requests]
    bench.take()
    return peers


def test_a_missing_body_is_asked_of_one_member_then_of_another() -> None:
    bench = Bench()
    bench.hear(finalized(A1))
    first = asked(bench)
    bench.hear(vote(NULLIFY, 2, 3), finalized(A1))
    assert asked(bench) == [], "no storm"
    for _ in range(2):
        bench.wait()
        again = asked(bench)
        assert len(again) == 1
        first += again
    assert sorted(first) == [1, 2, 3]


@pytest.mark.parametrize(("leader", "signers"), [(2, (0, 1, 3)), (3, (0, 1, 2))])
def test_a_body_is_asked_first_of_those_who_voted_for_it(leader: int, signers: tuple[int, ...]) -> None:
    bench = Bench(leader)
    bench.hear(notarized(A1, *signers), *(nullified(view, *signers) for view in range(2, leader)))
    (peer,) = asked(bench)
    assert peer in signers


def test_who_voted_for_a_missing_body_is_asked_once_that_is_known() -> None:
    bench = Bench()
    bench.hear(finalized(A1), notarized(A1, 1, 2, 3))
    asked(bench)
    rounds = []
    for now in range(1_000, 20_000, 1_000):
        bench.hear(now)
        rounds.append(asked(bench))
    assert {peer for peers in rounds for peer in peers} == {1, 2, 3}
    assert max(map(len, rounds)) == 1, "one member at a time"


def requests(bench: Bench) -> list[tuple[int, PeerMessage]]:
    """What was asked of whom."""
    sent = [e for e in bench.effects if isinstance(e, Send) and isinstance(e.message, TransactionsRequest | BodyRequest)]
    bench.take()
    return [(FOUR.keys.index(e.peer), e.message) for e in sent]


PARTS = TransactionsRequest(A1.header.hash, (2, 4))


def test_transactions_are_asked_of_the_leader_alone_until_a_quorum_stands_for_the_block() -> None:
    bench = Bench()
    bench.hear(Lacking(proposal(A1)))
    assert requests(bench) == [(1, PARTS)]
    bench.hear(vote(NOTARIZE, 1, 2, A1.header.hash), 19)
    assert requests(bench) == [], "no storm"
    bench.hear(20, 59, 60)
    assert requests(bench) == [(1, PARTS), (1, PARTS)], "after 20 ms and after 40 more"
    assert not bench.simplex.wants(A1.header.hash), "nobody may send the whole body: its witnesses are not checked"
    bench.hear(notarized(A1, 0, 2, 3))
    assert requests(bench) == [], "it may be on its way"
    bench.hear(10_000)
    ((first, body),) = requests(bench)
    bench.hear(20_000)
    ((second, again),) = requests(bench)
    assert {first, second} == {2, 3}
    assert body == again == BodyRequest(1, A1.header.hash)
    bench.hear(A1)
    assert not bench.simplex.awaits(A1.header.hash)


def test_what_a_late_proposal_lacks_is_asked_for_if_a_quorum_notarized_it() -> None:
    for later, asked_of in (([notarized(A1)], [(1, PARTS)]), ([nullified(1)], []), ([notarized(A1), A1], [(1, PARTS)])):
        bench = Bench()
        bench.hear(*later, Lacking(proposal(A1)), Lacking(proposal(A1)))
        assert requests(bench) == asked_of


def test_who_sends_another_payload_than_a_quorum_notarized_is_dropped_and_the_body_is_waited_for_still() -> None:
    bench = Bench()
    bench.hear(notarized(A1), finalized(A1))
    assert requests(bench)
    whole = proposal(A1)
    bench.hear(structs.replace(whole, block=structs.replace(whole.block, leaves=())))
    assert bench.banned() == [1]
    assert bench.simplex.wants(A1.header.hash)
    assert bench.final_blocks == []
    bench.hear(whole)
    assert bench.final_blocks == [A1]


def test_nobody_is_asked_for_a_proposal_whose_view_is_over_unless_a_quorum_notarized_it() -> None:
    for end, is_awaited in ((nullified(1), False), (notarized(A1), True)):
        bench = Bench()
        bench.hear(Lacking(proposal(A1)), end)
        requests(bench)
        assert bench.simplex.awaits(A1.header.hash) == is_awaited
        bench.hear(10_000)
        assert bool(requests(bench)) == is_awaited


def test_a_final_block_does_not_end_the_wait_for_a_later_proposal() -> None:
    bench = Bench()
    bench.hear(proposal(A1), notarized(A1), Lacking(proposal(B2, notarized(A1))), finalized(A1))
    assert bench.final_blocks == [A1]
    assert bench.simplex.awaits(B2.header.hash)
    bench.hear(Complete(proposal(B2, notarized(A1))))
    assert yes(B2) in bench.said()


def test_what_completes_a_proposal_of_a_view_that_is_over_is_its_body() -> None:
    bench = Bench()
    bench.hear(Lacking(proposal(A1)), notarized(A1), finalized(A1), Complete(proposal(A1)))
    assert bench.final_blocks == [A1]
    bench.hear(Lacking(proposal(OTHER)))
    assert bench.simplex.body(OTHER.header.hash) is None


def test_a_proposal_is_as_late_as_its_last_transaction() -> None:
    """Else a leader could show its proposal in time, and take all the time there is for the rest."""
    judged = []
    for came in (3, 70):
        bench, then = Bench(), proposal(B2, notarized(A1))
        bench.hear(proposal(A1), notarized(A1), Work(), Lacking(then), came, Complete(then), notarized(B2))
        judged.append(bench.simplex.suspicion.skips(2))
    assert judged == [False, True]


def test_a_member_hands_out_the_bodies_it_has_and_keeps_none_nobody_asked_for() -> None:
    bench = Bench()
    for heard, body in ((A1, None), (proposal(A1), A1)):
        bench.hear(heard)
        assert bench.simplex.body(A1.header.hash) == body


def test_a_block_that_just_became_final_is_handed_out_still() -> None:
    """The next leader may lack it, when a liar kept it from that one alone."""
    bench = Bench()
    given = []
    for block_of in (A1, B2, C3):
        bench.hear(final(block_of))
        given.append([one for one in (A1, B2, C3) if bench.simplex.body(one.header.hash) == one])
    assert given == [[A1], [A1, B2], [B2, C3]]


# -- what a proposal brings, and what is kept of it --------------------------------------------------------------------------

NEXT = block(3, A1.header)
FOUR_ON = block(4, GENESIS)


@pytest.mark.parametrize(
    "bad",
    [
        proposal(NEXT, notarized(A1)),
        proposal(NEXT, notarized(A1), nullified(1), nullified(2)),
        proposal(NEXT, notarized(A1), nullified(3)),
        proposal(NEXT, notarized(B2), nullified(2)),
        proposal(NEXT, nullified(1), nullified(2)),
        proposal(NEXT, notarized(A1), structs.replace(nullified(2), signers=(0, 1, 3))),
        proposal(NEXT, structs.replace(notarized(A1), signers=(0, 1, 3)), nullified(2)),
        proposal(FOUR_ON, None, nullified(2), nullified(3)),
        proposal(block(20, GENESIS), None, *(nullified(view) for view in range(3, 20))),
    ],
    ids=[
        "one too few", "one too many", "of another view", "of another block", "of another kind", "a forged nullification",
        "a forged notarization", "from too late on", "more than sixteen",
    ],
)  # fmt: skip
def test_of_a_proposal_with_another_justification_than_an_honest_leaders_no_block_is_kept(bad: Proposal) -> None:
    bench = Bench()
    bench.hear(bad)
    assert bench.banned() == [bad.vote.signer]
    assert bench.simplex.tree.size == 0
    assert NOTARIZE not in {told[0] for told in bench.said() if isinstance(told, tuple)}


def test_who_sends_a_forged_vote_is_dropped_once_it_was_worth_a_look() -> None:
    bench = Bench()
    forged = structs.replace(vote(NULLIFY, 1, 1), signature=bytes(64))
    bench.hear(forged)
    assert bench.banned() == [1]
    bench.hear(vote(NULLIFY, 1, 1))
    bench.take()
    bench.hear(forged)
    assert bench.banned() == [], "its vote is known: nobody looks"


def test_a_leaders_blocks_are_kept_no_longer_than_its_view_unless_they_matter() -> None:
    """A flood: two blocks in each of its views. Those that no quorum and not this member voted for are let go of."""
    bench = Bench(refused=[A1])
    bench.hear(nullified(1), 100, nullified(2))
    for view in range(3, 60):
        for content in (b"x" * 1_000, b"y" * 1_000):
            flood = block(view, GENESIS, content)
            bench.refused.add(flood.header.hash)
            bench.hear(proposal(flood, None, *(nullified(earlier) for earlier in range(max(1, view - 16), view))))
            assert bench.simplex.tree.size <= 2_000
    assert bench.simplex.tree.size > 0


def test_blocks_that_are_not_final_hold_so_much_and_then_only_empty_ones_are_voted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplex, "MAX_VOTED_BYTES", 100)
    bench = Bench()
    full = block(1, GENESIS, bytes(101))
    after, empty = block(2, full.header, b"more"), Block(block(2, full.header).header, (), ())
    empty = structs.replace(empty, header=structs.replace(empty.header, payload_root=empty.payload_root()))
    bench.hear(proposal(full))
    assert bench.said() == [yes(full)]
    bench.hear(proposal(after, notarized(full)))
    assert bench.said() == [done(full), no(2)]
    bench.hear(proposal(empty, notarized(full)))
    assert bench.said() == [yes(empty)]
