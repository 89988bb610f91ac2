"""Fetching: the bodies of blocks that a member knows by hash only. From one member at a time, never a storm (rule 5)."""

from msgspec import Struct

from node.consensus.views import Views
from node.effects import Send
from node.protocol.certificate import Electorate, VoteKind
from node.protocol.messages import BodyRequest

_MAX_WANTED = 50
"""Bodies asked for at a time: a few MiB each, and each of a block that a quorum, or the leader's parent, stands for."""
_NEVER = 1 << 62


class _Wanted(Struct):
    """``times`` it was asked for, the last time of ``asked``; again when ``due``."""

    view: int
    times: int = 0
    asked: int = -1
    due: int = 0


class Fetching:
    """The bodies asked for and not here yet. The methods return requests to send. Times are monotonic, ms.

    ``patience``: after which another member is asked; twice as long each time, eight times at most.
    """

    def __init__(self, member: int, electorate: Electorate, views: Views, patience: int) -> None:
        self._member, self._electorate, self._views, self._patience = member, electorate, views, patience
        self._wanted: dict[bytes, _Wanted] = {}
        self._owed = [0] * len(electorate.keys)
        """How often each member, asked, has not delivered since it last did."""

    @property
    def deadline(self) -> int:
        """When ``ask_again`` is to be called."""
        return min((wanted.due for wanted in self._wanted.values()), default=_NEVER)

    def wants(self, block_hash: bytes) -> bool:
        return block_hash in self._wanted

    def ask(self, block_hash: bytes, view: int, now: int) -> list[Send]:
        """Ask for a body, unless that is done already."""
        if block_hash in self._wanted or len(self._wanted) >= _MAX_WANTED:
            return []
        wanted = self._wanted[block_hash] = _Wanted(view)
        return self._request(block_hash, wanted, now)

    def ask_again(self, now: int) -> list[Send]:
        """Ask for all that is due still, another member each time."""
        requests = []
        for block_hash, wanted in self._wanted.items():
            if wanted.due <= now:
                if wanted.asked >= 0:
                    self._owed[wanted.asked] += 1
                requests += self._request(block_hash, wanted, now)
        return requests

    def _request(self, block_hash: bytes, wanted: _Wanted, now: int) -> list[Send]:
        """From one member: of those whose votes say they have the body, the one that has owed the least."""
        notarization = self._views.read(wanted.view).certificate(VoteKind.NOTARIZE)
        members = len(self._electorate.keys)
        signers = notarization.signers if notarization is not None else range(members)
        wanted.due = now + (self._patience << min(wanted.times, 3))
        turn = self._member + 1 + wanted.times
        wanted.asked = min(
            (signer for signer in signers if signer != self._member),
            key=lambda signer: (self._owed[signer], (signer - turn) % members),
            default=-1,
        )
        wanted.times += 1
        return [] if wanted.asked < 0 else [Send(self._electorate.keys[wanted.asked], BodyRequest(wanted.view, block_hash))]

    def arrived(self, block_hash: bytes) -> None:
        wanted = self._wanted.pop(block_hash, None)
        if wanted is not None and wanted.asked >= 0:
            self._owed[wanted.asked] = 0

    def clear(self) -> None:
        """A block became final: what still matters is asked for anew."""
        self._wanted.clear()
