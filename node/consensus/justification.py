"""Justification: the certificates that come with a proposal. An honest leader sends one set of them, so no other is looked at."""

from collections.abc import Callable

from msgspec import Struct

from node.consensus.views import Views
from node.protocol.block import Header
from node.protocol.certificate import Certificate, VoteKind
from node.protocol.limits import MAX_NULLIFICATIONS
from node.protocol.messages import Proposal


class Bridge(Struct, frozen=True):
    """What a proposal builds on: a notarized block (None: the last final one), and the nullifications of the views between, the
    last ``MAX_NULLIFICATIONS`` of them. Who lacks earlier ones gets them as they are repeated (rule 8)."""

    notarization: Certificate | None
    nullifications: tuple[Certificate, ...]


def build_bridge(views: Views, view: int, has_body: Callable[[bytes], bool]) -> Bridge | None:
    """What to build on in ``view``; None when some view before it has neither certificate. A block that was notarized in a view
    that is nullified, too, is passed over if its body is not here: nobody need have it any more."""
    nullifications: list[Certificate] = []
    notarization: Certificate | None = None
    for earlier in range(view - 1, views.final, -1):
        known = views.read(earlier)
        notarization, nullification = known.certificate(VoteKind.NOTARIZE), known.certificate(VoteKind.NULLIFY)
        if notarization is not None and (nullification is None or has_body(notarization.block)):
            break
        notarization = None
        if nullification is None:
            return None
        nullifications.append(nullification)
    return Bridge(notarization, tuple(reversed(nullifications[:MAX_NULLIFICATIONS])))


def is_canonical(proposal: Proposal, final: Header, final_hash: bytes) -> bool:
    """Whether a proposal comes with the certificates an honest leader sends, no more and no less; their signatures aside."""
    header, base = proposal.block.header, proposal.notarization
    first = header.view - len(proposal.nullifications)
    for view, certificate in enumerate(proposal.nullifications, first):
        if (certificate.kind, certificate.view) != (VoteKind.NULLIFY, view):
            return False
    earliest = header.view - MAX_NULLIFICATIONS
    if base is not None:
        is_parents = base.kind is not VoteKind.NULLIFY and base.block == header.parent and base.view < header.view
        return is_parents and first == max(base.view + 1, earliest)
    return header.parent != final_hash or first == max(final.view + 1, earliest)
