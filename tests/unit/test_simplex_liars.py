"""What is too much, twofold, not justified, not signed, or does not execute."""

import pytest
from msgspec import structs

from node.consensus.simplex import Diverged
from node.effects import LoseVotes
from node.protocol.block import Block
from node.protocol.certificate import Certificate, FinalBlock, Finality, Vote
from node.protocol.crypto import ZERO_HASH
from node.protocol.messages import Proposal
from node.protocol.reports import Notable
from tests.unit.member import (
    A1,
    B2,
    FAR,
    FINALIZE,
    FORGED_OWN,
    GENESIS,
    LIAR,
    NOTARIZE,
    NULLIFY,
    OTHER,
    QUORUMS,
    Bench,
    Heard,
    block,
    certificate,
    electorate_of,
    final,
    finalized,
    notarized,
    nullified,
    proposal,
    vote,
    votes,
    yes,
)

# -- rule 6: bounds and evidence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "heard",
    [[*votes(NULLIFY, FAR + 1), proposal(block(FAR + 1, GENESIS))], [proposal(A1), *QUORUMS, *votes(NULLIFY, 1), proposal(A1)]],
    ids=["too far ahead", "final"],
)
def test_nothing_is_kept_of_views_that_are(heard: list[Heard]) -> None:
    bench = Bench()
    bench.hear(*heard)
    assert not {1, FAR + 1} & bench.simplex.views.rounds.keys()
    assert bench.simplex.tree.get(A1.header.hash) is None


def test_a_proposal_whose_vote_completes_a_quorum_is_no_second_one_of_the_next_view() -> None:
    bench = Bench()
    bench.hear(*votes(NOTARIZE, A1, 2, 3), proposal(A1), proposal(B2, notarized(A1)))
    assert bench.simplex.view == 2
    assert bench.simplex.tree.get(A1.header.hash) is not None
    assert bench.notables() == []


def test_a_second_proposal_is_evidence_and_a_third_is_not_kept() -> None:
    bench = Bench()
    blocks = [block(1, GENESIS, bytes([i])) for i in range(5)]
    bench.hear(*map(proposal, blocks))
    assert sum(bench.simplex.tree.get(one.header.hash) is not None for one in blocks) == 2
    assert bench.notables() == ["member 1 voted twice in view 1", "member 1 proposed two blocks in view 1"]
    assert bench.said() == [yes(blocks[0])]


def test_a_double_vote_is_reported_once_and_not_counted() -> None:
    bench = Bench()
    x, y = (block(1, GENESIS, content) for content in (b"x", b"y"))
    accusation = ["member 1 voted twice in view 1"]
    forged = structs.replace(votes(NOTARIZE, y, 1)[0], signature=bytes(64))
    for heard, told in ((votes(NOTARIZE, x, 1)[0], []), (forged, []), (votes(NOTARIZE, y, 1)[0], accusation)):
        bench.hear(heard)
        assert bench.notables() == told
    bench.hear(*votes(NOTARIZE, OTHER, 1), *votes(NOTARIZE, y))
    assert bench.notables() == accusation
    assert bench.view == 1, "two votes for that block, and one that was not counted"


# -- what is not justified, not valid, or not signed -------------------------------------------------------------------------

BY_ANOTHER = vote(NOTARIZE, 1, 2, A1.header.hash)
MOVED = structs.replace(block(2, GENESIS).header, view=1)  # names proposer 2 in view 1


@pytest.mark.parametrize(
    "bad",
    [
        Proposal(A1.compact(), BY_ANOTHER, None, ()),
        Proposal(A1.compact(), structs.replace(BY_ANOTHER, signer=1), None, ()),
        Proposal(A1.compact(), vote(FINALIZE, 1, 1, A1.header.hash), None, ()),
        Proposal(A1.compact(), vote(NOTARIZE, 2, 1, A1.header.hash), None, ()),
        Proposal(A1.compact(), vote(NOTARIZE, 1, 1, ZERO_HASH), None, ()),
        Proposal(Block(A1.header, (), (b"other payload",)).compact(), vote(NOTARIZE, 1, 1, A1.header.hash), None, ()),
        Proposal(Block(MOVED, (), (b"",)).compact(), vote(NOTARIZE, 1, 1, MOVED.hash), None, ()),
    ],
    ids=["another's vote", "forged", "another kind", "another view", "another block", "another payload", "another proposer"],
)
def test_of_proposals_that_are_not_the_leaders_nothing_is_kept_and_their_sender_is_dropped(bad: Proposal) -> None:
    bench = Bench()
    bench.hear(bad)
    assert bench.banned() == [bad.vote.signer]
    assert len(bench.effects) == 1
    assert (bench.simplex.views.rounds, bench.simplex.tree.get(bad.vote.block)) == ({}, None)


@pytest.mark.parametrize(
    "forged",
    [
        structs.replace(nullified(1), signers=(0, 1), signatures=nullified(1).signatures[:2]),
        structs.replace(nullified(1), signers=(0, 1, 3)),
        structs.replace(nullified(1), view=2),
        certificate(NULLIFY, 1, electorate=electorate_of(4, shard=4)),
    ],
    ids=["too few", "another signer", "another view", "another shard"],
)
def test_who_brings_a_forged_certificate_is_dropped(forged: Certificate) -> None:
    bench = Bench()
    bench.hear(forged)
    assert (bench.view, bench.banned(), len(bench.effects)) == (1, [3], 1)


def test_one_members_votes_never_make_a_quorum() -> None:
    bench = Bench()
    own = vote(NULLIFY, 1, 1)
    foreign = (vote(NULLIFY, 1, signer, electorate=electorate_of(4, document=ZERO_HASH)) for signer in (2, 3))
    bench.hear(*[own, structs.replace(own, signer=2), Vote(NULLIFY, 1, ZERO_HASH, 250, bytes(64)), *foreign] * 5)
    assert bench.view == 1


# -- divergence and catch-up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heard", [[proposal(A1), finalized(A1)], [final(A1)]], ids=["finalized", "adopted"])
def test_a_final_block_that_does_not_execute_stops_the_member(heard: list[Heard]) -> None:
    with pytest.raises(Diverged):
        Bench(refused=[A1]).hear(*heard)


GOOD_B2 = final(B2)


@pytest.mark.parametrize(
    "bad",
    [
        FinalBlock(block(2, B2.header), GOOD_B2.finality),
        FinalBlock(Block(B2.header, (), (b"junk",)), GOOD_B2.finality),
        FinalBlock(B2, Finality((), finalized(B2, 0, 1))),
        FinalBlock(B2, Finality((), finalized(A1))),
    ],
    ids=["a gap", "another payload", "too few signatures", "another block's proof"],
)
def test_catch_up_stops_at_the_first_block_that_does_not_prove_itself(bad: FinalBlock) -> None:
    bench = Bench()
    bench.simplex.on_final_blocks(LIAR, [final(A1), bad, GOOD_B2], 0)
    bench.follow()
    assert (bench.final_blocks, bench.banned()) == ([A1], [3])
    bench.hear(GOOD_B2)
    assert bench.final_blocks == [A1, B2]


def test_a_member_ahead_helps_one_behind_and_not_the_other_way() -> None:
    bench, behind = Bench(), Bench(member=1)
    bench.hear(proposal(A1), *QUORUMS, nullified(2))
    helped = bench.simplex.catch_up_help(1)
    assert helped is not None
    assert [(c.kind, c.view) for c in helped.certificates] == [(FINALIZE, 1), (NULLIFY, 2)]
    behind.hear(*helped.certificates)
    assert behind.view == 3
    assert bench.simplex.last_vote_of(2) is None, "what is final, or has become a certificate, is not kept"
    assert bench.simplex.catch_up_help(3) is None


# -- rule 9: a member without its votes --------------------------------------------------------------------------------------


def test_a_member_whose_disk_is_not_the_one_that_signed_says_so_and_has_its_votes_deleted() -> None:
    bench = Bench(member=1)
    assert bench.turn.view == 1
    bench.hear(vote(NULLIFY, 1, 1))
    assert [type(effect) for effect in bench.effects] == [LoseVotes, Notable]
    assert "in view 1 what its database does not hold" in bench.notables()[0]
    assert bench.simplex.turn is None
    bench.hear(vote(NULLIFY, 2, 1))
    assert len(bench.effects) == 2, "it is told once"


@pytest.mark.parametrize("held", [[], [nullified(1)]], ids=["new", "of a kind that is held"])
def test_who_brings_a_forged_vote_of_this_member_is_dropped(held: list[Heard]) -> None:
    signatures = (FORGED_OWN.signature, *nullified(1).signatures[1:])
    for forged in (FORGED_OWN, structs.replace(nullified(1), signers=(0, 2, 3), signatures=signatures)):
        bench = Bench()
        bench.hear(*held)
        bench.take()
        bench.hear(forged)
        assert bench.banned() == [3]


def test_a_member_tells_another_its_last_vote() -> None:
    bench = Bench()
    for heard, told in (
        (proposal(A1), vote(NOTARIZE, 1, 1, A1.header.hash)),
        (vote(NULLIFY, 3, 1), vote(NULLIFY, 3, 1)),
        (vote(NULLIFY, 2, 1), vote(NULLIFY, 3, 1)),
    ):
        bench.hear(heard)
        assert bench.simplex.last_vote_of(1) == told
