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

9. A member whose own votes may be lost (a new disk) abstains from every view it may have voted in: ``abstain_through``.

The class knows nothing of clocks, sockets and disks: ``now`` (ms, monotonic) comes with each call, and what shall be done is
collected in ``effects``, in order.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from node.consensus.ballots import Ballots
from node.effects import Broadcast, Effect, Journal, Notable, Send
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, Electorate, FinalBlock, Finality, Vote, VoteKind, sign_vote
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.limits import MAX_FRAME_BYTES, MAX_VIEWS_AHEAD
from node.protocol.messages import Ballot, BodyReply, BodyRequest, Certified, Proposal

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


class OwnVotes(Struct):
    """What this member signed in one view: the facts the safety argument rests on."""

    notarize: Vote | None = None
    nullify: Vote | None = None
    finalize: Vote | None = None


class Turn(Struct, frozen=True):
    """This member may propose: in ``view``, on the executed block ``parent``."""

    view: int
    parent: bytes
    notarization: Certificate | None
    nullifications: tuple[Certificate, ...]


class Simplex:
    """One member of one committee in one epoch.

    ``final``: header of the last final block, with the certificate for exactly it if there is one. ``execute``: whether a
    block is valid on its parent, which was executed before (and may have become final in this very call). ``journal``: what
    this member had persisted (rule 3).

    Raises:
        Diverged: from any method, when a final block does not execute.
        DecodeError: from the constructor, when a journal record is damaged.
    """

    def __init__(
        self,
        key: KeyPair,
        member: int,
        electorate: Electorate,
        final: Header,
        certificate: Certificate | None,
        timeouts: Timeouts,
        execute: Callable[[Block], bool],
        journal: Sequence[Journal],
        now: int,
        abstain_through: int = 0,
    ) -> None:
        self._key = key
        self.member = member
        self.electorate = electorate
        self._timeouts = timeouts
        self._execute = execute
        self.final = final
        self.final_hash = final.hash
        self._final_certificate = certificate
        self.view = final.view
        self.effects: list[Effect] = []
        self.finalized: list[FinalBlock] = []
        """Newly final blocks, oldest first; the caller takes them out."""
        self._ballots = Ballots(electorate)
        self._own: dict[int, OwnVotes] = {}
        self._proposals: dict[int, list[Proposal]] = {}
        self._blocks: dict[bytes, Block] = {}
        self._executed: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._entry: Certificate | None = None
        self._best_finalization: Certificate | None = None
        self._heard = [now] * len(electorate.keys)
        self._wanted: dict[bytes, tuple[int, int]] = {}
        self._failures = 0
        self._repeated = 0
        self.deadline = 0
        """When to call ``tick`` at the latest (ms, monotonic)."""
        self.abstain_through = abstain_through
        """No votes in views up to this one (rule 9)."""
        self.view_timeouts = 0
        """Views given up on a timer since the start."""
        self._reload(journal)
        self._enter(self.view + 1, now)
        self._advance(now)

    # -- what the member may do in this view ------------------------------------------------------------------------

    def leader_of(self, view: int) -> int:
        return view % len(self.electorate.keys)

    @property
    def voted(self) -> int:
        """The greatest view this member has a vote in, of those after the last final block; else the final block's."""
        return max(
            (view for view, own in self._own.items() if own.notarize or own.nullify or own.finalize), default=self.final.view
        )

    def turn(self) -> Turn | None:
        """The proposal this member may make now, or None: not its view, made already, or the parent is not at hand."""
        own = self._votes_of(self.view)
        if self.leader_of(self.view) != self.member or own.notarize is not None or own.nullify is not None:
            return None
        if self.view <= self.abstain_through:
            return None
        nullifications: list[Certificate] = []
        for view in range(self.view - 1, self.final.view, -1):
            notarization = self._ballots.certificate(VoteKind.NOTARIZE, view)
            if notarization is not None:
                if not self._make_executed(notarization.block, view):
                    return None
                return Turn(self.view, notarization.block, notarization, tuple(reversed(nullifications)))
            nullification = self._ballots.certificate(VoteKind.NULLIFY, view)
            if nullification is None:
                return None
            nullifications.append(nullification)
        return Turn(self.view, self.final_hash, self._final_certificate, tuple(reversed(nullifications)))

    def propose(self, turn: Turn, block: Block, now: int) -> None:
        """Propose a block built for ``turn``; ignored when the view has passed meanwhile."""
        if turn.view != self.view or self.turn() is None:
            return
        vote = sign_vote(self._key, self.member, self.electorate, VoteKind.NOTARIZE, turn.view, block.header.hash)
        self._accept(Proposal(block, vote, turn.notarization, turn.nullifications), vote)
        self._advance(now)

    # -- events ----------------------------------------------------------------------------------------------------

    def expects(self, proposal: Proposal) -> bool:
        """Whether a proposal could still matter: in the window of views, signed by its leader, not seen, not one too many."""
        header = proposal.block.header
        known = self._proposals.get(header.view, ())
        return (
            self.final.view < header.view <= self.view + MAX_VIEWS_AHEAD
            and len(known) < 2
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
            and vote.is_valid(self.electorate)
        )

    def on_proposal(self, proposal: Proposal, now: int) -> None:
        """A proposal, its transactions' signatures checked. Ignored unless ``expects`` it."""
        if not self.expects(proposal):
            return
        header, vote = proposal.block.header, proposal.vote
        known = self._proposals.setdefault(header.view, [])
        if known:
            self.effects.append(Notable(f"member {vote.signer} proposed two blocks in view {header.view}"))
        known.append(proposal)
        self._heard[vote.signer] = now
        self._blocks[vote.block] = proposal.block
        justification = (proposal.notarization,) if proposal.notarization is not None else ()
        for certificate in justification + proposal.nullifications:
            if not self._on_certificate(certificate, now):
                break
        self._on_vote(vote, now)
        self._advance(now)

    def on_invalid_proposal(self, view: int, now: int) -> None:
        """The leader of ``view`` proposed what the caller found invalid: nothing else is to be waited for (rule 7)."""
        if view == self.view and self._votes_of(view).notarize is None:
            self._nullify(view)
            self._advance(now)

    def on_vote(self, vote: Vote, now: int) -> None:
        """A vote by any member. Ignored when invalid or out of the window of views."""
        self._on_vote(vote, now)
        self._advance(now)

    def on_certificates(self, certificates: tuple[Certificate, ...], now: int) -> None:
        """Certificates another member holds."""
        for certificate in certificates:
            self._on_certificate(certificate, now)
        self._advance(now)

    def on_block(self, block: Block, now: int) -> None:
        """A body this member asked for, its transactions' signatures checked."""
        hash = block.header.hash
        if hash in self._wanted and block.payload_root() == block.header.payload_root:
            del self._wanted[hash]
            self._blocks[hash] = block
            self._advance(now)

    def wants(self, hash: bytes) -> bool:
        """Whether the body with this hash has been asked for."""
        return hash in self._wanted

    def on_block_request(self, peer: bytes, hash: bytes) -> None:
        """Another member lacks a body."""
        if (block := self._blocks.get(hash)) is not None:
            self.effects.append(Send(peer, BodyReply(block)))

    def adopt(self, header: Header, finality: Finality, now: int) -> None:
        """A block verified final and executed by the caller (catch-up) becomes the last final one."""
        if header.height > self.final.height:
            certificate = finality.certificate
            self._set_final(header, None if finality.descendants else certificate)
            self._enter(certificate.view + 1, now)
            self._advance(now)

    def tick(self, now: int) -> None:
        """The deadline passed: give the view up, unless it is about to be final, and say again what was said."""
        if now < self.deadline:
            return
        if self._nullify(self.view):
            self.view_timeouts += 1
            self._failures += 1
        self._retransmit(now)
        self.deadline = now + self._timeouts.retransmit * self._backoff()
        self._advance(now)

    def catch_up_help(self, view: int) -> Certified | None:
        """What a member at an earlier ``view`` needs to join this one."""
        held = [c for c in (self._best_finalization or self._final_certificate, self._entry) if c is not None]
        return Certified(tuple(held)) if held and view < self.view else None

    # -- restart ---------------------------------------------------------------------------------------------------

    def _reload(self, journal: Sequence[Journal]) -> None:
        """Take back what this member had persisted of views after its last final block."""
        for record in journal:
            if record.view <= self.final.view:
                continue
            own = self._votes_of(record.view)
            if record.slot == "proposal":
                proposal = decode(Proposal, record.data, MAX_FRAME_BYTES)
                self._proposals.setdefault(record.view, []).append(proposal)
                self._blocks[proposal.block.header.hash] = proposal.block
                self._take_justification(proposal)
            elif record.slot == "finalize":
                finalized = decode(_FinalizeRecord, record.data, MAX_FRAME_BYTES)
                own.finalize = finalized.vote
                self._ballots.add_certificate(finalized.notarization)
            elif record.slot == "notarize":
                own.notarize = decode(Vote, record.data, MAX_FRAME_BYTES)
            elif record.slot == "nullify":
                own.nullify = decode(Vote, record.data, MAX_FRAME_BYTES)
            else:
                raise DecodeError(f"unknown journal record {record.slot}")
        for own in self._own.values():
            for vote in (own.notarize, own.nullify, own.finalize):
                if vote is not None:
                    self._count_own(vote)

    def _take_justification(self, proposal: Proposal) -> None:
        if proposal.notarization is not None:
            self._ballots.add_certificate(proposal.notarization)
        for certificate in proposal.nullifications:
            self._ballots.add_certificate(certificate)

    # -- the rules -------------------------------------------------------------------------------------------------

    def _on_vote(self, vote: Vote, now: int) -> None:
        if not self.final.view < vote.view <= self.view + MAX_VIEWS_AHEAD or vote.signer >= len(self._heard):
            return
        if self._ballots.contradicts(vote):
            self.effects.append(Notable(f"member {vote.signer} voted twice in view {vote.view}"))
            return
        is_news = vote.view >= self.view - 1 and now - self._heard[vote.signer] >= self._timeouts.skip // 4
        if is_news and vote.is_valid(self.electorate):  # checked apart: a vote too late to be counted is a sign of life too
            self._heard[vote.signer] = now
        certificate = self._ballots.add_vote(vote)
        if certificate is not None:
            self._on_held(certificate, now)

    def _on_certificate(self, certificate: Certificate, now: int) -> bool:
        """Returns False for an invalid one: there is no point in looking at more from the same hand."""
        if certificate.view <= self.final.view:
            return True
        if not self._ballots.add_certificate(certificate):
            return False
        self._on_held(certificate, now)
        return True

    def _on_held(self, certificate: Certificate, now: int) -> None:
        """A valid certificate is held, now or before: whatever follows from it, follows (rule 2)."""
        if certificate.kind == VoteKind.NOTARIZE:
            own = self._votes_of(certificate.view)
            if own.nullify is None and own.finalize is None:
                self._finalize(certificate)
        elif certificate.kind == VoteKind.FINALIZE:
            self._note_finalization(certificate)
        if certificate.view >= self.view:
            if certificate.kind != VoteKind.NULLIFY:
                self._failures = 0
            self._entry = certificate
            self._enter(certificate.view + 1, now)

    def _enter(self, view: int, now: int) -> None:
        if view <= self.view:
            return
        self.view = view
        self.deadline = now + self._timeouts.view * self._backoff()
        self._say_again(view)
        if self._is_silent(self.leader_of(view), now):
            self._nullify(view)

    def _is_silent(self, leader: int, now: int) -> bool:
        """Whether a leader has not been heard from for long while a quorum has (rule 7)."""
        alive = [now - heard < self._timeouts.skip for heard in self._heard]
        alive[self.member] = True
        return not alive[leader] and sum(alive) >= self.electorate.quorum

    def _advance(self, now: int) -> None:
        """Vote for the current view's proposal if it deserves it, and finalize what can be, until nothing moves."""
        while True:
            view, final_hash = self.view, self.final_hash
            self._vote_for_proposal()
            for kind in (VoteKind.NOTARIZE, VoteKind.NULLIFY):
                certificate = self._ballots.certificate(kind, view)
                if certificate is not None:
                    self._on_held(certificate, now)
            self._finish(now)
            if (self.view, self.final_hash) == (view, final_hash):
                return

    def _vote_for_proposal(self) -> None:
        own = self._votes_of(self.view)
        if own.notarize is not None or self.view <= self.abstain_through:
            return
        for proposal in self._proposals.get(self.view, ()):
            hash = proposal.vote.block
            if hash in self._refused or not self._is_justified(proposal.block.header):
                continue
            if self._make_executed(hash, self.view):
                vote = sign_vote(self._key, self.member, self.electorate, VoteKind.NOTARIZE, self.view, hash)
                self._accept(proposal, vote)
                return
            if hash in self._refused:
                self._nullify(self.view)

    def _is_justified(self, header: Header) -> bool:
        """Whether the parent is notarized or final, and every view between the two nullified."""
        for view in range(header.view - 1, self.final.view, -1):
            notarization = self._ballots.certificate(VoteKind.NOTARIZE, view)
            if notarization is not None and notarization.block == header.parent:
                return True
            if self._ballots.certificate(VoteKind.NULLIFY, view) is None:
                return False
        return header.parent == self.final_hash

    def _accept(self, proposal: Proposal, vote: Vote) -> None:
        """Vote notarize, the proposal on disk before the vote leaves (rule 1)."""
        view = vote.view
        self._blocks[vote.block] = proposal.block
        self._executed.add(vote.block)
        known = self._proposals.setdefault(view, [])
        if proposal not in known:
            known.append(proposal)
        self._votes_of(view).notarize = vote
        self.effects.append(Journal(view, "proposal", encode(proposal)))
        self.effects.append(Journal(view, "notarize", encode(vote)))
        is_own = proposal.block.header.proposer == self.member
        self.effects.append(Broadcast(proposal) if is_own else Broadcast(Ballot(vote)))
        self._count_own(vote)

    def _nullify(self, view: int) -> bool:
        """Vote nullify, unless that or finalize was voted in the view before. Returns whether it did."""
        own = self._votes_of(view)
        if own.nullify is not None or own.finalize is not None or view <= self.abstain_through:
            return False
        vote = sign_vote(self._key, self.member, self.electorate, VoteKind.NULLIFY, view, ZERO_HASH)
        own.nullify = vote
        self.effects.append(Journal(view, "nullify", encode(vote)))
        self.effects.append(Broadcast(Ballot(vote)))
        self._count_own(vote)
        return True

    def _finalize(self, notarization: Certificate) -> None:
        view = notarization.view
        if view <= self.abstain_through:
            return
        vote = sign_vote(self._key, self.member, self.electorate, VoteKind.FINALIZE, view, notarization.block)
        self._votes_of(view).finalize = vote
        self.effects.append(Journal(view, "finalize", encode(_FinalizeRecord(vote, notarization))))
        self.effects.append(Broadcast(Ballot(vote)))
        self._count_own(vote)

    def _count_own(self, vote: Vote) -> None:
        """Count an own vote; it may complete a finalization of any view after the last final one."""
        certificate = self._ballots.add_vote(vote)
        if certificate is not None and certificate.kind == VoteKind.FINALIZE:
            self._note_finalization(certificate)

    def _note_finalization(self, certificate: Certificate) -> None:
        if self._best_finalization is None or certificate.view > self._best_finalization.view:
            self._best_finalization = certificate

    def _finish(self, now: int) -> None:
        """Make final what the best finalization makes final, as soon as the blocks are at hand."""
        best = self._best_finalization
        if best is None or best.view <= self.final.view or not self._make_executed(best.block, best.view):
            if best is not None and best.block in self._refused:
                raise Diverged(f"final block {best.block.hex()[:16]} of view {best.view} does not execute here")
            return
        chain = [self._blocks[best.block]]
        while chain[-1].header.parent != self.final_hash:
            chain.append(self._blocks[chain[-1].header.parent])
        headers = tuple(block.header for block in reversed(chain))
        for i, block in enumerate(reversed(chain)):
            own_certificate = self._ballots.certificate(VoteKind.FINALIZE, block.header.view)
            descendants = () if own_certificate is not None else headers[i + 1 :]
            self.finalized.append(FinalBlock(block, Finality(descendants, own_certificate or best)))
        self._failures = 0
        self._set_final(chain[0].header, best)
        self._enter(best.view + 1, now)  # after a restart the view may lag behind: votes of final views are forgotten

    def _make_executed(self, hash: bytes, view: int) -> bool:
        """Whether a block and its ancestors back to the last final block are at hand, valid and executed; asks for the
        first body that is missing."""
        missing: list[Block] = []
        while hash not in self._executed and hash != self.final_hash:
            block = self._blocks.get(hash)
            if block is None:
                self._ask_for(hash, view)
                return False
            missing.append(block)
            if hash in self._refused or block.header.height <= self.final.height:
                self._refused.update(refused.header.hash for refused in missing)
                return False
            hash, view = block.header.parent, block.header.view
        while missing:
            block = missing[-1]
            if not self._execute(block):
                self._refused.update(refused.header.hash for refused in missing)
                return False
            self._executed.add(block.header.hash)
            missing.pop()
        return True

    def _set_final(self, header: Header, certificate: Certificate | None) -> None:
        self.final, self.final_hash, self._final_certificate = header, header.hash, certificate
        self._ballots.prune(header.view)
        if self._best_finalization is not None and self._best_finalization.view <= header.view:
            self._best_finalization = None
        for view in [view for view in self._own if view <= header.view]:
            del self._own[view]
        for view in [view for view in self._proposals if view <= header.view]:
            del self._proposals[view]
        kept = {hash: block for hash, block in self._blocks.items() if block.header.view > header.view}
        self._blocks = kept
        self._executed &= kept.keys()
        self._refused &= kept.keys()
        self._wanted.clear()

    # -- saying it again -------------------------------------------------------------------------------------------

    def _ask_for(self, hash: bytes, view: int) -> None:
        if hash in self._wanted or len(self._wanted) >= MAX_VIEWS_AHEAD:
            return
        self._request(hash, view, 0)

    def _request(self, hash: bytes, view: int, attempt: int) -> None:
        """Ask one member, another one each time, first those whose votes say they have the body."""
        certificate = self._ballots.certificate(VoteKind.NOTARIZE, view)
        signers = certificate.signers if certificate is not None else tuple(range(len(self.electorate.keys)))
        others = [signer for signer in signers if signer != self.member]
        self._wanted[hash] = (view, attempt)
        if others:
            target = others[(self.member + attempt) % len(others)]
            self.effects.append(Send(self.electorate.keys[target], BodyRequest(view, hash)))

    def _retransmit(self, now: int) -> None:
        """Repeat the current view, and of those since the last final block a few each time (rule 8)."""
        self._say_again(self.view)
        first = self._repeated if self.final.view < self._repeated < self.view else self.final.view + 1
        self._repeated = min(first + _REPEATED_VIEWS, self.view)
        certificates: list[Certificate] = []
        for view in range(first, self._repeated):
            self._say_again(view)
            both = (self._ballots.certificate(kind, view) for kind in (VoteKind.NOTARIZE, VoteKind.NULLIFY))
            held = [certificate for certificate in both if certificate is not None]
            certificates += held
            if not held:
                self._nullify(view)
        if certificates:
            self.effects.append(Broadcast(Certified(tuple(certificates))))
        if (help := self.catch_up_help(0)) is not None:
            self.effects.append(Broadcast(help))
        for hash, (view, attempt) in list(self._wanted.items()):
            self._request(hash, view, attempt + 1)

    def _say_again(self, view: int) -> None:
        """Repeat own votes of a view, the leader's with its proposal: all are on disk already."""
        own = self._own.get(view)
        if own is None:
            return
        if own.notarize is not None:
            mine = [p for p in self._proposals.get(view, ()) if p.vote == own.notarize]
            self.effects.append(Broadcast(mine[0] if mine else Ballot(own.notarize)))
        for vote in (own.nullify, own.finalize):
            if vote is not None:
                self.effects.append(Broadcast(Ballot(vote)))

    def _votes_of(self, view: int) -> OwnVotes:
        return self._own.setdefault(view, OwnVotes())

    def _backoff(self) -> int:
        return min(_MAX_BACKOFF, 1 << min(self._failures, 3))


class _FinalizeRecord(Struct, array_like=True, frozen=True):
    """The journal's form of a finalize vote: with the notarization it rests on (rule 1)."""

    vote: Vote
    notarization: Certificate
