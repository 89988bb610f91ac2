"""Simplex consensus (Chan and Pass, https://eprint.iacr.org/2023/463): the state machine of one committee member.

Time is cut into views; each has one leader and ends with its block notarized, or nullified. Blocks form a tree by parent;
a finalized block and its ancestors are the chain.

    enter v (holding a certificate for v-1, or a finalization)   -> arm the timer
    proposal for v: from its leader, the parent notarized or final, every view between nullified, executes
                               -> PERSIST, vote notarize(v, b)                       once per view
    timer                      -> unless I voted finalize(v): PERSIST, vote nullify(v); re-arm; retransmit
    2f+1 notarize(v, b)        -> unless I voted nullify(v): PERSIST the certificate, vote finalize(v, b);   enter v+1
    2f+1 nullify(v)            -> enter v+1
    2f+1 finalize(v, b)        -> b and all its ancestors are final;                  enter v+1

Why it is safe: finalize(v, b) by 2f+1 means f+1 honest members never vote nullify(v), so no nullification of v can form, so
every later proposal must build on the block notarized in v, and two blocks of one view cannot both be notarized.

Rules that are easy to get wrong, each with a test of its own:

1. Persist before sending. The notarize vote goes to disk with the proposal and its justification, the finalize vote with
   the notarization it rests on: after a power cut of everybody, somebody still has what the others need.
2. A certificate that is known already still re-runs everything that could advance on it.
3. After a restart a member goes on at the view after its last final block, with its votes reloaded and sent again.
4. Every change of view re-arms the timer. The timeout doubles on failure, up to 8 times, and resets on success.
5. A body that is missing is asked for, from one member at a time, again on the timer; never a storm.
6. Buffers are bounded: votes at most MAX_VIEWS_AHEAD views ahead, two proposals per view (the second is evidence).
7. A leader not heard from for a while is skipped at once, and so is one whose proposal is invalid: the view is nullified
   without waiting for the timer. Nullifying is always safe.
8. Nobody can lead without a certificate for every view since the last final block; but who is handed one jumps over views,
   and who restarts forgets. So votes and certificates of all these views are repeated, a few at a time, in turn; and a view
   left behind without a certificate is nullified late, unless finalize was voted there. That is as safe as in time, and
   enough: a finalize vote keeps its notarization on disk (rule 1), so either somebody repeats that or all can nullify.
9. A member whose own votes may be lost (a new disk) abstains from every view it may have voted in.

How to drive it: tell it of an event, then perform what ``next_effect`` returns, one by one, until that is None. What is to be
executed is answered with ``on_executed`` before the next effect is asked for. The class knows nothing of clocks, sockets,
disks and ledgers: ``now`` (ms, monotonic) comes with each event.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic

from msgspec import Struct

from node.consensus.fetching import Fetching
from node.consensus.journal import FinalizeRecord, JournalRecord, journaled
from node.consensus.liveness import Liveness
from node.consensus.round import MAX_PROPOSALS, Seat
from node.consensus.tree import Draft, Missing, PendingBlock, Tree, Verdict
from node.consensus.views import Views
from node.effects import Broadcast, Journal, Send
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, FinalBlock, Finality, Vote, VoteKind
from node.protocol.crypto import ZERO_HASH
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.messages import Ballot, BodyReply, Certified, Proposal
from node.protocol.reports import Notable

_MAX_BACKOFF = 8
_REPEATED_VIEWS = 4


class Diverged(RuntimeError):
    """A final block does not execute here: more than f members are faulty, or this one's state is damaged."""


class Timeouts(Struct, frozen=True):
    """Milliseconds. ``view``: a view with a live leader ends within it. ``retransmit``: between repetitions when it does
    not. ``skip``: silence after which a leader is taken for dead."""

    view: int
    retransmit: int
    skip: int


class Turn(Struct, frozen=True):
    """This member may propose: in ``view``, on the executed block ``parent``."""

    view: int
    parent: bytes
    notarization: Certificate | None
    nullifications: tuple[Certificate, ...]


class Execute(Struct, Generic[Draft], frozen=True):
    """Is this block valid on its parent, which was executed before or is the last final one? Answer with ``on_executed``."""

    block_hash: bytes
    block: Block
    draft: Draft | None


class Finalized(Struct, Generic[Draft], frozen=True):
    """A block that was executed became final; its parent did just before."""

    final: FinalBlock
    draft: Draft


Said = Journal | Broadcast | Send | Notable


class Simplex(Generic[Draft]):
    """One member of one committee in one epoch.

    ``final``: header of the last final block, with the certificate for exactly it if there is one. ``records``: what this
    member had persisted (rule 3). ``abstain_through``: no votes in views up to this one (rule 9).

    Attributes:
        tree: the blocks after the last final one, which is its root. views: what is known of the views after it.
        turn: the proposal this member may make, once there is no next effect; None: not its view, made already, or the parent
            is not at hand.
        view: the current one. ``deadline``: when to call ``tick`` at the latest (ms, monotonic).
        view_timeouts: views given up on a timer since the start.

    Raises:
        Diverged: by ``next_effect``, when a final block does not execute.
    """

    def __init__(
        self,
        seat: Seat,
        final: Header,
        certificate: Certificate | None,
        timeouts: Timeouts,
        records: Sequence[JournalRecord],
        now: int,
        abstain_through: int = 0,
    ) -> None:
        self.seat = seat
        self._electorate = seat.electorate
        self._timeouts = timeouts
        self._now = now
        self._final_certificate = certificate
        self.view = final.view
        self.deadline = 0
        self.view_timeouts = 0
        self.tree: Tree[Draft] = Tree(final)
        self.views = Views(seat.electorate, final.view)
        self._effects: deque[Said | Execute[Draft] | Finalized[Draft]] = deque()
        self._fetching = Fetching(seat.member, seat.electorate, self.views)
        self._adoptable: deque[FinalBlock] = deque()
        self._proven: bytes | None = None
        self._entry: Certificate | None = None
        self._best_finalization: Certificate | None = None
        self._liveness = Liveness(seat.member, seat.electorate, timeouts.skip, now)
        self._failures = 0
        self._repeated = 0
        self._abstain_through = abstain_through
        self.turn: Turn | None = None
        self._is_settled = self._is_due = False
        self._reload(records)
        self._enter(self.view + 1)

    # -- what the member may do in this view ------------------------------------------------------------------------

    def leader_of(self, view: int) -> int:
        return view % len(self._electorate.keys)

    def propose(self, turn: Turn, block: Block, draft: Draft, now: int) -> bool:
        """Propose a block built and executed for ``turn``. Returns False when that has passed meanwhile."""
        if self.turn is None or turn.view != self.turn.view or not self.tree.is_ready(turn.parent):
            return False
        self._happens(now)
        vote = self.seat.vote(VoteKind.NOTARIZE, turn.view, block.header.hash)
        pending = self.tree.add(vote.block, block)
        pending.draft, pending.verdict = draft, Verdict.VALID
        self._accept(Proposal(block, vote, turn.notarization, turn.nullifications), vote)
        return True

    # -- events ----------------------------------------------------------------------------------------------------

    def expects(self, proposal: Proposal) -> bool:
        """Whether a proposal could still matter: in the window of views, signed by its leader, not seen, not one too many."""
        header = proposal.block.header
        known = self.views.read(header.view).proposals
        return (
            self.views.final < header.view <= self.view + MAX_VIEWS_AHEAD
            and len(known) < MAX_PROPOSALS
            and all(other.block.header != header for other in known)
            and self._is_leaders(proposal)
        )

    def _is_leaders(self, proposal: Proposal) -> bool:
        """Whether the leader of its view signed this header, and the payload is the header's: else somebody else made it up,
        and the leader is not to blame."""
        header, vote = proposal.block.header, proposal.vote
        return (
            header.proposer == self.leader_of(header.view)
            and (vote.kind, vote.view, vote.block, vote.signer) == (VoteKind.NOTARIZE, header.view, header.hash, header.proposer)
            and proposal.block.payload_root() == header.payload_root
            and vote.is_valid(self._electorate)
        )

    def on_proposal(self, proposal: Proposal, draft: Draft | None, now: int) -> None:
        """A proposal, its transactions' signatures checked. Ignored unless ``expects`` it."""
        self._happens(now)
        if not self.expects(proposal):
            return
        vote = proposal.vote
        known = self.views.write(vote.view).proposals
        if known:
            self._effects.append(Notable(f"member {vote.signer} proposed two blocks in view {vote.view}"))
        known.append(proposal)
        self._liveness.heard(vote.signer, now)
        self.tree.add(vote.block, proposal.block, draft)
        justification = (proposal.notarization,) if proposal.notarization is not None else ()
        for certificate in justification + proposal.nullifications:
            if not self._on_certificate(certificate):
                break
        self.on_vote(vote, now)

    def on_invalid_proposal(self, view: int, now: int) -> None:
        """The leader of ``view`` proposed what the caller found invalid: nothing else is to be waited for (rule 7)."""
        self._happens(now)
        if view == self.view and VoteKind.NOTARIZE not in self.views.read(view).own:
            self._nullify(view)

    def on_vote(self, vote: Vote, now: int) -> None:
        """A vote by any member. Ignored when invalid or out of the window of views."""
        self._happens(now)
        if not self.views.final < vote.view <= self.view + MAX_VIEWS_AHEAD or vote.signer >= len(self._electorate.keys):
            return
        votes = self.views.write(vote.view)
        if votes.contradicts(vote, self._electorate):
            self._effects.append(Notable(f"member {vote.signer} voted twice in view {vote.view}"))
            return
        if vote.view >= self.view - 1:
            self._liveness.heard_vote(vote, now)
        certificate = votes.count(vote, self._electorate)
        if certificate is not None:
            self._on_held(certificate)

    def on_certificates(self, certificates: tuple[Certificate, ...], now: int) -> None:
        """Certificates another member holds."""
        self._happens(now)
        for certificate in certificates:
            self._on_certificate(certificate)

    def on_block(self, block: Block, now: int) -> None:
        """A body this member asked for."""
        self._happens(now)
        block_hash = block.header.hash
        if self._fetching.wants(block_hash) and block.payload_root() == block.header.payload_root:
            self._fetching.arrived(block_hash)
            self.tree.add(block_hash, block)

    def wants(self, block_hash: bytes) -> bool:
        """Whether the body with this hash has been asked for."""
        return self._fetching.wants(block_hash)

    def on_body_request(self, peer: bytes, block_hash: bytes) -> None:
        """Another member lacks a body."""
        if (pending := self.tree.get(block_hash)) is not None:
            self._effects.append(Send(peer, BodyReply(pending.block)))

    def on_final_blocks(self, blocks: Sequence[FinalBlock], now: int) -> None:
        """Final blocks from a peer (catch-up), lowest first: each is adopted that proves itself and follows on the last one."""
        self._happens(now)
        self._adoptable = deque(blocks)

    def on_executed(self, block_hash: bytes, draft: Draft | None) -> None:
        """The answer to ``Execute``: what is to be kept with the block, or None when it is not valid."""
        pending = self.tree.get(block_hash)
        assert pending is not None, "only what is in the tree is executed"
        self._is_settled = False
        pending.draft = draft
        pending.verdict = Verdict.REFUSED if draft is None else Verdict.VALID

    def abstain_through(self, view: int, now: int) -> None:
        """It is known now: no view after this one can have a vote of this member that is lost (rule 9)."""
        self._happens(now)
        self._abstain_through = view

    def tick(self, now: int) -> None:
        """Time passed."""
        if now >= self.deadline:
            self._happens(now)
            self._is_due = True

    def catch_up_help(self, view: int) -> Certified | None:
        """What a member at an earlier ``view`` needs to join this one."""
        held = [c for c in (self._best_finalization or self._final_certificate, self._entry) if c is not None]
        return Certified(tuple(held)) if held and view < self.view else None

    # -- what follows ----------------------------------------------------------------------------------------------

    def next_effect(self) -> Said | Execute[Draft] | Finalized[Draft] | None:
        """The next thing to be done on account of all events so far; None when there is nothing more."""
        while not self._effects:
            if self._is_settled:
                return None
            if self._advance():
                continue
            if self._is_due and self._now >= self.deadline:
                self._time_out()
            else:
                self._settle()
        return self._effects.popleft()

    def _settle(self) -> None:
        """Nothing more follows from what is known."""
        self._is_settled, self._is_due = True, False
        turn = self._turn()
        self.turn = turn if turn is not None and self.tree.is_ready(turn.parent) else None

    def _happens(self, now: int) -> None:
        """An event: something may follow from it."""
        self._now, self._is_settled, self.turn = now, False, None

    def _advance(self) -> bool:
        """Take one step that what is known allows. Returns False when there is none."""
        view, root = self.view, self.tree.root
        for step in (self._vote_for_proposal, self._follow_certificates, self._finish, self._adopt, self._prepare_turn):
            step()
            if self._effects or self.view != view or self.tree.root is not root:
                return True
        return False

    def _vote_for_proposal(self) -> None:
        """Vote for a proposal of the current view, if one deserves it."""
        current = self.views.read(self.view)
        if VoteKind.NOTARIZE in current.own or self.view <= self._abstain_through:
            return
        for proposal in current.proposals:
            block_hash = proposal.vote.block
            if not self.tree.is_refused(block_hash) and self._is_justified(proposal.block.header):
                if self.tree.is_ready(block_hash):
                    self._accept(proposal, self.seat.vote(VoteKind.NOTARIZE, self.view, block_hash))
                    return
                self._make_ready(block_hash, self.view)
                if self._effects:
                    return
            if self.tree.is_refused(block_hash) and self._is_justified(proposal.block.header):
                self._nullify(self.view)

    def _is_justified(self, header: Header) -> bool:
        return self.views.justify(header, self.tree.root_hash)

    def _follow_certificates(self) -> None:
        """Certificates of the current view that came before it did (rule 2)."""
        for certificate in self.views.read(self.view).certificates:
            self._on_held(certificate)

    def _finish(self) -> None:
        """Make final what the best finalization makes final, as soon as the blocks are at hand."""
        best = self._best_finalization
        if best is None or best.view <= self.views.final:
            return
        if not self.tree.is_ready(best.block):
            self._make_ready(best.block, best.view)
            if self.tree.is_refused(best.block):
                raise Diverged(f"final block {best.block.hex()[:16]} of view {best.view} does not execute here")
            return
        chain = list(self.tree.branch(best.block))[::-1]
        if chain[0].block.header.parent != self.tree.root_hash:
            raise Diverged(f"final block {best.block.hex()[:16]} does not build on the last final one")
        headers = tuple(pending.block.header for pending in chain)
        for i, header in enumerate(headers):
            own_certificate = self.views.read(header.view).certificate(VoteKind.FINALIZE)
            finality = Finality((), own_certificate) if own_certificate is not None else Finality(headers[i + 1 :], best)
            self._emit_final(chain[i], finality)
        self._failures = 0
        self._set_final(headers[-1], best)
        self._enter(best.view + 1)  # after a restart the view may lag behind: votes of final views are forgotten

    def _adopt(self) -> None:
        """Make the next block of a peer's final: it proves itself. The rest is dropped with the first that does not."""
        while self._adoptable and self._adoptable[0].block.header.height <= self.tree.root.height:
            self._adoptable.popleft()
        if not self._adoptable:
            return
        final = self._adoptable[0]
        header, finality = final.block.header, final.finality
        block_hash = header.hash
        if block_hash != self._proven:
            follows = header.parent == self.tree.root_hash and final.block.payload_root() == header.payload_root
            if not follows or not finality.proves(header, self._electorate):
                self._adoptable.clear()
                return
            self._proven = block_hash
        pending = self.tree.add(block_hash, final.block)
        if pending.verdict is Verdict.OPEN:
            self._execute(pending)
            return
        if pending.verdict is Verdict.REFUSED:
            raise Diverged(f"final block {header.height} does not execute here")
        self._adoptable.popleft()
        self._emit_final(pending, finality)
        self._set_final(header, None if finality.descendants else finality.certificate)
        self._enter(finality.certificate.view + 1)

    def _prepare_turn(self) -> None:
        """A leader needs its parent executed before it can propose."""
        turn = self._turn()
        if turn is not None and not self.tree.is_ready(turn.parent):
            self._make_ready(turn.parent, turn.notarization.view if turn.notarization is not None else self.view)

    def _turn(self) -> Turn | None:
        """What this member may propose in this view, if the parent is at hand."""
        own = self.views.read(self.view).own
        if self.leader_of(self.view) != self.seat.member or VoteKind.NOTARIZE in own or VoteKind.NULLIFY in own:
            return None
        if self.view <= self._abstain_through or (bridge := self.views.bridge(self.view)) is None:
            return None
        if bridge.notarization is None:
            return Turn(self.view, self.tree.root_hash, self._final_certificate, bridge.nullifications)
        return Turn(self.view, bridge.notarization.block, bridge.notarization, bridge.nullifications)

    # -- blocks ----------------------------------------------------------------------------------------------------

    def _make_ready(self, block_hash: bytes, view: int) -> None:
        """Take the next step towards executing a block."""
        match self.tree.obstacle(block_hash, view):
            case PendingBlock() as pending:
                self._execute(pending)
            case Missing(missing, its_view):
                self._effects.extend(self._fetching.ask(missing, its_view, self._now))

    def _execute(self, pending: PendingBlock[Draft]) -> None:
        self._effects.append(Execute(pending.block_hash, pending.block, pending.draft))

    def _emit_final(self, pending: PendingBlock[Draft], finality: Finality) -> None:
        assert pending.draft is not None, "it was executed"
        self._effects.append(Finalized(FinalBlock(pending.block, finality), pending.draft))

    def _set_final(self, header: Header, certificate: Certificate | None) -> None:
        self._final_certificate = certificate
        if self._best_finalization is not None and self._best_finalization.view <= header.view:
            self._best_finalization = None
        self.views.prune(header.view)
        self.tree.prune(header)
        self._fetching.clear()

    # -- votes and certificates ------------------------------------------------------------------------------------

    def _on_certificate(self, certificate: Certificate) -> bool:
        """Returns False for an invalid one: there is no point in looking at more from the same hand."""
        if certificate.view <= self.views.final:
            return True
        if not self.views.keep(certificate):
            return False
        self._on_held(certificate)
        return True

    def _on_held(self, certificate: Certificate) -> None:
        """A certificate is held, new or known before: whatever follows from it, follows (rule 2)."""
        if certificate.kind is VoteKind.NOTARIZE:
            own = self.views.read(certificate.view).own
            if VoteKind.NULLIFY not in own and VoteKind.FINALIZE not in own:
                self._finalize(certificate)
        elif certificate.kind is VoteKind.FINALIZE:
            self._note_finalization(certificate)
        if certificate.view >= self.view:
            if certificate.kind is not VoteKind.NULLIFY:
                self._failures = 0
            self._entry = certificate
            self._enter(certificate.view + 1)

    def _enter(self, view: int) -> None:
        if view <= self.view:
            return
        self.view = view
        self.deadline = self._now + self._timeouts.view * self._backoff()
        self._say_again(view)
        if self._liveness.is_dead(self.leader_of(view), self._now):
            self._nullify(view)

    def _accept(self, proposal: Proposal, vote: Vote) -> None:
        """Vote notarize, the proposal on disk before the vote leaves (rule 1)."""
        known = self.views.write(vote.view)
        if proposal not in known.proposals:
            known.proposals.append(proposal)
        self._effects.append(journaled(vote.view, proposal))
        is_own = proposal.block.header.proposer == self.seat.member
        self._cast(vote, vote, Broadcast(proposal) if is_own else Broadcast(Ballot(vote)))

    def _nullify(self, view: int) -> bool:
        """Vote nullify, unless that or finalize was voted in the view before. Returns whether it did."""
        own = self.views.read(view).own
        if VoteKind.NULLIFY in own or VoteKind.FINALIZE in own or view <= self._abstain_through:
            return False
        vote = self.seat.vote(VoteKind.NULLIFY, view, ZERO_HASH)
        self._cast(vote, vote, Broadcast(Ballot(vote)))
        return True

    def _finalize(self, notarization: Certificate) -> None:
        if notarization.view <= self._abstain_through:
            return
        vote = self.seat.vote(VoteKind.FINALIZE, notarization.view, notarization.block)
        self._cast(vote, FinalizeRecord(vote, notarization), Broadcast(Ballot(vote)))

    def _cast(self, vote: Vote, record: JournalRecord, message: Broadcast) -> None:
        """Vote: on disk, then on the way (rule 1), then counted."""
        self.views.write(vote.view).own[vote.kind] = vote
        self._effects += (journaled(vote.view, record), message)
        self._count_own(vote)

    def _count_own(self, vote: Vote) -> None:
        """Count an own vote; it may complete a finalization of any view after the last final one."""
        certificate = self.views.write(vote.view).count(vote, self._electorate)
        if certificate is not None and certificate.kind is VoteKind.FINALIZE:
            self._note_finalization(certificate)

    def _note_finalization(self, certificate: Certificate) -> None:
        if self._best_finalization is None or certificate.view > self._best_finalization.view:
            self._best_finalization = certificate

    def _time_out(self) -> None:
        """The deadline passed: give the view up, unless it is about to be final, and say again what was said."""
        if self._nullify(self.view):
            self.view_timeouts += 1
            self._failures += 1
        self._retransmit()
        self.deadline = self._now + self._timeouts.retransmit * self._backoff()

    # -- saying it again -------------------------------------------------------------------------------------------

    def _reload(self, records: Sequence[JournalRecord]) -> None:
        """Take back what this member had persisted of views after its last final block."""
        own: list[Vote] = []
        for record in records:
            vote = record if isinstance(record, Vote) else record.vote
            if vote.view <= self.views.final:
                continue
            known = self.views.write(vote.view)
            match record:
                case Proposal(block, _, notarization, nullifications):
                    known.proposals.append(record)
                    self.tree.add(vote.block, block)
                    for certificate in (*((notarization,) if notarization is not None else ()), *nullifications):
                        self._take_back(certificate)
                    continue
                case FinalizeRecord(_, notarization):
                    self._take_back(notarization)
            known.own[vote.kind] = vote
            own.append(vote)
        for vote in own:
            self._count_own(vote)

    def _take_back(self, certificate: Certificate) -> None:
        if certificate.view > self.views.final:
            self.views.keep(certificate)

    def _retransmit(self) -> None:
        """Repeat the current view, and of those since the last final block a few each time (rule 8)."""
        self._say_again(self.view)
        first = self._repeated if self.views.final < self._repeated < self.view else self.views.final + 1
        self._repeated = min(first + _REPEATED_VIEWS, self.view)
        certificates: list[Certificate] = []
        for view in range(first, self._repeated):
            self._say_again(view)
            held = self.views.read(view).certificates
            certificates += held
            if not held:
                self._nullify(view)
        if certificates:
            self._effects.append(Broadcast(Certified(tuple(certificates))))
        if (help_for_all := self.catch_up_help(0)) is not None:
            self._effects.append(Broadcast(help_for_all))
        self._effects.extend(self._fetching.ask_again(self._now))

    def _say_again(self, view: int) -> None:
        """Repeat own votes of a view, the leader's with its proposal: all are on disk already."""
        known = self.views.read(view)
        for vote in known.own.values():
            mine = [proposal for proposal in known.proposals if proposal.vote == vote]
            self._effects.append(Broadcast(mine[0] if mine else Ballot(vote)))

    def _backoff(self) -> int:
        return min(_MAX_BACKOFF, 1 << min(self._failures, 3))
