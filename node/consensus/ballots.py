"""The votes a member has seen, view by view, and the certificates they add up to."""

from collections import defaultdict

from node.protocol.certificate import Certificate, Electorate, Vote, VoteKind, make_certificate


class Ballots:
    """Collects valid votes; one per member, kind and view counts, the first. Certificates are kept until pruned."""

    def __init__(self, electorate: Electorate) -> None:
        self._electorate = electorate
        self._votes: defaultdict[tuple[VoteKind, int], dict[int, Vote]] = defaultdict(dict)
        self._certificates: dict[tuple[VoteKind, int], Certificate] = {}
        self._accused: set[tuple[VoteKind, int, int]] = set()

    def certificate(self, kind: VoteKind, view: int) -> Certificate | None:
        return self._certificates.get((kind, view))

    def add_vote(self, vote: Vote) -> Certificate | None:
        """Count a vote. Returns the certificate of its kind and view if there now is one (new or known before).

        Invalid votes, and a member's second vote of a kind in a view, are ignored.
        """
        key = (vote.kind, vote.view)
        known = self._certificates.get(key)
        votes = self._votes[key]
        if known is not None or vote.signer in votes or not vote.is_valid(self._electorate):
            return known
        votes[vote.signer] = vote
        agreeing = [other for other in votes.values() if other.block == vote.block]
        if len(agreeing) < self._electorate.quorum:
            return None
        certificate = self._certificates[key] = make_certificate(agreeing, self._electorate)
        return certificate

    def add_certificate(self, certificate: Certificate) -> bool:
        """Keep a certificate received whole. Returns whether one of its kind and view is held now."""
        key = (certificate.kind, certificate.view)
        if key not in self._certificates:
            if not certificate.is_valid(self._electorate):
                return False
            self._certificates[key] = certificate
        return True

    def contradicts(self, vote: Vote) -> bool:
        """Whether its signer voted otherwise in the same view: validly signed evidence of equivocation, reported once."""
        other = self._votes[(vote.kind, vote.view)].get(vote.signer)
        charge = (vote.kind, vote.view, vote.signer)
        if other is None or other.block == vote.block or charge in self._accused or not vote.is_valid(self._electorate):
            return False
        self._accused.add(charge)
        return True

    def prune(self, view: int) -> None:
        """Forget all of views up to ``view``."""
        for key in [key for key in self._votes if key[1] <= view]:
            del self._votes[key]
        for key in [key for key in self._certificates if key[1] <= view]:
            del self._certificates[key]
        self._accused = {charge for charge in self._accused if charge[1] > view}
