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
5. A body that is missing is asked for, from one member at a time, again on the timer; never a storm. Transactions of a proposal
   that are missing are asked of its leader alone, until a quorum has notarized it: then those who signed have it.
6. Bytes are bounded: votes at most MAX_VIEWS_AHEAD views ahead; of blocks only those of the current view, two (the second is
   evidence), and those a quorum notarized. A proposal brings the certificate that leads to its view, so it is never early:
   that, and the leader's signature, is checked before anything of it is kept. A block that is not empty gets no vote while those
   voted for since the last final one hold MAX_VOTED_BYTES.
7. A leader that fails is skipped for a while (``Suspicion``): its view is nullified on entering it. So is one whose proposal is
   invalid, and one that f+1 members nullify: one of them is honest, and members that suspect differently stay together. At most
   f are skipped, and after two rounds without a final block nobody is, and all have the full time (``Patience``): from any state
   of suspicion the next honest leader after an honest one makes a block final. Nullifying is always safe. Who enters a view
   hands its leader the certificate, so no one else can keep it late.
8. Nobody can lead without a certificate for every view since the last final block; but who is handed one jumps over views,
   and who restarts forgets. So votes and certificates of all these views are repeated, a few at a time, in turn; and a view
   left behind without a certificate is nullified late, unless finalize was voted there. That is as safe as in time, and
   enough: a finalize vote keeps its notarization on disk (rule 1), so either somebody repeats that or all can nullify.
9. A member without its votes (a new disk) signs nothing. One that meets a valid signature of its own, in a view after the last
   final one, that is not among its votes, runs on a disk that is not the one that signed: it deletes them, and signs nothing.
10. Who sends, under its own name, what no honest member sends - a signature that is not valid, a certificate, a final block, a
   justification - is dropped.

How to drive it: tell it of an event, then perform what ``next_effect`` returns, one by one, until that is None. What is to be
executed is answered with ``on_executed`` before the next effect is asked for. The class knows nothing of clocks, sockets,
disks and ledgers: ``now`` (ms, monotonic) comes with each event.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic

from msgspec import Struct

from node.consensus.adopting import Adopting, Forged
from node.consensus.fetching import Fetching
from node.consensus.journal import JournalRecord
from node.consensus.justification import build_bridge, is_canonical
from node.consensus.patience import Patience, Timeouts
from node.consensus.round import Seat
from node.consensus.tree import Draft, Missing, PendingBlock, Tree, Verdict
from node.consensus.views import Views
from node.consensus.voting import Voting
from node.effects import Ban, Broadcast, Journal, LoseVotes, Send
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, FinalBlock, Finality, Vote, VoteKind, path_heights
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.messages import Certified, Proposal, TransactionsRequest
from node.protocol.reports import Notable

MAX_PROPOSALS = 2
"""Kept of the current view; the second is evidence that its leader equivocates."""

MAX_VOTED_BYTES = 8 << 20
"""Payload of the blocks voted for since the last final one, beyond which only empty ones get a vote. With the last one more, of
up to 5 MiB, that is what the journal holds; and so the blocks that a quorum notarized have twice as much at most."""

JUST_FINAL = 2
"""Final blocks still at hand for members that are about to build on them."""

_REPEATED_VIEWS = 4
_FETCH_AGAIN = 16
_MIN_FETCH = 20


class Diverged(RuntimeError):
    """A final block does not execute here: more than f members are faulty, or this one's state is damaged."""


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
    """A block that was executed became final; its parent did just before. ``is_adopted``: a peer had it as final before."""

    final: FinalBlock
    draft: Draft
    is_adopted: bool = False


Said = Journal | LoseVotes | Broadcast | Send | Ban | Notable


class Simplex(Generic[Draft]):
    """One member of one committee in one epoch.

    ``final``: header of the last final block, with its ``peaks`` (``Tree.peaks``), and the certificate for exactly it if there is
    one. ``records``: what this member had persisted (rule 3). ``has_votes``: whether these are all its votes (rule 9).

    Attributes:
        tree: the blocks after the last final one, which is its root. views: what is known of the views after it.
        turn: the proposal this member may make, once there is no next effect; None: not its view, made already, or the parent
            is not at hand.
        view: the current one. head: hash of the block notarized last, which is the one to build on.
        suspicion: of the leaders. view_timeouts: views given up on a timer since the start.

    Raises:
        Diverged: by ``next_effect``, when a final block does not execute.
    """

    def __init__(
        self,
        seat: Seat,
        final: Header,
        peaks: Mapping[int, bytes],
        certificate: Certificate | None,
        timeouts: Timeouts,
        records: Sequence[JournalRecord],
        now: int,
        has_votes: bool = True,
    ) -> None:
        self.seat = seat
        self._electorate = seat.electorate
        self._now = now
        self._final_certificate = certificate
        self.view = final.view
        self.view_timeouts = 0
        self.tree: Tree[Draft] = Tree(final, peaks)
        self.head = self.tree.root_hash
        self.views = Views(seat.electorate, final.view)
        self._voting = Voting(seat, self.views, has_votes)
        self._effects: deque[Said | Execute[Draft] | Finalized[Draft]] = deque()
        self._fetching = Fetching(seat.member, seat.electorate, self.views, max(_MIN_FETCH, timeouts.retransmit // _FETCH_AGAIN))
        self._adopting = Adopting(seat.electorate)
        self._patience = Patience(seat, timeouts)
        self.suspicion = self._patience.suspicion
        self._just_final: dict[bytes, Block] = {}
        self._proposals: list[Proposal] = []
        self._welcomed: list[bytes] = []
        """Hashes of the current view's proposals, those under check by the caller too."""
        self._entry: Certificate | None = None
        self._repeated = 0
        self.turn: Turn | None = None
        self._is_settled = self._is_due = False
        for block in self._voting.restore(records if has_votes else ()):
            self.tree.add(block.header.hash, block)
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
        self._notarize(Proposal(block.compact(), vote, turn.notarization, turn.nullifications))
        return True

    # -- events ----------------------------------------------------------------------------------------------------

    def welcomes(self, proposal: Proposal, now: int) -> bool:
        """Take in what a proposal, from its signer, says besides its block: the vote, and the certificates that justify it.
        Returns whether its block matters: then it goes to ``on_proposal``, or to ``on_invalid_proposal``; after ``lacks``, if its
        transactions are not all here."""
        self._happens(now)
        header, vote = proposal.block.header, proposal.vote
        leader = self.leader_of(header.view)
        if header.view <= self.views.final or vote.block in self._welcomed or self._is_one_too_many(header.view):
            return False
        if (vote.kind, vote.view, vote.block, vote.signer) != (VoteKind.NOTARIZE, header.view, header.hash, leader):
            self._ban(vote.signer, "a proposal that is not the leader's")
            return False
        if header.view < self.view:
            self.on_vote(vote, now)
            return self._is_due_late(vote) and self._has_its_payload(proposal)
        if header.proposer != leader or not vote.is_valid(self._electorate):
            self._ban(leader, "a proposal it did not sign")
            return False
        if not self._take_justification(proposal):
            self._ban(leader, "a proposal with another justification than it says")
            return False
        if not self._has_its_payload(proposal):
            return False
        if self.view != header.view:
            self.on_vote(vote, now)
            return False
        self._take_vote(vote)
        if self.view != header.view:  # its leader's vote was the last of a quorum
            return self._is_due_late(vote)
        if self._welcomed:
            self._effects.append(Notable(f"member {leader} proposed two blocks in view {vote.view}"))
        self._welcomed.append(vote.block)
        return True

    def _has_its_payload(self, proposal: Proposal) -> bool:
        """Else its leader sent something else, and is dropped."""
        is_it = proposal.block.payload_root() == proposal.block.header.payload_root
        if not is_it:
            self._ban(proposal.vote.signer, "a proposal with another payload than it says")
        return is_it

    def _is_one_too_many(self, view: int) -> bool:
        return view == self.view and len(self._welcomed) >= MAX_PROPOSALS

    def _take_justification(self, proposal: Proposal) -> bool:
        """Take in the certificates of a proposal. Returns whether they are those of an honest leader; up to the first that is not
        valid they are looked at."""
        base = (proposal.notarization,) if proposal.notarization is not None else ()
        return is_canonical(proposal, self.tree.root, self.tree.root_hash) and all(
            self._on_certificate(certificate) for certificate in base + proposal.nullifications
        )

    def _is_due_late(self, vote: Vote) -> bool:
        """Whether the votes for a leader's block were faster than the block."""
        notarization = self.views.read(vote.view).certificate(VoteKind.NOTARIZE)
        return notarization is not None and notarization.block == vote.block and self.tree.get(vote.block) is None

    def lacks(self, proposal: Proposal, places: Sequence[int], now: int) -> None:
        """Transactions of a proposal that was welcome are not here: its leader is asked for them."""
        self._happens(now)
        request = TransactionsRequest(proposal.vote.block, tuple(places))
        self._effects.extend(self._fetching.ask_leader(request, proposal.vote.view, now))

    def awaits(self, block_hash: bytes) -> bool:
        """Whether transactions of a proposal, asked for after ``lacks``, are of use still."""
        return self._fetching.awaits(block_hash)

    def is_whole(self, proposal: Proposal, now: int) -> None:
        """All transactions of a proposal that was welcome are here."""
        self._happens(now)
        self._fetching.arrived(proposal.vote.block)
        if proposal.vote.view == self.view:
            self._patience.came(now)

    def on_proposal(self, proposal: Proposal, block: Block, draft: Draft | None, now: int) -> None:
        """The whole block of a proposal that was welcome; its transactions' signatures are checked if it is of this view."""
        self._happens(now)
        if proposal.vote.view == self.view:
            self._proposals.append(proposal)
            self.tree.add(proposal.vote.block, block, draft)
        elif self._is_due_late(proposal.vote):
            self._take_body(block)

    def on_invalid_proposal(self, view: int, now: int) -> None:
        """The leader of ``view`` proposed what the caller found invalid: nothing else is to be waited for (rule 7)."""
        self._happens(now)
        if view == self.view and VoteKind.NOTARIZE not in self.views.read(view).own:
            self._patience.blame()
            self._nullify(view)

    def on_vote(self, vote: Vote, now: int) -> None:
        """A vote, from its signer. Ignored when out of the window of views."""
        self._happens(now)
        if not self.views.final < vote.view <= self.view + MAX_VIEWS_AHEAD or vote.signer >= len(self._electorate.keys):
            return
        self.suspicion.heard(vote.signer)
        known = self.views.write(vote.view)
        if (known.lacks(vote) or known.contradicts(vote)) and not vote.is_valid(self._electorate):
            self._ban(vote.signer, "a vote it did not sign")
            return
        self._take_vote(vote)

    def _take_vote(self, vote: Vote) -> None:
        """A vote by another member, valid if it is news."""
        known = self.views.write(vote.view)
        if known.contradicts(vote):
            known.accuse(vote)
            self._effects.append(Notable(f"member {vote.signer} voted twice in view {vote.view}"))
        elif (certificate := self.views.count(vote)) is not None:
            self._on_held(certificate)

    def on_own_vote(self, sender: bytes, vote: Vote, now: int) -> None:
        """A vote with this member's name, from somebody who thinks that it may have forgotten it (rule 9)."""
        self._happens(now)
        if not self._remembers(vote):
            self._effects.append(Ban(sender, "it sent a vote that this node did not sign"))

    def on_certificates(self, sender: bytes, certificates: tuple[Certificate, ...], now: int) -> None:
        """Certificates another member holds."""
        self._happens(now)
        if not all(map(self._on_certificate, certificates)):
            self._effects.append(Ban(sender, "it sent a certificate that is not valid"))

    def on_block(self, block: Block, now: int) -> None:
        """A body this member asked for."""
        self._happens(now)
        if self._fetching.wants(block.header.hash):
            self._take_body(block)

    def _take_body(self, block: Block) -> None:
        block_hash = block.header.hash
        if block.payload_root() == block.header.payload_root:
            self._fetching.arrived(block_hash)
            self.tree.add(block_hash, block)

    def wants(self, block_hash: bytes) -> bool:
        """Whether the body with this hash has been asked for."""
        return self._fetching.wants(block_hash)

    def body(self, block_hash: bytes) -> Block | None:
        """A block that is not final, or was until just now, for a member that lacks it."""
        pending = self.tree.get(block_hash)
        return pending.block if pending is not None else self._just_final.get(block_hash)

    def on_final_blocks(self, sender: bytes, blocks: Sequence[FinalBlock], now: int) -> None:
        """Final blocks from a peer (catch-up), lowest first: each is adopted that proves itself and follows on the last one."""
        self._happens(now)
        self._adopting.offer(sender, blocks)

    def on_executed(self, block_hash: bytes, draft: Draft | None) -> None:
        """The answer to ``Execute``: what is to be kept with the block, or None when it is not valid."""
        pending = self.tree.get(block_hash)
        assert pending is not None, "only what is in the tree is executed"
        self._is_settled = False
        pending.draft = draft
        pending.verdict = Verdict.REFUSED if draft is None else Verdict.VALID

    def tick(self, now: int) -> None:
        """Time passed."""
        if now >= self.deadline:
            self._happens(now)
            self._is_due = True

    @property
    def deadline(self) -> int:
        """When to call ``tick`` at the latest (ms, monotonic)."""
        return min(self._patience.deadline, self._fetching.deadline)

    @property
    def has_votes(self) -> bool:
        """Whether this member may sign."""
        return self._voting.has_votes

    @property
    def knows_of_work(self) -> bool:
        """Whether ``work_waits`` was called in this view."""
        return self._patience.knows_of_work

    def work_waits(self, now: int) -> None:
        """A block on ``head`` would not be empty: the leader need not wait for the heartbeat."""
        self._patience.work_waits(now)

    @property
    def is_patient(self) -> bool:
        """No block was final for long: proposals shall be empty, so that everybody can vote for them (rules 6, 7)."""
        return self._patience.is_patient

    def catch_up_help(self, view: int) -> Certified | None:
        """What a member at an earlier ``view`` needs to join this one."""
        held = [c for c in (self.views.finalization or self._final_certificate, self._entry) if c is not None]
        return Certified(tuple(held)) if held and view < self.view else None

    def last_vote_of(self, member: int) -> Vote | None:
        """The last vote of a member that is held here, for it to see whether it remembers (rule 9)."""
        held = (vote for view in sorted(self.views.rounds, reverse=True) for vote in self.views.read(view).votes_of(member))
        return next(held, None)

    # -- what follows ----------------------------------------------------------------------------------------------

    def next_effect(self) -> Said | Execute[Draft] | Finalized[Draft] | None:
        """The next thing to be done on account of all events so far; None when there is nothing more."""
        while not self._effects:
            if self._is_settled:
                return None
            if self._advance():
                continue
            if self._is_due and self._now >= self._patience.deadline:
                self._time_out()
            elif self._is_due and self._now >= self._fetching.deadline:
                self._effects.extend(self._fetching.ask_again(self._now))
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
        steps = (self._vote_for_proposal, self._follow_votes, self._finish, self._adopt, self._prepare_turn)
        for step in steps:
            step()
            if self._effects or self.view != view or self.tree.root is not root:
                return True
        return False

    def _vote_for_proposal(self) -> None:
        """Vote for a proposal of the current view, if one deserves it."""
        if not self.has_votes or VoteKind.NOTARIZE in self.views.read(self.view).own:
            return
        for proposal in self._proposals:
            block_hash = proposal.vote.block
            if not self._is_justified(proposal.block.header):
                continue
            if self._is_too_much(block_hash):
                self._nullify(self.view)
                continue
            if not self.tree.is_refused(block_hash):
                if self.tree.is_ready(block_hash):
                    self._notarize(proposal)
                    return
                self._make_ready(block_hash, self.view)
                if self._effects:
                    return
            if self.tree.is_refused(block_hash):
                self._patience.blame()
                self._nullify(self.view)

    def _is_justified(self, header: Header) -> bool:
        return self.views.justify(header, self.tree.root_hash)

    def _is_too_much(self, block_hash: bytes) -> bool:
        """Whether a block must wait for those before it to be final (rule 6)."""
        pending = self.tree.get(block_hash)
        return pending is not None and pending.size > 0 and self.voted_bytes > MAX_VOTED_BYTES

    @property
    def voted_bytes(self) -> int:
        """Payload of the blocks this member voted for since the last final one."""
        votes = (known.own.get(VoteKind.NOTARIZE) for known in self.views.rounds.values())
        blocks = (self.tree.get(vote.block) for vote in votes if vote is not None)
        return sum(pending.size for pending in blocks if pending is not None)

    def _follow_votes(self) -> None:
        """Certificates of the current view that came before it did (rule 2); nullify what f+1 members nullify (rule 7)."""
        view = self.view
        known = self.views.read(view)
        if known.votes(VoteKind.NULLIFY) > self._electorate.faults_tolerated:
            self._nullify(view)
        for certificate in known.certificates:
            self._on_held(certificate)

    def _finish(self) -> None:
        """Make final what the best finalization makes final, as soon as the blocks are at hand."""
        best = self.views.finalization
        if best is None:
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
            path = path_heights(header.height, headers[-1].height) if own_certificate is None else ()
            finality = Finality(tuple(headers[height - headers[0].height] for height in path), own_certificate or best)
            self._emit_final(chain[i], finality)
        self._patience.progressed()
        self._set_final(headers[-1], best)
        self._enter(best.view + 1)  # after a restart the view may lag behind: votes of final views are forgotten

    def _adopt(self) -> None:
        """Make the next block of a peer's final."""
        try:
            final = self._adopting.following(self.tree.root, self.tree.root_hash)
        except Forged as error:
            self._effects.append(Ban(self._adopting.sender, f"it sent {error}"))
            return
        if final is None:
            return
        header, finality = final.block.header, final.finality
        self._remembers_part_in(finality.certificate)
        pending = self.tree.add(header.hash, final.block)
        if pending.verdict is Verdict.OPEN:
            self._execute(pending)
            return
        if pending.verdict is Verdict.REFUSED:
            raise Diverged(f"final block {header.height} does not execute here")
        self._emit_final(pending, finality, is_adopted=True)
        self._set_final(header, None if finality.path else finality.certificate)
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
        bridge = build_bridge(self.views, self.view, self._has_body) if self.has_votes else None
        if bridge is None:
            return None
        if bridge.notarization is None:
            return Turn(self.view, self.tree.root_hash, self._final_certificate, bridge.nullifications)
        return Turn(self.view, bridge.notarization.block, bridge.notarization, bridge.nullifications)

    def _has_body(self, block_hash: bytes) -> bool:
        return self.tree.get(block_hash) is not None

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

    def _emit_final(self, pending: PendingBlock[Draft], finality: Finality, is_adopted: bool = False) -> None:
        assert pending.draft is not None, "it was executed"
        self._just_final[pending.block_hash] = pending.block
        if len(self._just_final) > JUST_FINAL:
            del self._just_final[next(iter(self._just_final))]
        self._effects.append(Finalized(FinalBlock(pending.block, finality), pending.draft, is_adopted))

    def _set_final(self, header: Header, certificate: Certificate | None) -> None:
        self._final_certificate = certificate
        self.views.prune(header.view)
        self.tree.prune(header)
        self._fetching.clear(header.view)
        if self.tree.get(self.head) is None:
            self.head = self.tree.root_hash

    # -- votes and certificates ------------------------------------------------------------------------------------

    def _on_certificate(self, certificate: Certificate) -> bool:
        """Returns False for an invalid one: there is no point in looking at more from the same hand."""
        if certificate.view <= self.views.final:
            return True
        if not self._remembers_part_in(certificate) or not self.views.keep(certificate):
            return False
        held = self.views.read(certificate.view).certificate(certificate.kind)
        assert held is not None
        self._on_held(held)
        return True

    def _on_held(self, certificate: Certificate) -> None:
        """A certificate is held, new or known before: whatever follows from it, follows (rule 2)."""
        if certificate.kind is VoteKind.NOTARIZE:
            self._effects += self._voting.finalize(certificate)
        if certificate.view >= self.view:
            if certificate.kind is not VoteKind.NULLIFY:
                self._patience.progressed()
                self.head = certificate.block
            if certificate.view == self.view:
                self._patience.ended(certificate.kind is not VoteKind.NULLIFY)
            self._entry = certificate
            self._enter(certificate.view + 1, certificate.view == self.view, is_behind=False)

    def _enter(self, view: int, is_expected: bool = False, is_behind: bool = True) -> None:
        """``is_expected``: right after the view before. ``is_behind``: others are past this view, for all that is known."""
        if view <= self.view:
            return
        self._forget_proposals()
        self.view = view
        leader = self.leader_of(view)
        skips = self._patience.enter(leader, self._now, view - self.views.final, is_expected)
        self._effects += self._voting.say_again(view, is_current=True)
        if skips and not is_behind:
            self._nullify(view)
        elif is_expected and leader != self.seat.member:
            self._hand_over(leader)

    def _hand_over(self, leader: int) -> None:
        """Give the leader of this view what it needs to enter it, unless it has it."""
        votes = self.views.read(self.view - 1).votes_of(leader)
        if self._entry is not None and all(vote.kind is not VoteKind.FINALIZE for vote in votes):
            self._effects.append(Send(self._electorate.keys[leader], Certified((self._entry,))))

    def _forget_proposals(self) -> None:
        """Of a view that is over only blocks matter that a quorum, or this member, voted for."""
        kept = {vote.block for vote in self.views.read(self.view).own.values()} | {self.head}
        for proposal in self._proposals:
            if proposal.vote.block not in kept:
                self.tree.discard(proposal.vote.block)
        for block_hash in self._welcomed:
            if block_hash not in kept:
                self._fetching.forget(block_hash)
        self._proposals.clear()
        self._welcomed.clear()

    def _notarize(self, proposal: Proposal) -> None:
        pending = self.tree.get(proposal.vote.block)
        assert pending is not None, "it was executed"
        self._effects += self._voting.notarize(proposal, pending.block)

    def _nullify(self, view: int) -> bool:
        """Returns whether it did."""
        cast = self._voting.nullify(view)
        self._effects += cast
        return bool(cast)

    def _time_out(self) -> None:
        """The deadline passed: give the view up, unless it is about to be final, and say again what was said."""
        if self._nullify(self.view):
            self.view_timeouts += 1
            self._patience.gave_up()
        self._retransmit()
        self._patience.wait_again(self._now)

    # -- who is not what it seems ------------------------------------------------------------------------------------

    def _ban(self, member: int, what: str) -> None:
        self._effects.append(Ban(self._electorate.keys[member], f"it sent {what}"))

    def _remembers_part_in(self, certificate: Certificate) -> bool:
        """As ``_remembers``, of this member's signature in a certificate, if there is one."""
        vote = self._voting.part_in(certificate)
        return vote is None or self._remembers(vote)

    def _remembers(self, vote: Vote) -> bool:
        """Whether a vote with this member's name is its own. If it is, and is not among its votes, they are not all (rule 9)."""
        if self._voting.is_known(vote):
            return True
        if not vote.is_valid(self._electorate):
            return False
        self._effects += self._voting.lose(vote)
        return True

    # -- saying it again -------------------------------------------------------------------------------------------

    def _retransmit(self) -> None:
        """Repeat the current view, and of those since the last final block a few each time (rule 8)."""
        self._effects += self._voting.say_again(self.view, is_current=True)
        first = max(self._repeated, self.views.final + 1)
        last = min(first + _REPEATED_VIEWS, self.view)
        self._repeated = last if last < self.view else 0  # the next turn begins with the oldest, whatever views come meanwhile
        certificates: list[Certificate] = []
        for view in range(first, last):
            self._effects += self._voting.say_again(view, is_current=False)
            held = self.views.read(view).certificates
            certificates += held
            if not held:
                self._nullify(view)
        if certificates:
            self._effects.append(Broadcast(Certified(tuple(certificates))))
        if (help_for_all := self.catch_up_help(0)) is not None:
            self._effects.append(Broadcast(help_for_all))
