"""What a member knows of one view: proposals, votes, the certificates they add up to, and what it signed itself."""

from msgspec import Struct

from node.protocol.certificate import Certificate, Electorate, Vote, VoteKind, make_certificate, sign_vote
from node.protocol.crypto import KeyPair
from node.protocol.messages import Proposal

MAX_PROPOSALS = 2
"""Kept of one view; the second is evidence that its leader equivocates."""


class Seat(Struct, frozen=True):
    """A member of a committee: its key, its index, and who votes with it."""

    key: KeyPair
    member: int
    electorate: Electorate

    def vote(self, kind: VoteKind, view: int, block: bytes) -> Vote:
        return sign_vote(self.key, self.member, self.electorate, kind, view, block)


class Round:
    """Of each member one vote of a kind counts, its first.

    Attributes:
        proposals: of the view's leader, at most MAX_PROPOSALS.
        own: what this member signed in the view: the facts that the safety argument rests on.
    """

    def __init__(self) -> None:
        self.proposals: list[Proposal] = []
        self.own: dict[VoteKind, Vote] = {}
        self._votes: dict[VoteKind, dict[int, Vote]] = {}
        self._certificates: dict[VoteKind, Certificate] = {}
        self._accused: set[tuple[VoteKind, int]] = set()

    def certificate(self, kind: VoteKind) -> Certificate | None:
        return self._certificates.get(kind)

    @property
    def certificates(self) -> list[Certificate]:
        """Those that say how the view ended, as far as votes of others can: notarized, or nullified."""
        return [self._certificates[kind] for kind in (VoteKind.NOTARIZE, VoteKind.NULLIFY) if kind in self._certificates]

    def count(self, vote: Vote, electorate: Electorate) -> Certificate | None:
        """Count a vote. Returns the certificate of its kind if there now is one, new or known before.

        Invalid votes, and a member's second vote of a kind, are ignored.
        """
        known, votes = self._certificates.get(vote.kind), self._votes.setdefault(vote.kind, {})
        if known is not None or vote.signer in votes or not vote.is_valid(electorate):
            return known
        votes[vote.signer] = vote
        agreeing = [other for other in votes.values() if other.block == vote.block]
        if len(agreeing) < electorate.quorum:
            return None
        certificate = self._certificates[vote.kind] = make_certificate(agreeing, electorate)
        return certificate

    def keep(self, certificate: Certificate, electorate: Electorate) -> bool:
        """Keep a certificate received whole. Returns whether one of its kind is held now."""
        if certificate.kind not in self._certificates:
            if not certificate.is_valid(electorate):
                return False
            self._certificates[certificate.kind] = certificate
        return True

    def contradicts(self, vote: Vote, electorate: Electorate) -> bool:
        """Whether its signer voted otherwise before: validly signed evidence of equivocation, told once."""
        other = self._votes.get(vote.kind, {}).get(vote.signer)
        charge = (vote.kind, vote.signer)
        if other is None or other.block == vote.block or charge in self._accused or not vote.is_valid(electorate):
            return False
        self._accused.add(charge)
        return True
