"""The views after the last final block: what is known of each, and which blocks they let a proposal build on."""

from node.consensus.round import Round
from node.protocol.block import Header
from node.protocol.certificate import Certificate, Electorate, Vote, VoteKind

_NOTHING = Round()
"""Stands for every view of which nothing is known. Never written to."""


class Views:
    """``rounds``: by view, those after ``final``, the view of the last final block. ``finalization``: of the latest of them that
    has one."""

    def __init__(self, electorate: Electorate, final: int) -> None:
        self._electorate = electorate
        self.final = final
        self.rounds: dict[int, Round] = {}
        self.finalization: Certificate | None = None

    def read(self, view: int) -> Round:
        return self.rounds.get(view, _NOTHING)

    def write(self, view: int) -> Round:
        known = self.rounds.get(view)
        if known is None:
            known = self.rounds[view] = Round()
        return known

    def count(self, vote: Vote) -> Certificate | None:
        """Count a vote that is valid. Returns the certificate of its kind if there now is one, new or known before."""
        certificate = self.write(vote.view).count(vote, self._electorate)
        self._note(certificate)
        return certificate

    def keep(self, certificate: Certificate) -> bool:
        """Keep a certificate received whole. Returns whether one of its view and kind is held now."""
        known = self.rounds.get(certificate.view) or Round()
        if not known.keep(certificate, self._electorate):
            return False
        self.rounds[certificate.view] = known
        self._note(known.certificate(certificate.kind))
        return True

    def _note(self, held: Certificate | None) -> None:
        if held is None or held.kind is not VoteKind.FINALIZE:
            return
        if self.finalization is None or held.view > self.finalization.view:
            self.finalization = held

    def prune(self, view: int) -> None:
        """A block of ``view`` is final."""
        self.final = view
        if self.finalization is not None and self.finalization.view <= view:
            self.finalization = None
        self.rounds = {later: known for later, known in self.rounds.items() if later > view}

    def justify(self, header: Header, final_hash: bytes) -> bool:
        """Whether the parent is notarized or final, and every view between the two nullified."""
        for view in range(header.view - 1, self.final, -1):
            known = self.read(view)
            notarization = known.certificate(VoteKind.NOTARIZE)
            if notarization is not None and notarization.block == header.parent:
                return True
            if known.certificate(VoteKind.NULLIFY) is None:
                return False
        return header.parent == final_hash
