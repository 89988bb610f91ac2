"""The rules of ``node.consensus.simplex``, one test each: a single member, hand-made votes, its effects."""

from collections.abc import Sequence

import pytest
from msgspec import structs

from node.consensus.journal import remembered
from node.consensus.round import Round, Seat
from node.consensus.simplex import Diverged, Execute, Finalized, Simplex, Timeouts, Turn
from node.effects import Broadcast, Journal, Send
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, Electorate, FinalBlock, Finality, Vote, VoteKind, make_certificate, sign_vote
from node.protocol.codec import DecodeError
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.merkle import EMPTY_ROOT
from node.protocol.messages import Ballot, BodyReply, BodyRequest, Certified, PeerMessage, Proposal
from node.protocol.reports import Notable

NOTARIZE, NULLIFY, FINALIZE = VoteKind.NOTARIZE, VoteKind.NULLIFY, VoteKind.FINALIZE
KEYS = [KeyPair(bytes([7] * 31 + [i + 1])) for i in range(7)]
TIMEOUTS = Timeouts(view=100, retransmit=50, skip=1_000)


def electorate_of(size: int, network: bytes = b"unittest", shard: int = 3, epoch: int = 2) -> Electorate:
    return Electorate(network, shard, epoch, tuple(key.public for key in KEYS[:size]))


FOUR = electorate_of(4)


def block(view: int, parent: Header, content: bytes = b"", members: int = 4) -> Block:
    payload = Block(GENESIS, (), (content,)).payload_root()
    roots = (payload, EMPTY_ROOT, EMPTY_ROOT, ZERO_HASH, ZERO_HASH, ZERO_HASH)
    place = (b"unittest", 3, 2, view, parent.height + 1, parent.hash, 0)
    return Block(Header(*place, view % members, *roots, bytes(8)), (), (content,))


_ROOTS = (ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH)
GENESIS = Header(b"unittest", 3, 2, 0, 0, ZERO_HASH, 0, 0, *_ROOTS, bytes(8))


def vote(kind: VoteKind, view: int, signer: int, hash: bytes = ZERO_HASH, electorate: Electorate = FOUR) -> Vote:
    return sign_vote(KEYS[signer], signer, electorate, kind, view, hash)


def certificate(
    kind: VoteKind, view: int, hash: bytes = ZERO_HASH, signers: Sequence[int] = (0, 1, 2), electorate: Electorate = FOUR
) -> Certificate:
    return make_certificate([vote(kind, view, signer, hash, electorate) for signer in signers], electorate)


def proposal(of: Block, notarization: Certificate | None = None, nullifications: Sequence[Certificate] = ()) -> Proposal:
    header = of.header
    own = vote(NOTARIZE, header.view, header.proposer, header.hash)
    return Proposal(of, own, notarization, tuple(nullifications))


class Bench:
    """One member, its disk, what it wants done, and the blocks it had executed. Every event is followed by what follows."""

    def __init__(self, member: int = 0, electorate: Electorate = FOUR, abstain_through: int = 0) -> None:
        self.seat = Seat(KEYS[member], member, electorate)
        self.journal: dict[tuple[int, str], Journal] = {}
        self.refused: set[bytes] = set()
        self.executed: list[bytes] = []
        self.start(abstain_through=abstain_through)

    def start(
        self, final: Header = GENESIS, final_certificate: Certificate | None = None, now: int = 0, abstain_through: int = 0
    ) -> None:
        """Start, or start again with the journal as it was taken."""
        self.effects: list[Journal | Broadcast | Send | Notable] = []
        self.finalized: list[FinalBlock] = []
        records = [remembered(record) for record in self.journal.values()]
        self.simplex: Simplex[str] = Simplex(self.seat, final, final_certificate, TIMEOUTS, records, now, abstain_through)
        self.follow()

    def follow(self) -> None:
        while (effect := self.simplex.next_effect()) is not None:
            match effect:
                case Execute(block_hash):
                    self.executed.append(block_hash)
                    self.simplex.on_executed(block_hash, None if block_hash in self.refused else "executed")
                case Finalized(final):
                    self.finalized.append(final)
                case _:
                    self.effects.append(effect)

    @property
    def turn(self) -> Turn | None:
        return self.simplex.turn

    @property
    def view(self) -> int:
        return self.simplex.view

    @property
    def final_blocks(self) -> list[Block]:
        return [final.block for final in self.finalized]

    def hear_proposal(self, heard: Proposal, now: int = 0) -> None:
        self.simplex.on_proposal(heard, "payload", now)
        self.follow()

    def hear_invalid(self, view: int) -> None:
        self.simplex.on_invalid_proposal(view, 0)
        self.follow()

    def hear_vote(self, heard: Vote, now: int = 0) -> None:
        self.simplex.on_vote(heard, now)
        self.follow()

    def hear_certificates(self, *certificates: Certificate, now: int = 0) -> None:
        self.simplex.on_certificates(certificates, now)
        self.follow()

    def hear_body(self, body: Block) -> None:
        self.simplex.on_block(body, 0)
        self.follow()

    def hear_body_request(self, peer: bytes, block_hash: bytes) -> None:
        self.simplex.on_body_request(peer, block_hash)
        self.follow()

    def adopt(self, *blocks: FinalBlock, now: int = 0) -> None:
        self.simplex.on_final_blocks(blocks, now)
        self.follow()

    def propose(self, turn: Turn, block: Block) -> None:
        self.simplex.propose(turn, block, "own", 0)
        self.follow()

    def tick(self, now: int | None = None) -> None:
        """At ``now``, or when it is due."""
        self.simplex.tick(self.simplex.deadline if now is None else now)
        self.follow()

    def sent(self) -> list[PeerMessage]:
        """Take the effects, persist the journal's, and return the messages."""
        effects, self.effects = self.effects, []
        self.journal |= {(e.view, e.slot): e for e in effects if isinstance(e, Journal)}
        return [e.message for e in effects if isinstance(e, Broadcast | Send)]

    def votes(self) -> list[tuple[VoteKind, int, bytes]]:
        """The votes among what was sent."""
        found = [m.vote for m in self.sent() if isinstance(m, Ballot | Proposal)]
        return [(v.kind, v.view, v.block) for v in found]

    def notables(self) -> list[str]:
        return [effect.text for effect in self.effects if isinstance(effect, Notable)]

    def finalize(self, candidate: Block) -> None:
        """Bring a block to finality by the others' votes."""
        header = candidate.header
        self.hear_proposal(proposal(candidate))
        for kind in (NOTARIZE, FINALIZE):
            for signer in range(1, 4):
                self.hear_vote(vote(kind, header.view, signer, header.hash))


A1 = block(1, GENESIS, b"a")


# -- the path of a block ---------------------------------------------------------------------------------------------


def test_a_valid_proposal_is_voted_for_once() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    assert bench.votes() == [(NOTARIZE, 1, A1.header.hash)]
    bench.hear_proposal(proposal(A1))
    assert bench.votes() == []


def test_a_quorum_of_notarize_votes_finalizes_and_enters_the_next_view() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    bench.sent()
    bench.hear_vote(vote(NOTARIZE, 1, 2, A1.header.hash), 5)
    assert bench.votes() == [(FINALIZE, 1, A1.header.hash)]
    assert bench.view == 2
    assert bench.finalized == []


def test_a_quorum_of_finalize_votes_makes_a_block_final_with_its_certificate() -> None:
    bench = Bench()
    bench.finalize(A1)
    (final,) = bench.finalized
    assert final.block == A1
    assert final.finality.descendants == ()
    assert final.finality.proves(A1.header, FOUR)
    assert bench.simplex.tree.root == A1.header


def test_finality_of_a_descendant_makes_its_ancestors_final_and_proves_them() -> None:
    bench = Bench()
    b2 = block(2, A1.header)
    c3 = block(3, b2.header)
    bench.hear_proposal(proposal(A1))
    bench.hear_proposal(proposal(b2, certificate(NOTARIZE, 1, A1.header.hash)))
    bench.hear_proposal(proposal(c3, certificate(NOTARIZE, 2, b2.header.hash)))
    bench.hear_certificates(certificate(FINALIZE, 3, c3.header.hash))
    assert bench.final_blocks == [A1, b2, c3]
    assert [len(final.finality.descendants) for final in bench.finalized] == [2, 1, 0]
    assert all(final.finality.proves(final.block.header, FOUR) for final in bench.finalized)


def test_a_quorum_of_nullify_votes_enters_the_next_view() -> None:
    bench = Bench()
    for signer in (1, 2, 3):
        bench.hear_vote(vote(NULLIFY, 1, signer))
    assert bench.view == 2


def test_the_leader_is_given_its_turn_and_proposes_with_what_justifies_it() -> None:
    bench = Bench(member=3)
    bench.hear_proposal(proposal(A1))
    notarization, nullification = certificate(NOTARIZE, 1, A1.header.hash), certificate(NULLIFY, 2)
    assert bench.turn is None
    bench.hear_certificates(notarization, nullification)
    turn = bench.turn
    assert turn is not None
    assert (turn.view, turn.parent) == (3, A1.header.hash)
    assert (turn.notarization, turn.nullifications) == (notarization, (nullification,))
    mine = block(3, A1.header, b"mine")
    bench.sent()
    bench.propose(turn, mine)
    sent = bench.sent()
    assert sent == [Proposal(mine, vote(NOTARIZE, 3, 3, mine.header.hash), notarization, (nullification,))]
    assert bench.turn is None, "once per view"


def test_a_proposal_built_too_late_is_dropped() -> None:
    bench = Bench(member=1)
    turn = bench.turn
    assert turn is not None
    bench.hear_certificates(certificate(NULLIFY, 1))
    bench.sent()
    bench.propose(turn, A1)
    assert bench.sent() == []


def test_a_proposal_built_on_a_parent_that_is_justified_still_is_made() -> None:
    """A later notarization came while its nonce was mined."""
    bench = Bench(member=3)
    b2 = block(2, A1.header)
    bench.hear_proposal(proposal(A1))
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash), certificate(NULLIFY, 2))
    turn = bench.turn
    assert turn is not None
    bench.hear_proposal(proposal(b2, certificate(NOTARIZE, 1, A1.header.hash)))
    bench.hear_certificates(certificate(NOTARIZE, 2, b2.header.hash))
    mine = block(3, A1.header, b"mine")
    bench.sent()
    bench.propose(turn, mine)
    assert [m.block for m in bench.sent() if isinstance(m, Proposal)] == [mine]


def test_a_leader_that_gave_its_view_up_does_not_propose_in_it() -> None:
    bench = Bench(member=1)
    bench.tick(100)
    assert bench.turn is None


@pytest.mark.parametrize(("size", "quorum"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (7, 5)])
def test_committees_of_any_size_need_n_minus_f_votes(size: int, quorum: int) -> None:
    electorate = electorate_of(size)
    leader = 1 % size
    bench = Bench(leader, electorate)
    a = block(1, GENESIS, b"a", size)
    turn = bench.turn
    assert turn is not None
    bench.propose(turn, a)
    others = [member for member in range(size) if member != leader]
    for needed, kind in ((2, NOTARIZE), (3, FINALIZE)):
        for signer in others[: quorum - 1]:
            assert bench.view < needed or kind == FINALIZE
            assert bench.finalized == []
            bench.hear_vote(vote(kind, 1, signer, a.header.hash, electorate))
    assert bench.final_blocks == [a]


def test_a_single_member_finalizes_alone_and_survives_a_restart_before_its_commit() -> None:
    alone = electorate_of(1)
    bench = Bench(0, alone)
    a = block(1, GENESIS, b"a", 1)
    turn = bench.turn
    assert turn is not None
    bench.propose(turn, a)
    assert bench.final_blocks == [a]
    bench.sent()
    bench.start()
    assert bench.final_blocks == [a]
    assert bench.view == 2


# -- rule 1: persist before sending ----------------------------------------------------------------------------------


def test_proposal_and_notarize_vote_are_journaled_before_the_vote_is_sent() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    kinds = [(e.slot if isinstance(e, Journal) else type(e).__name__) for e in bench.effects]
    assert kinds == ["proposal", "notarize", "Broadcast"]


def test_finalize_is_journaled_with_its_notarization_before_it_is_sent() -> None:
    bench = Bench()
    notarization = certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3))
    bench.hear_certificates(notarization)
    journal, broadcast = bench.effects
    assert isinstance(journal, Journal)
    assert journal.slot == "finalize"
    assert all(signature in journal.data for signature in notarization.signatures)
    assert isinstance(broadcast, Broadcast)


def test_nullify_is_journaled_before_it_is_sent() -> None:
    bench = Bench()
    bench.tick(100)
    assert [type(effect) for effect in bench.effects[:2]] == [Journal, Broadcast]


def test_after_a_power_cut_a_member_still_has_the_notarization_its_finalize_rests_on() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3)))
    bench.sent()
    bench.start()
    assert bench.view == 2
    helped = bench.simplex.catch_up_help(1)
    assert helped is not None
    assert [(c.kind, c.view) for c in helped.certificates] == [(NOTARIZE, 1)]


# -- rule 2: known certificates still count --------------------------------------------------------------------------


def test_a_known_finalization_takes_effect_when_the_body_comes_later() -> None:
    bench = Bench()
    finalization = certificate(FINALIZE, 1, A1.header.hash)
    bench.hear_certificates(finalization)
    assert bench.finalized == []
    bench.hear_body(A1)
    assert bench.final_blocks == [A1]


def test_a_known_certificate_still_advances() -> None:
    bench = Bench()
    nullification = certificate(NULLIFY, 1)
    bench.simplex.views.rounds[1] = Round()
    bench.simplex.views.rounds[1].keep(nullification, FOUR)
    bench.hear_certificates(nullification)
    assert bench.view == 2


def test_certificates_of_later_views_count_when_their_turn_comes() -> None:
    bench = Bench()
    for view in (3, 2):
        for signer in (1, 2):
            bench.hear_vote(vote(NULLIFY, view, signer))
    bench.hear_certificates(certificate(NULLIFY, 1))
    assert bench.view == 2
    bench.hear_vote(vote(NULLIFY, 2, 3))
    bench.hear_vote(vote(NULLIFY, 3, 3))
    assert bench.view == 4


def test_a_proposal_that_finality_justifies_is_voted_for_in_the_same_call() -> None:
    """The parent's finalization alone came with it, and the parent's body only now."""
    bench = Bench(member=0)
    b2 = block(2, A1.header)
    bench.hear_proposal(proposal(b2, certificate(FINALIZE, 1, A1.header.hash)))
    assert bench.votes() == []
    bench.hear_body(A1)
    assert bench.votes() == [(NOTARIZE, 2, b2.header.hash)]


def test_a_finalization_of_a_later_view_enters_the_view_after_it() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(FINALIZE, 9, A1.header.hash))
    assert bench.view == 10


# -- rule 3: restart -------------------------------------------------------------------------------------------------


def test_after_a_restart_no_second_block_is_notarized_in_a_view() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    bench.sent()
    bench.start()
    assert bench.votes() == [(NOTARIZE, 1, A1.header.hash)], "it says it again"
    bench.hear_proposal(proposal(block(1, GENESIS, b"other")))
    assert bench.votes() == []


def test_after_a_restart_a_leader_repeats_its_proposal_and_makes_no_other() -> None:
    bench = Bench(member=1)
    turn = bench.turn
    assert turn is not None
    bench.propose(turn, A1)
    original = bench.sent()
    bench.start()
    assert bench.turn is None
    assert bench.sent() == original


def test_after_a_restart_a_finalized_view_is_not_nullified() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3)))
    bench.sent()
    bench.start()
    for now in range(100, 5_000, 100):
        bench.tick(now)
    assert (NULLIFY, 1, ZERO_HASH) not in bench.votes()


def test_after_a_restart_a_nullified_view_is_not_finalized() -> None:
    bench = Bench()
    bench.tick(100)
    bench.sent()
    bench.start()
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3)))
    assert all(kind != FINALIZE for kind, _, _ in bench.votes())
    assert bench.view == 2


def test_a_restart_goes_on_after_the_last_final_block_and_forgets_older_votes() -> None:
    bench = Bench()
    bench.finalize(A1)
    bench.sent()
    final = bench.finalized[0]
    bench.start(A1.header, final.finality.certificate)
    assert bench.view == 2
    assert bench.sent() == []


def test_a_restart_that_finalizes_from_the_journal_enters_the_view_after() -> None:
    """Else it would be in a view it voted in, with that vote forgotten: found by the simulator, seed 10818."""
    bench = Bench(member=2)
    b2 = block(2, A1.header, b"mine")
    c3 = block(3, b2.header)
    bench.hear_proposal(proposal(A1))
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (0, 1, 3)))
    turn = bench.turn
    assert turn is not None
    bench.propose(turn, b2)
    bench.hear_certificates(certificate(NOTARIZE, 2, b2.header.hash, (0, 1, 3)))
    bench.hear_proposal(proposal(c3, certificate(FINALIZE, 2, b2.header.hash, (0, 1, 3))))
    bench.sent()
    bench.start()
    assert bench.final_blocks == [A1, b2]
    assert bench.view == 3
    assert bench.turn is None


def test_a_damaged_journal_is_refused() -> None:
    bench = Bench()
    bench.journal[(1, "notarize")] = Journal(1, "notarize", b"\x93damaged")
    with pytest.raises(DecodeError):
        bench.start()
    bench.journal = {(1, "sonnet"): Journal(1, "sonnet", b"")}
    with pytest.raises(DecodeError):
        bench.start()


# -- the exclusion that safety rests on ------------------------------------------------------------------------------


def test_a_member_that_nullified_a_view_does_not_finalize_in_it() -> None:
    bench = Bench()
    bench.tick(100)
    bench.sent()
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3)))
    assert bench.votes() == []
    assert bench.view == 2


def test_a_member_that_finalized_in_a_view_never_nullifies_it() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3)))
    for now in range(100, 5_000, 100):
        bench.tick(now)
    assert (NULLIFY, 1, ZERO_HASH) not in bench.votes()


def test_a_member_that_nullified_may_still_notarize() -> None:
    bench = Bench()
    bench.tick(100)
    bench.sent()
    bench.hear_proposal(proposal(A1), 100)
    assert bench.votes() == [(NOTARIZE, 1, A1.header.hash)]


def test_a_late_notarization_of_a_view_passed_without_a_vote_is_finalized() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(NULLIFY, 1, signers=(1, 2, 3)))
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3)))
    assert bench.votes() == [(FINALIZE, 1, A1.header.hash)]


# -- rule 4: the timer -----------------------------------------------------------------------------------------------


def test_every_change_of_view_re_arms_the_timer() -> None:
    bench = Bench()
    assert bench.simplex.deadline == 100
    bench.hear_certificates(certificate(NULLIFY, 1), now=30)
    assert bench.simplex.deadline == 130
    bench.hear_certificates(certificate(NOTARIZE, 2, A1.header.hash), now=40)
    assert bench.simplex.deadline == 140
    bench.hear_certificates(certificate(FINALIZE, 7, A1.header.hash), now=50)
    assert bench.simplex.deadline == 150
    b9 = block(9, GENESIS)
    bench.adopt(FinalBlock(b9, Finality((), certificate(FINALIZE, 9, b9.header.hash))), now=60)
    assert bench.simplex.deadline == 160


def test_before_the_deadline_nothing_is_given_up() -> None:
    bench = Bench()
    bench.tick(99)
    assert bench.sent() == []


def test_the_timeout_doubles_up_to_eight_times_and_resets_on_success() -> None:
    bench = Bench()
    now, waits = 0, []
    for view in range(1, 7):
        now = bench.simplex.deadline
        bench.tick(now)
        bench.hear_certificates(certificate(NULLIFY, view), now=now)
        assert bench.view == view + 1
        waits.append(bench.simplex.deadline - now)
    assert waits == [200, 400, 800, 800, 800, 800]
    bench.hear_certificates(certificate(NOTARIZE, 7, A1.header.hash), now=now)
    assert bench.simplex.deadline - now == 100
    assert bench.simplex.view_timeouts == 6


def test_a_view_that_does_not_end_is_repeated_not_given_up_twice() -> None:
    bench = Bench()
    bench.tick(100)
    assert bench.simplex.deadline == 200
    bench.sent()
    bench.tick(200)
    assert bench.votes() == [(NULLIFY, 1, ZERO_HASH)]
    assert bench.simplex.view_timeouts == 1


# -- rule 5: missing bodies ------------------------------------------------------------------------------------------


def test_a_missing_body_is_asked_of_one_member_then_of_another() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(FINALIZE, 1, A1.header.hash))
    asked = [e for e in bench.effects if isinstance(e, Send)]
    assert [e.message for e in asked] == [BodyRequest(1, A1.header.hash)]
    bench.sent()
    bench.hear_vote(vote(NULLIFY, 2, 3), 10)
    assert not any(isinstance(message, BodyRequest) for message in bench.sent()), "no storm"
    peers = {asked[0].peer}
    for _ in range(2):
        bench.tick()
        (again,) = [e for e in bench.effects if isinstance(e, Send)]
        peers.add(again.peer)
        bench.sent()
    assert peers == set(FOUR.keys[1:])


def test_who_voted_for_a_missing_body_is_asked_once_that_is_known() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(FINALIZE, 1, A1.header.hash))
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (0, 2, 3)))
    bench.sent()
    asked = set()
    for now in range(1_000, 20_000, 1_000):
        bench.tick(now)
        asked |= {FOUR.keys.index(e.peer) for e in bench.effects if isinstance(e, Send)}
        assert len([e for e in bench.effects if isinstance(e, Send)]) <= 1, "one member at a time"
        bench.sent()
    assert asked == {2, 3}


def test_a_body_is_asked_first_of_those_who_voted_for_it() -> None:
    for leader, signers in ((2, (0, 2, 3)), (2, (1, 2, 3)), (3, (0, 1, 2))):
        bench = Bench(leader)
        nullified = tuple(certificate(NULLIFY, view) for view in range(2, leader))
        bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, signers), *nullified)
        (asked,) = [FOUR.keys.index(effect.peer) for effect in bench.effects if isinstance(effect, Send)]
        assert asked in set(signers) - {leader}


def test_junk_for_an_answer_does_not_end_the_search() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(FINALIZE, 1, A1.header.hash))
    bench.hear_body(Block(A1.header, (), (b"junk",)))
    assert bench.simplex.wants(A1.header.hash)
    bench.hear_body(A1)
    assert bench.final_blocks == [A1]
    assert not bench.simplex.wants(A1.header.hash)


def test_a_body_nobody_asked_for_is_not_kept() -> None:
    bench = Bench()
    bench.hear_body(A1)
    bench.hear_body_request(KEYS[2].public, A1.header.hash)
    assert bench.sent() == []


def test_a_member_hands_out_the_bodies_it_has() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    bench.sent()
    bench.hear_body_request(KEYS[2].public, A1.header.hash)
    assert bench.effects == [Send(KEYS[2].public, BodyReply(A1))]


def test_missing_ancestors_are_fetched_one_after_the_other() -> None:
    bench = Bench()
    b2 = block(2, A1.header)
    c3 = block(3, b2.header)
    bench.hear_certificates(certificate(FINALIZE, 3, c3.header.hash))
    for body in (c3, b2, A1):
        assert bench.finalized == []
        wanted = [m.hash for m in bench.sent() if isinstance(m, BodyRequest)]
        assert wanted == [body.header.hash]
        bench.hear_body(body)
    assert bench.final_blocks == [A1, b2, c3]


def test_a_leader_without_its_parents_body_fetches_it() -> None:
    bench = Bench(member=2)
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash, (0, 1, 3)))
    assert bench.turn is None
    assert BodyRequest(1, A1.header.hash) in bench.sent()
    bench.hear_body(A1)
    turn = bench.turn
    assert turn is not None
    assert turn.parent == A1.header.hash


# -- rule 6: bounds and evidence -------------------------------------------------------------------------------------


def test_votes_and_proposals_too_far_ahead_are_dropped() -> None:
    bench = Bench()
    ahead = 1 + MAX_VIEWS_AHEAD
    for signer in range(1, 4):
        bench.hear_vote(vote(NULLIFY, ahead + 1, signer))
    assert bench.view == 1
    assert bench.simplex.views.rounds == {}
    bench.hear_proposal(proposal(block(ahead + 1, GENESIS)))
    assert bench.simplex.views.rounds == {}
    for signer in range(1, 4):
        bench.hear_vote(vote(NULLIFY, ahead, signer))
    assert bench.view == ahead + 1


def test_a_second_proposal_is_evidence_and_a_third_is_not_kept() -> None:
    bench = Bench()
    blocks = [block(1, GENESIS, bytes([i])) for i in range(5)]
    for candidate in blocks:
        bench.hear_proposal(proposal(candidate))
    assert len(bench.simplex.views.rounds[1].proposals) == 2
    assert bench.notables() == ["member 1 proposed two blocks in view 1", "member 1 voted twice in view 1"]
    assert bench.votes() == [(NOTARIZE, 1, blocks[0].header.hash)]


def test_a_double_vote_is_reported_once_and_not_counted() -> None:
    bench = Bench()
    bench.hear_vote(vote(NOTARIZE, 1, 1, A1.header.hash))
    for content in (b"x", b"y", b"z"):
        bench.hear_vote(vote(NOTARIZE, 1, 1, block(1, GENESIS, content).header.hash))
    assert bench.notables() == ["member 1 voted twice in view 1"]
    for signer in (2, 3):
        bench.hear_vote(vote(NOTARIZE, 1, signer, block(1, GENESIS, b"x").header.hash))
    assert bench.view == 1, "two votes for that block, and one that was not counted"


def test_what_is_final_is_forgotten() -> None:
    bench = Bench()
    bench.finalize(A1)
    simplex = bench.simplex
    assert all(view > 1 for view in simplex.views.rounds)
    assert simplex.tree.get(A1.header.hash) is None
    bench.sent()
    bench.hear_proposal(proposal(A1))
    bench.hear_vote(vote(NULLIFY, 1, 2))
    assert bench.sent() == []
    assert all(view > 1 for view in simplex.views.rounds)


# -- rule 7: silent leaders ------------------------------------------------------------------------------------------


def keep_alive(bench: Bench, now: int, members: Sequence[int]) -> None:
    for signer in members:
        bench.hear_vote(vote(NOTARIZE, bench.view + 5, signer, bytes([signer] * 32)), now)


def test_a_silent_leader_is_skipped_at_once_when_a_quorum_is_alive() -> None:
    bench = Bench()
    keep_alive(bench, 1_500, (1, 2))
    bench.hear_certificates(certificate(NULLIFY, 2), now=1_500)
    assert bench.votes() == [(NULLIFY, 3, ZERO_HASH)]
    assert bench.simplex.view_timeouts == 0


def test_nobody_is_skipped_without_a_quorum_alive() -> None:
    bench = Bench()
    keep_alive(bench, 1_500, (1,))
    bench.hear_certificates(certificate(NULLIFY, 2), now=1_500)
    assert bench.votes() == []


def test_a_leader_heard_of_is_not_skipped() -> None:
    bench = Bench()
    keep_alive(bench, 1_500, (1, 2, 3))
    bench.hear_certificates(certificate(NULLIFY, 2), now=1_500)
    assert bench.votes() == []


def test_a_forged_vote_is_no_sign_of_life() -> None:
    bench = Bench()
    keep_alive(bench, 1_500, (1, 2))
    forged = vote(NOTARIZE, 3, 2, A1.header.hash)
    bench.hear_vote(Vote(forged.kind, forged.view, forged.block, 3, forged.signature), 1_500)
    bench.hear_certificates(certificate(NULLIFY, 2), now=1_500)
    assert bench.votes() == [(NULLIFY, 3, ZERO_HASH)]


def test_a_vote_too_late_to_be_counted_is_a_sign_of_life() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(NULLIFY, 1), certificate(NULLIFY, 2, signers=(0, 1, 2)))
    keep_alive(bench, 1_500, (1, 2))
    bench.hear_vote(vote(NULLIFY, 2, 3), 1_500)
    bench.hear_certificates(certificate(NULLIFY, 6), now=1_500)
    assert bench.votes() == []


def test_a_member_does_not_skip_itself() -> None:
    bench = Bench(member=3)
    keep_alive(bench, 1_500, (0, 1, 2))
    bench.hear_certificates(certificate(NULLIFY, 2), now=1_500)
    assert bench.votes() == []


# -- rule 8: no view without a certificate ---------------------------------------------------------------------------


def test_all_certificates_since_the_last_final_block_are_repeated_in_turn() -> None:
    bench = Bench()
    bench.hear_certificates(*tuple(certificate(NULLIFY, view) for view in range(1, 11)))
    said: set[int] = set()
    for _ in range(3):
        bench.sent()
        bench.tick()
        messages = [m for m in bench.sent() if isinstance(m, Certified)]
        assert all(len(m.certificates) <= 8 for m in messages)
        said |= {c.view for m in messages for c in m.certificates}
    assert said == set(range(1, 11))


def test_a_view_jumped_over_is_nullified_late_and_then_bridged_by_the_leader() -> None:
    bench = Bench(member=3)
    bench.hear_certificates(certificate(NULLIFY, 2))
    assert bench.view == 3
    assert bench.turn is None, "view 1 might hold a block"
    bench.hear_vote(vote(NULLIFY, 1, 0))
    bench.hear_vote(vote(NULLIFY, 1, 1))
    bench.sent()
    bench.tick(100)
    assert (NULLIFY, 1, ZERO_HASH) in bench.votes()
    bench.hear_certificates(certificate(NULLIFY, 6), now=100)
    assert [bench.simplex.views.rounds[view].certificate(NULLIFY) is not None for view in (1, 2)] == [True, True]


def test_a_view_jumped_over_is_not_nullified_late_when_finalize_was_voted_there() -> None:
    bench = Bench()
    bench.hear_certificates(certificate(NOTARIZE, 1, A1.header.hash), certificate(NULLIFY, 5))
    for _ in range(5):
        bench.tick()
    assert (NULLIFY, 1, ZERO_HASH) not in bench.votes()


# -- what is not justified, not valid, or not signed -----------------------------------------------------------------


def test_a_gap_without_nullification_is_refused() -> None:
    bench = Bench()
    c3 = block(3, GENESIS)
    bench.hear_proposal(proposal(c3, None, [certificate(NULLIFY, 2)]))
    assert bench.view == 3
    assert bench.votes() == []
    bench.hear_certificates(certificate(NULLIFY, 1))
    assert bench.votes() == [(NOTARIZE, 3, c3.header.hash)], "justified once the gap is closed"


def test_a_block_beside_the_notarized_one_is_refused() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    bench.sent()
    fork = block(2, GENESIS, b"fork")
    bench.hear_proposal(proposal(fork, certificate(NOTARIZE, 1, A1.header.hash, (1, 2, 3))))
    assert bench.votes() == [(FINALIZE, 1, A1.header.hash)]


def test_a_block_on_an_unknown_parent_is_refused() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(block(1, A1.header)))
    assert bench.votes() == []


def test_a_block_that_does_not_execute_gets_no_vote_nor_do_its_descendants() -> None:
    bench = Bench()
    bench.refused.add(A1.header.hash)
    b2 = block(2, A1.header)
    bench.hear_proposal(proposal(A1))
    bench.hear_proposal(proposal(b2, certificate(NOTARIZE, 1, A1.header.hash)))
    assert bench.votes() == [(NULLIFY, 1, ZERO_HASH), (NULLIFY, 2, ZERO_HASH)], "given up without waiting"
    assert bench.executed == [A1.header.hash], "tried once"


def test_of_two_proposals_the_one_that_executes_is_voted_for() -> None:
    bench = Bench()
    bench.refused.add(A1.header.hash)
    other = block(1, GENESIS, b"other")
    bench.hear_proposal(proposal(A1))
    bench.hear_proposal(proposal(other))
    assert bench.votes() == [(NULLIFY, 1, ZERO_HASH), (NOTARIZE, 1, other.header.hash)]


def test_a_view_whose_proposal_the_caller_found_invalid_is_given_up_unless_voted_for() -> None:
    bench = Bench()
    bench.hear_invalid(2)
    assert bench.votes() == [], "its turn has not come"
    bench.hear_invalid(1)
    assert bench.votes() == [(NULLIFY, 1, ZERO_HASH)]
    voted = Bench()
    voted.hear_proposal(proposal(A1))
    voted.sent()
    voted.hear_invalid(1)
    assert voted.votes() == []


def test_proposals_not_from_the_leader_are_ignored() -> None:
    bench = Bench()
    header = A1.header
    by_another = vote(NOTARIZE, 1, 2, header.hash)
    forged = Vote(NOTARIZE, 1, header.hash, 1, by_another.signature)
    wrong_kind = vote(FINALIZE, 1, 1, header.hash)
    wrong_view = vote(NOTARIZE, 2, 1, header.hash)
    wrong_block = vote(NOTARIZE, 1, 1, ZERO_HASH)
    for bad in (by_another, forged, wrong_kind, wrong_view, wrong_block):
        bench.hear_proposal(Proposal(A1, bad, None, ()))
    bench.hear_proposal(Proposal(Block(header, (), (b"other payload",)), vote(NOTARIZE, 1, 1, header.hash), None, ()))
    assert bench.effects == []
    assert not any(known.proposals for known in bench.simplex.views.rounds.values())


def test_a_header_that_names_another_proposer_is_ignored() -> None:
    bench = Bench()
    two = block(2, GENESIS).header  # proposer 2, in view 2
    moved = structs.replace(two, view=1)
    candidate = Block(moved, (), (b"",))
    bench.hear_proposal(Proposal(candidate, vote(NOTARIZE, 1, 1, moved.hash), None, ()))
    assert bench.effects == []


@pytest.mark.parametrize(
    "elsewhere", [electorate_of(4, network=b"elsewhr_"), electorate_of(4, shard=4), electorate_of(4, epoch=3)]
)
def test_votes_and_certificates_of_another_network_shard_or_epoch_are_ignored(elsewhere: Electorate) -> None:
    bench = Bench()
    for signer in range(1, 4):
        bench.hear_vote(vote(NULLIFY, 1, signer, electorate=elsewhere))
    bench.hear_certificates(certificate(NULLIFY, 1, electorate=elsewhere))
    assert bench.view == 1


def test_forged_certificates_are_ignored() -> None:
    bench = Bench()
    good = certificate(NULLIFY, 1)
    first, second, third = good.signatures
    forgeries = [
        Certificate(NULLIFY, 1, ZERO_HASH, (0, 1), (first, second)),
        Certificate(NULLIFY, 1, ZERO_HASH, (0, 0, 1), (first, first, second)),
        Certificate(NULLIFY, 1, ZERO_HASH, (1, 0, 2), (second, first, third)),
        Certificate(NULLIFY, 1, ZERO_HASH, (0, 1, 3), (first, second, third)),
        Certificate(NULLIFY, 1, ZERO_HASH, (0, 1, 200), (first, second, third)),
        Certificate(NULLIFY, 1, ZERO_HASH, (0, 1, 2), (first, second)),
        Certificate(NULLIFY, 2, ZERO_HASH, (0, 1, 2), good.signatures),
        Certificate(FINALIZE, 1, ZERO_HASH, (0, 1, 2), good.signatures),
        Certificate(NULLIFY, 1, A1.header.hash, (0, 1, 2), good.signatures),
        Certificate(NULLIFY, 1, ZERO_HASH, (), ()),
    ]
    bench.hear_certificates(*tuple(forgeries))
    assert bench.view == 1
    assert bench.effects == []
    bench.hear_certificates(good)
    assert bench.view == 2


def test_one_members_votes_never_make_a_quorum() -> None:
    bench = Bench()
    for _ in range(5):
        bench.hear_vote(vote(NULLIFY, 1, 1))
        bench.hear_vote(Vote(NULLIFY, 1, ZERO_HASH, 2, vote(NULLIFY, 1, 1).signature))
        bench.hear_vote(Vote(NULLIFY, 1, ZERO_HASH, 250, bytes(64)))
    assert bench.view == 1


def test_votes_for_different_blocks_do_not_add_up() -> None:
    bench = Bench()
    for signer in (1, 2, 3):
        bench.hear_vote(vote(NOTARIZE, 1, signer, block(1, GENESIS, bytes([signer])).header.hash))
    assert bench.view == 1


# -- divergence and catch-up -----------------------------------------------------------------------------------------


def test_a_final_block_that_does_not_execute_stops_the_member() -> None:
    bench = Bench()
    bench.refused.add(A1.header.hash)
    bench.hear_proposal(proposal(A1))
    with pytest.raises(Diverged):
        bench.hear_certificates(certificate(FINALIZE, 1, A1.header.hash))


def test_catch_up_adopts_a_final_block() -> None:
    bench = Bench(member=2)
    finalization = certificate(FINALIZE, 1, A1.header.hash)
    bench.adopt(FinalBlock(A1, Finality((), finalization)), now=40)
    assert (bench.simplex.tree.root, bench.view, bench.simplex.deadline) == (A1.header, 2, 140)
    assert bench.final_blocks == [A1]
    turn = bench.turn
    assert turn is not None
    assert (turn.parent, turn.notarization) == (A1.header.hash, finalization)


def test_a_block_final_through_its_descendant_is_adopted_but_not_built_on_past_it() -> None:
    bench = Bench(member=3)
    b2 = block(2, A1.header)
    finality = Finality((b2.header,), certificate(FINALIZE, 2, b2.header.hash))
    bench.adopt(FinalBlock(A1, finality))
    assert bench.view == 3
    assert bench.turn is None, "view 2 has a block"
    bench.adopt(FinalBlock(b2, Finality((), finality.certificate)))
    turn = bench.turn
    assert turn is not None
    assert turn.parent == b2.header.hash


@pytest.mark.parametrize("wrong", ["a gap", "another payload", "too few signatures", "another block's proof"])
def test_catch_up_stops_at_the_first_block_that_does_not_prove_itself(wrong: str) -> None:
    b2 = block(2, A1.header)
    good = FinalBlock(b2, Finality((), certificate(FINALIZE, 2, b2.header.hash)))
    bad = {
        "a gap": FinalBlock(block(2, b2.header), good.finality),
        "another payload": FinalBlock(Block(b2.header, (), (b"junk",)), good.finality),
        "too few signatures": FinalBlock(b2, Finality((), certificate(FINALIZE, 2, b2.header.hash, (0, 1)))),
        "another block's proof": FinalBlock(b2, Finality((), certificate(FINALIZE, 1, A1.header.hash))),
    }[wrong]
    bench = Bench()
    bench.adopt(FinalBlock(A1, Finality((), certificate(FINALIZE, 1, A1.header.hash))), bad, good)
    assert bench.final_blocks == [A1]
    bench.adopt(good)
    assert bench.final_blocks == [A1, b2]


def test_a_proven_block_that_does_not_execute_stops_the_member() -> None:
    bench = Bench()
    bench.refused.add(A1.header.hash)
    with pytest.raises(Diverged):
        bench.adopt(FinalBlock(A1, Finality((), certificate(FINALIZE, 1, A1.header.hash))))


def test_adopting_what_is_final_already_changes_nothing() -> None:
    bench = Bench()
    bench.finalize(A1)
    b2 = block(2, A1.header)
    other = block(1, GENESIS, b"other")
    for same_height in (A1, other):
        bench.adopt(FinalBlock(same_height, Finality((), certificate(FINALIZE, 1, same_height.header.hash))))
    assert bench.simplex.tree.root == A1.header
    bench.adopt(FinalBlock(b2, Finality((), certificate(FINALIZE, 2, b2.header.hash))))
    assert bench.simplex.tree.root == b2.header


def test_a_member_ahead_helps_one_behind_and_not_the_other_way() -> None:
    bench = Bench()
    bench.finalize(A1)
    bench.hear_certificates(certificate(NULLIFY, 2))
    helped = bench.simplex.catch_up_help(1)
    assert helped is not None
    assert [(c.kind, c.view) for c in helped.certificates] == [(FINALIZE, 1), (NULLIFY, 2)]
    behind = Bench(member=1)
    behind.hear_certificates(*helped.certificates)
    assert behind.view == 3
    assert bench.simplex.catch_up_help(3) is None


# -- rule 7: an invalid proposal ---------------------------------------------------------------------------------------


def test_a_proposal_that_does_not_execute_is_nullified_without_waiting() -> None:
    bench = Bench()
    bench.refused.add(A1.header.hash)
    bench.hear_proposal(proposal(A1))
    assert bench.votes() == [(NULLIFY, 1, ZERO_HASH)]


def test_a_proposal_found_invalid_before_consensus_saw_it_is_nullified_in_its_view_only() -> None:
    bench = Bench()
    bench.hear_invalid(2)
    assert bench.votes() == []
    bench.hear_invalid(1)
    assert bench.votes() == [(NULLIFY, 1, ZERO_HASH)]


def test_a_view_voted_for_is_not_nullified_because_of_a_second_invalid_proposal() -> None:
    bench = Bench()
    bench.hear_proposal(proposal(A1))
    bench.sent()
    bench.hear_invalid(1)
    assert bench.votes() == []


# -- rule 9: a member whose votes are lost -----------------------------------------------------------------------------


def test_an_abstaining_member_follows_but_signs_nothing_up_to_that_view() -> None:
    bench = Bench(abstain_through=2)
    bench.finalize(A1)
    bench.tick(1_000)
    assert bench.votes() == []
    assert bench.simplex.tree.root == A1.header
    second = block(2, A1.header, b"b")
    bench.hear_proposal(proposal(second, certificate(FINALIZE, 1, A1.header.hash, (1, 2, 3))), 1_000)
    bench.hear_certificates(certificate(NOTARIZE, 2, second.header.hash, (1, 2, 3)), now=1_000)
    assert bench.votes() == []
    third = block(3, second.header, b"c")
    bench.hear_proposal(proposal(third, certificate(NOTARIZE, 2, second.header.hash, (1, 2, 3))), 1_000)
    assert bench.votes() == [(NOTARIZE, 3, third.header.hash)]


def test_an_abstaining_leader_does_not_propose() -> None:
    bench = Bench(member=1)
    assert bench.turn is not None
    bench.simplex.abstain_through(1, 0)
    bench.follow()
    assert bench.turn is None


def test_the_greatest_view_voted_in_counts_votes_of_before_a_restart() -> None:
    bench = Bench()
    for view in (1, 2, 3):
        bench.tick()
        bench.sent()
        bench.hear_certificates(certificate(NULLIFY, view, ZERO_HASH, (1, 2, 3)))
    assert bench.simplex.views.voted == 3
    bench.start()
    assert bench.view == 1
    assert bench.simplex.views.voted == 3
