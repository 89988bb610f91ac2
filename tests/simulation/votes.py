"""What one honest member signs: nothing leaves it that is not on its disk, and no two of its votes contradict each other."""

import msgspec

from node.effects import Journal
from node.protocol.certificate import Certificate, VoteKind
from node.protocol.messages import Ballot, Certified, PeerMessage, Proposal
from tests.simulation.violation import violated

Statement = tuple[int, int, bytes]
"""Kind, view, block."""


class Votes:
    """Over all lives of one member. ``who``: for the text of a violation."""

    def __init__(self, who: object) -> None:
        self._who = who
        self._durable: set[Statement] = set()
        self._sent: set[Statement] = set()
        self._views: dict[int, dict[int, bytes]] = {}
        self._has_lost_disk = False

    def wrote(self, journal: Journal) -> None:
        """A record reached the disk."""
        if journal.slot != "proposal":
            record = msgspec.msgpack.decode(journal.data)
            kind, view, block = (record[0] if journal.slot == "finalize" else record)[:3]
            self._durable.add((kind, view, block))

    def lost_disk(self) -> None:
        """What was stored is lost; what was signed is not: from now on it signs nothing."""
        self._durable.clear()
        self._has_lost_disk = True

    def sends(self, member: int, message: PeerMessage) -> None:
        """A message leaves the member; ``member``: its index."""
        for kind, view, block in _signed(member, message):
            if (kind, view, block) in self._sent:
                continue
            self._sent.add((kind, view, block))
            if self._has_lost_disk:
                violated("amnesia", f"{self._who} lost its disk, and votes {VoteKind(kind).name} in view {view}")
            if (kind, view, block) not in self._durable:
                violated("persistence", f"{self._who} sends {VoteKind(kind).name} in view {view}, which is not on its disk")
            voted = self._views.setdefault(view, {})
            if voted.setdefault(kind, block) != block or {VoteKind.NULLIFY, VoteKind.FINALIZE} <= voted.keys():
                violated(
                    "double vote", f"{self._who} votes {VoteKind(kind).name} in view {view} against an earlier vote of its own"
                )


def _signed(member: int, message: PeerMessage) -> list[Statement]:
    """What carries the member's signature: a vote, or its part in certificates."""
    found: list[Statement] = []
    certificates: list[Certificate] = []
    if isinstance(message, Ballot | Proposal) and message.vote.signer == member:
        found.append((message.vote.kind, message.vote.view, message.vote.block))
    if isinstance(message, Certified):
        certificates = list(message.certificates)
    elif isinstance(message, Proposal):
        certificates = [*message.nullifications, *([message.notarization] if message.notarization else [])]
    found += [(c.kind, c.view, c.block) for c in certificates if member in c.signers]
    return found
