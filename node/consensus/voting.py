"""What a member signs: on disk before it is said, the same again after a restart, and nothing without all its votes.

The rules it refers to are those of ``node.consensus.simplex``.
"""

from collections.abc import Iterable

from node.consensus.journal import FinalizeRecord, JournalRecord, ProposalRecord, journaled
from node.consensus.round import Seat
from node.consensus.views import Views
from node.effects import Broadcast, Journal, LoseVotes
from node.protocol.block import Block
from node.protocol.certificate import Certificate, Vote, VoteKind
from node.protocol.crypto import ZERO_HASH
from node.protocol.messages import Ballot, Proposal
from node.protocol.reports import Notable

Cast = list[Journal | Broadcast]
"""What is to be done about a vote: put it on disk, then say it (rule 1). Empty: there is none."""


class Voting:
    """Own votes are kept in the ``views``, and counted there like those of others.

    Attributes:
        has_votes: whether this member may sign: what it holds is all it ever signed in this epoch (rule 9).
    """

    def __init__(self, seat: Seat, views: Views, has_votes: bool) -> None:
        self.has_votes = has_votes
        self._seat, self._views = seat, views

    def notarize(self, proposal: Proposal, block: Block) -> Cast:
        """For this proposal, which goes to disk with its whole ``block``. Who made it sends it, which says the vote, too."""
        own = self._seat.member == block.header.proposer
        vote = proposal.vote if own else self._seat.vote(VoteKind.NOTARIZE, proposal.vote.view, proposal.vote.block)
        self._views.write(vote.view).proposal = proposal
        record = ProposalRecord(block, proposal.vote, proposal.notarization, proposal.nullifications)
        return [journaled(vote.view, record), *self._cast(vote, vote, proposal if own else Ballot(vote))]

    def nullify(self, view: int) -> Cast:
        """Unless that or finalize was voted in the view before."""
        own = self._views.read(view).own
        if VoteKind.NULLIFY in own or VoteKind.FINALIZE in own or not self.has_votes:
            return []
        vote = self._seat.vote(VoteKind.NULLIFY, view, ZERO_HASH)
        return self._cast(vote, vote, Ballot(vote))

    def finalize(self, notarization: Certificate) -> Cast:
        """The block that is notarized, unless that or nullify was voted in its view before."""
        own = self._views.read(notarization.view).own
        if VoteKind.NULLIFY in own or VoteKind.FINALIZE in own or not self.has_votes:
            return []
        vote = self._seat.vote(VoteKind.FINALIZE, notarization.view, notarization.block)
        return self._cast(vote, FinalizeRecord(vote, notarization), Ballot(vote))

    def _cast(self, vote: Vote, record: JournalRecord, message: Proposal | Ballot) -> Cast:
        self._views.write(vote.view).own[vote.kind] = vote
        self._views.count(vote)
        return [journaled(vote.view, record), Broadcast(message)]

    def say_again(self, view: int, is_current: bool) -> list[Broadcast]:
        """Own votes of a view, the leader's of the current one with its proposal: all are on disk already."""
        known, said = self._views.read(view), list[Broadcast]()
        for vote in known.own.values():
            is_mine = is_current and known.proposal is not None and known.proposal.vote == vote
            said.append(Broadcast(known.proposal if is_mine and known.proposal else Ballot(vote)))
        return said

    def restore(self, records: Iterable[JournalRecord]) -> list[Block]:
        """Take back what was persisted of views after the last final block (rule 3). Returns the blocks that were voted for."""
        own, blocks = list[Vote](), list[Block]()
        for record in records:
            vote = record if isinstance(record, Vote) else record.vote
            if vote.view <= self._views.final:
                continue
            known = self._views.write(vote.view)
            match record:
                case ProposalRecord(block, _, notarization, nullifications):
                    known.proposal = record.proposal
                    blocks.append(block)
                    for certificate in (*((notarization,) if notarization is not None else ()), *nullifications):
                        self._take_back(certificate)
                    continue
                case FinalizeRecord(_, notarization):
                    self._take_back(notarization)
            known.own[vote.kind] = vote
            own.append(vote)
        for vote in own:
            self._views.count(vote)
        return blocks

    def _take_back(self, certificate: Certificate) -> None:
        if certificate.view > self._views.final:
            self._views.keep(certificate)

    # -- whether these are all its votes (rule 9) ------------------------------------------------------------------

    def is_known(self, vote: Vote) -> bool:
        """Whether a vote with this member's name is among its votes, or of no concern any more."""
        own = self._views.read(vote.view).own.get(vote.kind)
        return not self.has_votes or vote.view <= self._views.final or (own is not None and own.block == vote.block)

    def part_in(self, certificate: Certificate) -> Vote | None:
        """This member's vote in a certificate, if there is one."""
        signers, signatures = certificate.signers, certificate.signatures
        if self._seat.member not in signers or len(signers) != len(signatures):
            return None
        signature = signatures[signers.index(self._seat.member)]
        return Vote(certificate.kind, certificate.view, certificate.block, self._seat.member, signature)

    def lose(self, vote: Vote) -> list[LoseVotes | Notable]:
        """This vote is its own and not known here: the others are not to be relied on."""
        self.has_votes = False
        told = f"this node's key signed in view {vote.view} what its database does not hold: it is a copy, or an older one. "
        advice = "It follows and signs nothing more in this epoch; see that no second node runs with this key"
        return [LoseVotes(), Notable(told + advice)]
