"""The rules of ``node.consensus.simplex``: a single member, hand-made votes, and what it says."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Struct, structs

from node.consensus import simplex
from node.consensus.journal import remembered
from node.consensus.patience import Timeouts
from node.consensus.round import Round, Seat
from node.consensus.simplex import Diverged, Execute, Finalized, Said, Simplex, Turn
from node.effects import Ban, Broadcast, Journal, LoseVotes, Send
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, Electorate, FinalBlock, Finality, Vote, VoteKind, make_certificate, sign_vote
from node.protocol.codec import DecodeError
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.merkle import EMPTY_ROOT
from node.protocol.messages import Ballot, BodyRequest, Certified, PeerMessage, Proposal, TransactionsRequest
from node.protocol.reports import Notable

NOTARIZE, NULLIFY, FINALIZE = VoteKind.NOTARIZE, VoteKind.NULLIFY, VoteKind.FINALIZE
KEYS = [KeyPair(bytes([7] * 31 + [i + 1])) for i in range(7)]
TIMEOUTS = Timeouts(view=100, busy=80, retransmit=50)
DOCUMENT = bytes([7] * 32)
_ROOTS = (ZERO_HASH,) * 7
BODIES: dict[bytes, Block] = {}
"""Blocks proposed here: their transactions are there for who hears of them."""
GENESIS = Header(DOCUMENT, 3, 0, 0, ZERO_HASH, ZERO_HASH, 0, 0, *_ROOTS, bytes(8))


# -- what is heard -------------------------------------------------------------------------------------------------------


def electorate_of(size: int, document: bytes = DOCUMENT, shard: int = 3) -> Electorate:
    return Electorate(b"unittest", document, shard, tuple(key.public for key in KEYS[:size]))


FOUR = electorate_of(4)
LIAR = KEYS[3].public
"""Who brings certificates and final blocks."""


def block(view: int, parent: Header, content: bytes = b"", members: int = 4) -> Block:
    roots = (Block(GENESIS, (), (content,)).payload_root(), EMPTY_ROOT, EMPTY_ROOT, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH)
    skip = parent if parent.height % 2 == 0 else GENESIS  # right up to height 5
    place = (DOCUMENT, 3, view, parent.height + 1, parent.hash, skip.hash, 0)
    return Block(Header(*place, view % members, *roots, bytes(8)), (), (content,))


A1 = block(1, GENESIS, b"a")
B2 = block(2, A1.header)
C3 = block(3, B2.header)
OTHER = block(1, GENESIS, b"other")


def vote(kind: VoteKind, view: int, signer: int, block_hash: bytes = ZERO_HASH, electorate: Electorate = FOUR) -> Vote:
    return sign_vote(KEYS[signer], signer, electorate, kind, view, block_hash)


def certificate(
    kind: VoteKind, view: int, block_hash: bytes = ZERO_HASH, signers: Sequence[int] = (0, 1, 2), electorate: Electorate = FOUR
) -> Certificate:
    return make_certificate([vote(kind, view, signer, block_hash, electorate) for signer in signers], electorate)


def nullified(view: int, *signers: int) -> Certificate:
    return certificate(NULLIFY, view, signers=signers or (1, 2, 3))


def notarized(of: Block, *signers: int) -> Certificate:
    return certificate(NOTARIZE, of.header.view, of.header.hash, signers or (1, 2, 3))


def finalized(of: Block, *signers: int) -> Certificate:
    return certificate(FINALIZE, of.header.view, of.header.hash, signers or (1, 2, 3))


def final(of: Block, *signers: int) -> FinalBlock:
    return FinalBlock(of, Finality((), finalized(of, *signers)))


def proposal(of: Block, notarization: Certificate | None = None, *nullifications: Certificate) -> Proposal:
    header = of.header
    BODIES[header.hash] = of
    return Proposal(of.compact(), vote(NOTARIZE, header.view, header.proposer, header.hash), notarization, nullifications)


def votes(kind: VoteKind, of: Block | int, *signers: int) -> list[Vote]:
    """For a block, or to nullify a view."""
    view, block_hash = (of, ZERO_HASH) if isinstance(of, int) else (of.header.view, of.header.hash)
    return [vote(kind, view, signer, block_hash) for signer in signers or (1, 2, 3)]


QUORUMS = votes(NOTARIZE, A1) + votes(FINALIZE, A1)
FORGED_OWN = structs.replace(vote(NULLIFY, 1, 1), signer=0)


class Invalid(Struct, frozen=True):
    """The caller found the proposal of a view invalid."""

    view: int


class Restart(Struct, frozen=True):
    """With the journal as it is, on the last final block, if that was stored."""

    stored: FinalBlock | None = None


class Work(Struct, frozen=True):
    """A block would not be empty."""


class Propose(Struct, frozen=True):
    """The turn is taken."""

    block: Block


class Lacking(Struct, frozen=True):
    """A proposal of which the third and the last transaction are not here."""

    proposal: Proposal


class Complete(Struct, frozen=True):
    """They came."""

    proposal: Proposal


Heard = Proposal | Vote | Certificate | Block | FinalBlock | Invalid | Restart | Propose | Work | Lacking | Complete | int
"""A block: a body. An int: time passes until then (ms)."""

Told = tuple[VoteKind, int, bytes] | bytes
"""A vote, or the block_hash of a body asked for."""


class Bench:
    """One member, its disk, what it wants done, and the blocks it had executed. Every event is followed by what follows."""

    def __init__(
        self, member: int = 0, electorate: Electorate = FOUR, has_votes: bool = True, refused: Sequence[Block] = ()
    ) -> None:
        self.seat = Seat(KEYS[member], member, electorate)
        self.journal: dict[tuple[int, str], Journal] = {}
        self.refused = {block.header.hash for block in refused}
        self.executed: list[bytes] = []
        self.now = 0
        self.start(has_votes=has_votes)

    def start(self, stored: FinalBlock | None = None, has_votes: bool = True) -> None:
        self.effects: list[Said] = []
        self.finalized: list[FinalBlock] = []
        records = [remembered(record) for record in self.journal.values()]
        root, proof = (GENESIS, None) if stored is None else (stored.block.header, stored.finality.certificate)
        peaks = {0: GENESIS.hash, root.height: root.hash}
        self.simplex: Simplex[str] = Simplex(self.seat, root, peaks, proof, TIMEOUTS, records, self.now, has_votes)
        self.follow()

    def follow(self) -> None:
        while (effect := self.simplex.next_effect()) is not None:
            match effect:
                case Execute(block_hash):
                    self.executed.append(block_hash)
                    self.simplex.on_executed(block_hash, None if block_hash in self.refused else "executed")
                case Finalized(one):
                    self.finalized.append(one)
                case _:
                    self.effects.append(effect)

    def hear(self, *heard: Heard) -> None:
        for one in heard:
            match one:
                case Invalid(view):
                    self.simplex.on_invalid_proposal(view, self.now)
                case Restart(stored):
                    self.take()
                    self.start(stored)
                case Propose(mine):
                    self.simplex.propose(self.turn, mine, "own", self.now)
                case Work():
                    self.simplex.work_waits(self.now)
                case Lacking(welcome):
                    if self.simplex.welcomes(welcome, self.now):
                        self.simplex.lacks(welcome, (2, 4), self.now)
                case Complete(whole):
                    self.complete(whole)
                case int():
                    self.now = one
                    self.simplex.tick(one)
                case _:
                    self.receive(one)
            self.follow()

    def receive(self, message: Proposal | Vote | Certificate | Block | FinalBlock) -> None:
        match message:
            case Proposal():
                if self.simplex.welcomes(message, self.now):
                    self.complete(message)
            case Vote() if message.signer == self.seat.member:
                self.simplex.on_own_vote(LIAR, message, self.now)
            case Vote():
                self.simplex.on_vote(message, self.now)
            case Certificate():
                self.simplex.on_certificates(LIAR, (message,), self.now)
            case Block():
                self.simplex.on_block(message, self.now)
            case FinalBlock():
                self.simplex.on_final_blocks(LIAR, (message,), self.now)

    def complete(self, whole: Proposal) -> None:
        self.simplex.is_whole(whole, self.now)
        self.simplex.on_proposal(whole, BODIES[whole.vote.block], "payload", self.now)

    def wait(self) -> None:
        """Until the deadline."""
        self.hear(self.simplex.deadline)

    @property
    def view(self) -> int:
        return self.simplex.view

    @property
    def turn(self) -> Turn:
        assert self.simplex.turn is not None
        return self.simplex.turn

    @property
    def final_blocks(self) -> list[Block]:
        return [one.block for one in self.finalized]

    def take(self) -> list[PeerMessage]:
        """Persist the journal's effects, and return the messages."""
        effects, self.effects = self.effects, []
        self.journal |= {(e.view, e.slot): e for e in effects if isinstance(e, Journal)}
        return [e.message for e in effects if isinstance(e, Broadcast | Send)]

    def said(self) -> list[Told]:
        """Votes and requests for bodies among the messages, each once."""
        found: list[Told] = []
        for message in self.take():
            if isinstance(message, Ballot | Proposal):
                found.append((message.vote.kind, message.vote.view, message.vote.block))
            elif isinstance(message, BodyRequest):
                found.append(message.hash)
        return list(dict.fromkeys(found))

    def banned(self) -> list[int]:
        """Who is to be dropped."""
        return [FOUR.keys.index(effect.peer) for effect in self.effects if isinstance(effect, Ban)]

    def notables(self) -> list[str]:
        return [effect.text for effect in self.effects if isinstance(effect, Notable)]


# -- stories: what is heard, step by step, and what is said to it ----------------------------------------------------------


def yes(to: Block) -> Told:
    return NOTARIZE, to.header.view, to.header.hash


def done(to: Block) -> Told:
    return FINALIZE, to.header.view, to.header.hash


def no(view: int) -> Told:
    return NULLIFY, view, ZERO_HASH


class On:
    """A step. ``says``: all votes and requests for bodies that follow; None: whatever. ``never``: what must not be among them.
    ``view``: afterwards; 0: whichever. ``final``: since the start. ``leads``: what to build on, when it is this member's turn."""

    def __init__(
        self, *heard: Heard, says: Sequence[Told] | None = (), never: Told | None = None, view: int = 0,
        final: list[Block] | None = None, leads: Header | None = None,
    ) -> None:  # fmt: skip
        self.heard, self.says, self.never, self.view, self.final, self.leads = heard, says, never, view, final, leads


def story(name: str, *steps: On, **bench: Any) -> Any:
    return pytest.param(bench, steps, id=name)


THROUGH_B2 = FinalBlock(A1, Finality((B2.header,), finalized(B2, 0, 1, 2)))
WIDE = proposal(block(19, GENESIS), None, *(nullified(view) for view in range(3, 19)))
FAR = 1 + MAX_VIEWS_AHEAD

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


# -- rule 7: leaders that fail ---------------------------------------------------------------------------------------------

SECOND = block(2, GENESIS)
"""Of member 2, whose turns are views 2, 6, 10 and so on."""


def test_who_is_dead_is_not_tried_before_it_is_heard_of() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2))
    assert skipped(bench, 6, 5) == [True] * 5
    bench.hear(vote(NOTARIZE, bench.view, 2, bytes(32)))
    assert skipped(bench, 26, 3) == [True, True, False]


def skipped(bench: Bench, first: int, turns: int) -> list[bool]:
    """Whether member 2 is skipped in its turns from view ``first`` on. Between them blocks become final."""
    found = []
    for view in range(bench.view, first + 4 * turns):
        assert bench.view == view
        if view % 4 == 2:
            found.append(no(view) in bench.said())
            bench.hear(nullified(view))
        else:
            bench.take()
            bench.hear(nullified(view) if view % 4 == 1 else final(block(view, bench.simplex.tree.root)))
    return found


@pytest.mark.parametrize(
    ("heard", "skips"),
    [
        ([1_100, nullified(2)], True),
        ([Invalid(2), nullified(2)], True),
        ([structs.replace(proposal(SECOND, None, nullified(1)))], True),
        ([nullified(2)], False),
        ([*votes(NULLIFY, 2, 1, 3), nullified(2)], False),
        ([nullified(3)], False),
        ([Work(), 1_049, proposal(SECOND, None, nullified(1)), notarized(SECOND)], True),
        ([Work(), 1_006, proposal(SECOND, None, nullified(1)), notarized(SECOND)], False),
        ([1_049, proposal(SECOND, None, nullified(1)), Work(), notarized(SECOND)], False),
        ([Work(), 1_010, notarized(SECOND)], False),
    ],
    ids=[
        "its time passed",
        "its proposal is invalid",
        "its block does not execute",
        "others nullified its view",
        "so many did that this member joined them",
        "its view was jumped over",
        "it let work wait",
        "it did not let work wait for long",
        "there was no work",
        "its proposal did not come here, but to a quorum",
    ],
)
def test_who_failed_is_skipped_at_its_next_turn(heard: list[Heard], skips: bool) -> None:
    bench = Bench(refused=[SECOND] if len(heard) == 1 and isinstance(heard[0], Proposal) else [])
    bench.now = 1_000
    bench.hear(nullified(1))
    bench.hear(*heard)
    bench.hear(nullified(2))
    assert skipped(bench, 6, 1) == [skips]


def test_who_goes_on_failing_is_tried_ever_more_rarely() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2))
    tried = []
    for view in range(3, 3_200):
        bench.hear(vote(NOTARIZE, view, 2, bytes(32)))
        if view % 4 == 2:
            if no(view) not in bench.said():
                tried.append(view // 4)
                bench.wait()
            bench.hear(nullified(view))
        else:
            bench.take()
            bench.hear(nullified(view) if view % 4 == 1 else final(block(view, bench.simplex.tree.root)))
    assert tried == [2, 5, 10, 19, 36, 69, 134, 263, 520, 777], "its turns, with 1, 2, 4 ... 256, 256 between them"
    assert bench.simplex.view_timeouts == 11


def test_a_tried_leader_with_work_has_a_quarter_of_the_time_and_is_trusted_again_when_it_succeeds() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2), vote(NOTARIZE, 3, 2, bytes(32)))
    assert skipped(bench, 6, 1) == [True]
    skipped(bench, 10, 0)
    bench.hear(Work())
    assert bench.simplex.deadline - bench.now == 2 * (TIMEOUTS.retransmit // 4), "one view was given up"
    bench.hear(notarized(block(10, bench.simplex.tree.root)))
    assert skipped(bench, 14, 2) == [False, False]


def test_at_most_f_leaders_are_skipped_those_that_failed_most() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2), 300, nullified(3), nullified(4))
    bench.take()
    bench.hear(1_000, nullified(5), nullified(6), final(block(7, GENESIS)), nullified(8))
    said = bench.said()
    assert [no(view) in said for view in (6, 7, 9)] == [False, False, True], "1, 2 and 3 failed alike: 1 is skipped"


def test_after_two_rounds_without_a_final_block_nobody_is_skipped_and_all_have_the_full_time() -> None:
    bench = Bench()
    bench.hear(nullified(1), 100, nullified(2), *(nullified(view) for view in (3, 4, 5)))
    assert no(6) in bench.said()
    bench.hear(*(nullified(view) for view in (6, 7, 8)))
    assert bench.simplex.is_patient
    bench.hear(Work())
    assert bench.simplex.deadline - bench.now == 2 * TIMEOUTS.view, "one view was given up"
    bench.hear(nullified(9))
    assert no(10) not in bench.said()
    bench.hear(final(block(10, GENESIS)))
    assert not bench.simplex.is_patient


@pytest.mark.parametrize(("work", "given_up"), [(0, 80), (10, 90), (70, 100)])
def test_a_view_with_work_is_given_up_sooner(work: int, given_up: int) -> None:
    bench = Bench()
    bench.simplex.suspicion.came(1)
    bench.hear(work, Work(), given_up - 1)
    assert bench.said() == []
    bench.hear(given_up)
    assert bench.said() == [no(1)]


def test_a_leader_that_may_not_have_begun_keeps_work_waiting_for_a_quarter_of_the_time() -> None:
    """When an epoch begins some members come later than others."""
    bench = Bench()
    bench.hear(Work(), TIMEOUTS.retransmit // 4 - 1)
    assert bench.said() == []
    bench.hear(TIMEOUTS.retransmit // 4)
    assert bench.said() == [no(1)]


def test_f_and_one_nullify_votes_are_joined_but_not_against_a_finalize_vote() -> None:
    bench = Bench()
    bench.hear(*votes(NULLIFY, 1, 1))
    assert bench.said() == []
    bench.hear(*votes(NULLIFY, 1, 2))
    assert bench.said() == [no(1)]
    assert bench.view == 2


def test_the_leader_of_the_next_view_is_handed_the_certificate_unless_it_voted_on() -> None:
    for finalizes, handed in ((1, True), (2, False)):
        bench = Bench()
        bench.hear(proposal(A1), vote(FINALIZE, 1, finalizes, A1.header.hash), notarized(A1))
        sent = [effect for effect in bench.effects if isinstance(effect, Send)]
        assert sent == ([Send(KEYS[2].public, Certified((notarized(A1),)))] if handed else [])


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
