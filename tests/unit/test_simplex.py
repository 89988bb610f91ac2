"""The path of a block in ``node.consensus.simplex``, its proofs, what is persisted first, and the timer."""

from collections.abc import Sequence
from typing import Any

import pytest

from node.consensus.journal import remembered
from node.consensus.round import Round
from node.consensus.simplex import Turn
from node.effects import Journal
from node.protocol.block import Block
from node.protocol.codec import DecodeError
from node.protocol.messages import Certified, Proposal
from tests.unit.member import (
    A1,
    B2,
    BODIES,
    C3,
    FAR,
    FINALIZE,
    FORGED_OWN,
    FOUR,
    GENESIS,
    NOTARIZE,
    NULLIFY,
    OTHER,
    QUORUMS,
    THROUGH_B2,
    Bench,
    Heard,
    Invalid,
    On,
    Propose,
    Restart,
    block,
    certificate,
    done,
    electorate_of,
    final,
    finalized,
    no,
    notarized,
    nullified,
    proposal,
    story,
    vote,
    votes,
    yes,
)

WIDE = proposal(block(19, GENESIS), None, *(nullified(view) for view in range(3, 19)))

# fmt: off
STORIES = [
    # the path of a block
    story("a valid proposal is voted for once", On(proposal(A1), says=[yes(A1)], view=1), On(proposal(A1))),
    story("a quorum of notarize votes is followed by a finalize vote and the next view", On(proposal(A1), says=[yes(A1)]),
          On(vote(NOTARIZE, 1, 2, A1.header.hash), says=[done(A1)], view=2, final=[])),
    story("a quorum of nullify votes enters the next view", On(proposal(A1), notarized(A1), says=None, view=2),
          On(*votes(NULLIFY, 2, 1), view=2), On(*votes(NULLIFY, 2, 2, 3), says=[no(2)], view=3)),
    story("a leader that gave its view up does not propose in it", On(leads=GENESIS), On(100, says=[no(1)]), member=1),
    # rule 2: known certificates still count
    story("a finalization takes effect when the body comes later", On(finalized(A1), says=[A1.header.hash]), On(A1, final=[A1])),
    story("votes of later views count when their turn comes",
          On(*votes(NULLIFY, 3, 1), *votes(NULLIFY, 2, 1), nullified(1), view=2),
          On(*votes(NULLIFY, 2, 3), *votes(NULLIFY, 3, 3), says=[no(2), no(3)], view=4, leads=GENESIS)),
    story("a proposal that finality justifies is voted for once its parent's body is here",
          On(proposal(B2, finalized(A1)), says=[A1.header.hash]), On(A1, says=[yes(B2)], final=[A1])),
    story("a finalization of a later view enters the view after it", On(finalized(block(9, GENESIS)), says=None, view=10)),
    # rule 3: restart
    story("after a restart no second block is notarized in a view", On(proposal(A1), says=[yes(A1)]),
          On(Restart(), says=[yes(A1)]), On(proposal(OTHER))),
    story("after a restart a finalized view is not nullified",
          On(notarized(A1), Restart(), *range(100, 5_000, 100), says=None, never=no(1), view=2)),
    story("after a restart a nullified view is not finalized", On(100, Restart(), notarized(A1), says=[no(1)], view=2)),
    story("a restart goes on after the last final block and forgets older votes",
          On(proposal(A1), *QUORUMS, Restart(final(A1)), says=[], view=2)),
    # else it would be in a view it voted in, with that vote forgotten
    story("a restart that finalizes from the journal enters the view after",
          On(proposal(A1), notarized(A1, 0, 1, 3), says=[yes(A1), done(A1)], leads=A1.header),
          On(Propose(B2), notarized(B2, 0, 1, 3), proposal(C3, finalized(B2, 0, 1, 3)), says=[yes(B2), done(B2), yes(C3)]),
          On(Restart(), says=None, final=[A1, B2], view=3), member=2),
    # the exclusion that safety rests on
    story("a member that nullified a view does not finalize in it", On(100, says=[no(1)]), On(notarized(A1), view=2)),
    story("a member that finalized in a view never nullifies it",
          On(notarized(A1), *range(100, 5_000, 100), says=None, never=no(1))),
    story("a member that nullified may still notarize", On(100, says=[no(1)]), On(proposal(A1), says=[yes(A1)])),
    story("a late notarization of a view passed without a vote is finalized",
          On(nullified(1, 1, 2, 3), notarized(A1), says=[done(A1)])),
    # rule 4: the timer
    story("before the deadline nothing is given up", On(99)),
    story("a view that does not end is repeated", On(100, says=[no(1)]), On(149), On(200, says=[no(1)], view=1)),
    # rule 5: missing bodies
    story("junk for an answer does not end the search",
          On(finalized(A1), Block(A1.header, (), (b"junk",)), says=[A1.header.hash]), On(A1, final=[A1])),
    story("missing ancestors are fetched one after the other", On(finalized(C3), says=[C3.header.hash]),
          On(C3, says=[B2.header.hash]), On(B2, says=[A1.header.hash], final=[]), On(A1, final=[A1, B2, C3], leads=C3.header)),
    story("a leader without its parent's body fetches it", On(notarized(A1, 0, 1, 3), says=[done(A1), A1.header.hash]),
          On(A1, leads=A1.header), member=2),
    # rule 6: bounds
    story("votes too far ahead are dropped", On(*votes(NULLIFY, FAR + 1), view=1),
          On(*votes(NULLIFY, FAR), view=FAR + 1, leads=None)),
    story("what is final is forgotten", On(final(A1), final=[A1]), On(proposal(A1), *votes(NULLIFY, 1), notarized(A1), view=2)),
    # rule 7: an invalid proposal
    story("a block that does not execute is given up without waiting", On(proposal(A1), says=[no(1)]), refused=[A1]),
    story("nor is voted for what descends from it", On(proposal(A1), proposal(B2, notarized(A1, 1, 2, 3)), says=[no(1), no(2)]),
          refused=[A1]),
    story("of two proposals the one that executes is voted for", On(proposal(A1), proposal(OTHER), says=[no(1), yes(OTHER)]),
          refused=[A1]),
    story("an invalid proposal is given up in its view only", On(Invalid(2)), On(Invalid(1), says=[no(1)])),
    story("a view voted for is not given up because of a second proposal", On(proposal(A1), Invalid(1), says=[yes(A1)])),
    # rule 8: no view without a certificate
    story("a view jumped over is nullified late and then bridged by the leader",
          On(nullified(2, 0, 1, 2), view=3),  # 1 may hold a block
          On(*votes(NULLIFY, 1, 0, 1), 100, says=[no(3), no(1)]),
          On(*(nullified(view, 0, 1, 2) for view in (6, 3, 4, 5)), view=7, leads=GENESIS), member=3),
    story("a view jumped over is not nullified late when finalize was voted there",
          On(notarized(A1), nullified(5), *range(100, 2_000, 100), says=None, never=no(1))),
    # what is not justified, not valid, or not signed
    story("a gap without nullification is refused until it is closed", On(WIDE, view=19),
          On(nullified(1)), On(nullified(2), says=[yes(BODIES[WIDE.vote.block])])),
    story("a block on an unknown parent is refused", On(proposal(block(1, A1.header)))),
    story("votes for different blocks do not add up",
          On(*(votes(NOTARIZE, block(1, GENESIS, bytes([i])), i)[0] for i in (1, 2, 3)), view=1)),
    # catch-up
    story("catch-up adopts a final block and builds on it",
          On(final(A1, 0, 1, 3), final=[A1], view=2, leads=A1.header), member=2),
    story("a block final through its descendant is adopted but not built on past it", On(THROUGH_B2, final=[A1], view=3),
          On(final(B2, 0, 1, 2), final=[A1, B2], leads=B2.header), member=3),
    story("adopting what is final already changes nothing", On(final(A1), final(A1), final(OTHER), final=[A1]),
          On(final(B2), final=[A1, B2])),
    # rule 9: a member without its votes
    story("a member without its votes follows but signs nothing", On(proposal(A1), *QUORUMS, 1_000, final=[A1]),
          On(proposal(B2, finalized(A1)), notarized(B2, 1, 2, 3), view=3), On(1_000, *votes(NULLIFY, 3), view=4),
          has_votes=False),
    story("a leader without its votes does not propose", On(leads=None), member=1, has_votes=False),
    story("who meets a vote of its own that it does not remember signs nothing more", On(vote(NOTARIZE, 9, 0, A1.header.hash)),
          On(proposal(A1), *QUORUMS, 1_000, final=[A1], view=2)),
    story("it may be in a certificate", On(certificate(NOTARIZE, 1, A1.header.hash, (0, 1, 2)), view=2), On(proposal(B2), 1_000)),
    story("or in one of a kind that is held", On(nullified(1, 1, 2, 3), nullified(1, 0, 1, 2), 1_000, view=2)),
    story("or in what proves a block final", On(final(A1, 0, 1, 2), final=[A1], view=2), On(1_000)),
    story("or in what justifies a proposal", On(proposal(B2, notarized(A1, 0, 1, 2)), 1_000, view=2)),
    story("a vote it remembers does not frighten it", On(proposal(A1), says=[yes(A1)]),
          On(vote(NOTARIZE, 1, 0, A1.header.hash), certificate(NOTARIZE, 1, A1.header.hash, (0, 1, 2)), says=[done(A1)], view=2)),
    story("nor does one with its name that it did not sign", On(FORGED_OWN, proposal(A1), says=[yes(A1)])),
    story("nor one of a view that is final", On(final(A1), vote(NULLIFY, 1, 0)), On(proposal(B2, finalized(A1)), says=[yes(B2)])),
]
# fmt: on


@pytest.mark.parametrize(("bench", "steps"), STORIES)
def test_consensus(bench: dict[str, Any], steps: Sequence[On]) -> None:
    member = Bench(**bench)
    for number, step in enumerate(steps, 1):
        member.hear(*step.heard)
        said, turn = member.said(), member.simplex.turn
        assert step.says is None or said == list(step.says), f"step {number}"
        assert step.never not in said, f"step {number}"
        assert step.view in (0, member.view), f"step {number}"
        assert step.final is None or member.final_blocks == step.final, f"step {number}"
        assert (turn and turn.parent) == (step.leads and step.leads.hash), f"step {number}"


# -- proofs, and what justifies a proposal ---------------------------------------------------------------------------------


def test_finality_of_a_descendant_makes_its_ancestors_final_and_proves_them() -> None:
    bench = Bench()
    bench.hear(proposal(A1), proposal(B2, notarized(A1)), proposal(C3, notarized(B2)), finalized(C3))
    assert bench.final_blocks == [A1, B2, C3]
    assert [len(one.finality.path) for one in bench.finalized] == [2, 1, 0]
    assert all(one.finality.proves(one.block.header, FOUR) for one in bench.finalized)


def test_the_leader_proposes_once_with_what_justifies_its_block() -> None:
    bench = Bench(member=3)
    notarization, nullification = notarized(A1, 0, 1, 2), nullified(2, 0, 1, 2)
    bench.hear(proposal(A1), notarization, nullification)
    assert bench.turn == Turn(3, A1.header.hash, notarization, (nullification,))
    mine = block(3, A1.header, b"mine")
    bench.take()
    bench.hear(Propose(mine))
    original = [Proposal(mine.compact(), vote(NOTARIZE, 3, 3, mine.header.hash), notarization, (nullification,))]
    assert bench.take() == original
    assert bench.simplex.turn is None
    bench.hear(Restart())
    assert original[0] in bench.take(), "after a restart it repeats it"
    assert bench.simplex.turn is None


def test_who_adopted_a_block_builds_on_its_certificate_but_not_on_that_of_a_descendant() -> None:
    own, through = Bench(member=2), Bench(member=3)
    own.hear(final(A1, 0, 1, 3))
    assert own.turn.notarization == finalized(A1, 0, 1, 3)
    through.hear(THROUGH_B2, nullified(2, 0, 1, 2))
    assert (through.turn.parent, through.turn.notarization) == (A1.header.hash, None)


def test_a_proposal_built_too_late_is_dropped() -> None:
    bench = Bench(member=1)
    turn = bench.turn
    bench.hear(nullified(1))
    bench.take()
    bench.simplex.propose(turn, A1, "own", 0)
    bench.follow()
    assert bench.take() == []


def test_a_proposal_built_on_a_parent_that_is_justified_still_is_made() -> None:
    """A later notarization came while its nonce was mined."""
    bench = Bench(member=3)
    bench.hear(proposal(A1), notarized(A1, 0, 1, 2), nullified(2, 0, 1, 2))
    turn = bench.turn
    bench.hear(proposal(B2, notarized(A1, 0, 1, 2)), notarized(B2, 0, 1, 2))
    mine = block(3, A1.header, b"mine")
    bench.take()
    assert bench.simplex.propose(turn, mine, "own", 0)
    bench.follow()
    assert [m.block for m in bench.take() if isinstance(m, Proposal)] == [mine.compact()]


@pytest.mark.parametrize(("size", "quorum"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (7, 5)])
def test_committees_of_any_size_need_n_minus_f_votes(size: int, quorum: int) -> None:
    electorate = electorate_of(size)
    leader = 1 % size
    bench = Bench(leader, electorate)
    a = block(1, GENESIS, b"a", size)
    bench.hear(Propose(a))
    others = [member for member in range(size) if member != leader]
    for needed, kind in ((2, NOTARIZE), (3, FINALIZE)):
        for signer in others[: quorum - 1]:
            assert bench.view < needed or kind == FINALIZE
            assert bench.finalized == []
            bench.hear(vote(kind, 1, signer, a.header.hash, electorate))
    assert bench.final_blocks == [a]
    if size == 1:
        bench.hear(Restart())
        assert (bench.final_blocks, bench.view) == ([a], 2), "it survives a restart before its commit"


# -- rule 1: persist before sending ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "order"),
    [
        (proposal(A1), ["proposal", "notarize", "Broadcast"]),
        (notarized(A1), ["finalize", "Broadcast", "Send"]),
        (100, ["nullify", "Broadcast", "Broadcast"]),
    ],
)
def test_what_is_sent_is_journaled_before(heard: Heard, order: list[str]) -> None:
    bench = Bench()
    bench.hear(heard)
    assert [effect.slot if isinstance(effect, Journal) else type(effect).__name__ for effect in bench.effects] == order


def test_after_a_power_cut_a_member_still_has_the_notarization_its_finalize_rests_on() -> None:
    bench = Bench()
    bench.hear(notarized(A1), Restart())
    assert bench.view == 2
    assert bench.simplex.catch_up_help(1) == Certified((notarized(A1),))


@pytest.mark.parametrize("record", [Journal(1, "notarize", b"\x93damaged"), Journal(1, "sonnet", b"")], ids=lambda r: r.slot)
def test_a_damaged_journal_is_refused(record: Journal) -> None:
    with pytest.raises(DecodeError):
        remembered(record)


# -- rule 2: a certificate that is known already -----------------------------------------------------------------------------


def test_a_known_certificate_still_advances() -> None:
    bench = Bench()
    bench.simplex.views.rounds[1] = Round()
    bench.simplex.views.rounds[1].keep(nullified(1), FOUR)
    bench.hear(nullified(1))
    assert bench.view == 2


# -- rule 4: the timer -----------------------------------------------------------------------------------------------------


def test_every_change_of_view_re_arms_the_timer() -> None:
    bench = Bench()
    deadlines = [bench.simplex.deadline]
    heard: list[Heard] = [nullified(1), notarized(B2), nullified(6), final(block(9, GENESIS))]
    for now, one in enumerate(heard, 3):
        bench.now = now * 10
        bench.hear(one)
        deadlines.append(bench.simplex.deadline)
    assert deadlines == [100, 130, 140, 150, 160]


def test_the_timeout_doubles_up_to_eight_times_and_resets_on_success() -> None:
    bench, waits = Bench(), []
    for view in range(1, 7):
        bench.wait()
        bench.hear(nullified(view))
        waits.append(bench.simplex.deadline - bench.now)
    assert waits == [200, 400, 800, 800, 800, 800]
    bench.hear(nullified(7), certificate(NOTARIZE, 8, A1.header.hash, (1, 2, 3)))
    assert bench.simplex.deadline - bench.now == 100
    bench.wait()
    bench.wait()
    assert bench.simplex.view_timeouts == 7, "a view is given up once"


# -- rule 8: no view without a certificate ---------------------------------------------------------------------------------


def test_all_certificates_since_the_last_final_block_are_repeated_in_turn() -> None:
    bench = Bench()
    bench.hear(*(nullified(view) for view in range(1, 11)))
    said: set[int] = set()
    for _ in range(3):
        bench.take()
        bench.wait()
        messages = [m for m in bench.take() if isinstance(m, Certified)]
        assert all(len(m.certificates) <= 8 for m in messages)
        said |= {c.view for m in messages for c in m.certificates}
    assert said == set(range(1, 11))


def test_they_are_repeated_again_and_again_while_new_views_come() -> None:
    """What was lost once is not lost for good: a view for which only votes are held is closed at the next turn."""
    bench = Bench()
    bench.hear(*(nullified(view) for view in range(1, 11)))
    said: list[int] = []
    for _ in range(12):
        bench.take()
        bench.wait()
        said += [c.view for m in bench.take() if isinstance(m, Certified) for c in m.certificates if len(m.certificates) > 2]
        bench.hear(nullified(bench.view))
    assert min(said.count(view) for view in range(1, 11)) >= 2
