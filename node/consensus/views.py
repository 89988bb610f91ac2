"""The views after the last final block: what is known of each, and which blocks they let a proposal build on."""

from node.consensus.round import Round
from node.protocol.block import Header
from node.protocol.certificate import Certificate, Electorate, VoteKind

_NOTHING = Round()
"""Stands for every view of which nothing is known. Never written to."""


class Views:
    """``rounds``: by view, those after ``final``, the view of the last final block."""

    def __init__(self, electorate: Electorate, final: int) -> None:
        self._electorate = electorate
        self.final = final
        self.rounds: dict[int, Round] = {}

    def read(self, view: int) -> Round:
        return self.rounds.get(view, _NOTHING)

    def write(self, view: int) -> Round:
        known = self.rounds.get(view)
        if known is None:
            known = self.rounds[view] = Round()
        return known

    def keep(self, certificate: Certificate) -> bool:
        """Keep a certificate received whole. Returns whether one of its view and kind is held now."""
        known = self.rounds.get(certificate.view) or Round()
        if not known.keep(certificate, self._electorate):
            return False
        self.rounds[certificate.view] = known
        return True

    def prune(self, view: int) -> None:
        """A block of ``view`` is final."""
        self.final = view
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
