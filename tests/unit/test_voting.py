"""What a member signs and says again, and the latest finalization among what it knows of the views."""

from msgspec import structs

from node.consensus.round import Seat
from node.consensus.views import Views
from node.consensus.voting import Voting
from node.effects import Broadcast
from node.protocol.messages import Ballot
from tests.unit.member import A1, B2, C3, FOUR, KEYS, NOTARIZE, finalized, notarized, proposal, vote

OWN_VIEW = 1
"""Led by member 1."""


def views_of(member: int) -> tuple[Views, Voting]:
    views = Views(FOUR, 0)
    return views, Voting(Seat(KEYS[member], member, FOUR), views, has_votes=True)


def test_the_latest_finalization_counts_in_whichever_order_they_come() -> None:
    for order in ((B2, C3, A1), (C3, A1, B2), (A1, B2, C3)):
        views, _ = views_of(0)
        assert all(views.keep(finalized(block)) for block in order)
        assert views.finalization == finalized(C3)
    views.prune(C3.header.view)
    assert views.finalization is None


def test_a_leader_repeats_its_proposal_in_its_view_and_afterwards_its_vote_only() -> None:
    _, voting = views_of(1)
    own = proposal(A1)
    voting.notarize(own, A1)
    assert voting.say_again(OWN_VIEW, is_current=True) == [Broadcast(own)]
    assert voting.say_again(OWN_VIEW, is_current=False) == [Broadcast(Ballot(own.vote))]


def test_a_certificate_that_lacks_signatures_says_nothing_of_own_votes() -> None:
    _, voting = views_of(3)
    good = notarized(A1)
    assert voting.part_in(good) == vote(NOTARIZE, 1, 3, A1.header.hash)
    assert voting.part_in(structs.replace(good, signatures=good.signatures[:1])) is None
    assert voting.part_in(notarized(A1, 0, 1, 2)) is None
