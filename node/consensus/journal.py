"""What a member persists of a view before it sends it, and reads back after a restart."""

from msgspec import Struct

from node.effects import Journal
from node.protocol.block import Block
from node.protocol.certificate import Certificate, Vote, VoteKind
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Proposal


class ProposalRecord(Struct, array_like=True, frozen=True):
    """A proposal voted for, its transactions with it: after a power cut of everybody nobody may have them elsewhere."""

    block: Block
    vote: Vote
    notarization: Certificate | None
    nullifications: tuple[Certificate, ...]

    @property
    def proposal(self) -> Proposal:
        return Proposal(self.block.compact(), self.vote, self.notarization, self.nullifications)


class FinalizeRecord(Struct, array_like=True, frozen=True):
    """A finalize vote with the notarization it rests on: who has the one can always show the other."""

    vote: Vote
    notarization: Certificate


JournalRecord = ProposalRecord | Vote | FinalizeRecord
"""A proposal voted for; a notarize or nullify vote; a finalize vote."""

_TYPES: dict[str, type[JournalRecord]] = {
    "proposal": ProposalRecord,
    "notarize": Vote,
    "nullify": Vote,
    "finalize": FinalizeRecord,
}


def journaled(view: int, record: JournalRecord) -> Journal:
    """The effect that persists ``record``."""
    match record:
        case ProposalRecord():
            slot = "proposal"
        case FinalizeRecord():
            slot = "finalize"
        case Vote(kind):
            slot = "notarize" if kind is VoteKind.NOTARIZE else "nullify"
    return Journal(view, slot, encode(record))


def remembered(journal: Journal) -> JournalRecord:
    """What was persisted. Raises DecodeError when it is damaged."""
    if journal.slot not in _TYPES:
        raise DecodeError(f"unknown journal record {journal.slot}")
    return decode(_TYPES[journal.slot], journal.data, MAX_FRAME_BYTES)
