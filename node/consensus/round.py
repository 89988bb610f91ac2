"""What a member knows of one view: votes, the certificates they add up to, and what it signed itself. A few KiB; never a block
but the one it voted for."""

from msgspec import Struct

from node.protocol.certificate import Certificate, Electorate, Vote, VoteKind, make_certificate, sign_vote
from node.protocol.crypto import KeyPair
from node.protocol.messages import Proposal


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
        proposal: the one this member voted for.
        own: what this member signed in the view: the facts that the safety argument rests on.
    """

    def __init__(self) -> None:
        self.proposal: Proposal | None = None
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

    def lacks(self, vote: Vote) -> bool:
        """Whether a vote would count: there is no certificate of its kind yet, and no vote of its signer's."""
        return vote.kind not in self._certificates and vote.signer not in self._votes.get(vote.kind, {})

    def count(self, vote: Vote, electorate: Electorate) -> Certificate | None:
        """Count a vote that is valid. Returns the certificate of its kind if there now is one, new or known before."""
        if not self.lacks(vote):
            return self._certificates.get(vote.kind)
        votes = self._votes.setdefault(vote.kind, {})
        votes[vote.signer] = vote
        agreeing = [other for other in votes.values() if other.block == vote.block]
        if len(agreeing) < electorate.quorum:
            return None
        certificate = self._certificates[vote.kind] = make_certificate(agreeing, electorate)
        return certificate

    def votes(self, kind: VoteKind) -> int:
        """How many members' votes of a kind were counted here."""
        return len(self._votes.get(kind, ()))

    def votes_of(self, member: int) -> list[Vote]:
        """What a member signed in this view, as far as it was counted here."""
        return [votes[member] for votes in self._votes.values() if member in votes]

    def keep(self, certificate: Certificate, electorate: Electorate) -> bool:
        """Keep a certificate received whole. Returns whether one of its kind is held now."""
        if certificate.kind not in self._certificates:
            if not certificate.is_valid(electorate):
                return False
            self._certificates[certificate.kind] = certificate
        return True

    def contradicts(self, vote: Vote) -> bool:
        """Whether its signer voted otherwise before, and was not charged with it yet."""
        other = self._votes.get(vote.kind, {}).get(vote.signer)
        return other is not None and other.block != vote.block and (vote.kind, vote.signer) not in self._accused

    def accuse(self, vote: Vote) -> None:
        """It is valid evidence of equivocation: told once."""
        self._accused.add((vote.kind, vote.signer))
