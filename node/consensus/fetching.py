"""Fetching: what a member lacks of blocks that it knows by hash: transactions of a proposal, or the whole body. From one member
at a time, never a storm (rule 5)."""

from msgspec import Struct

from node.consensus.views import Views
from node.effects import Send
from node.protocol.certificate import Certificate, Electorate, VoteKind
from node.protocol.messages import BodyRequest, TransactionsRequest

_MAX_WANTED = 50
"""Bodies asked for at a time: a few MiB each, and each of a block that a quorum, or the leader's parent, stands for."""
_NEVER = 1 << 62


class _Wanted(Struct):
    """``times`` it was asked for, the last time of ``asked``; again when ``due``. ``request``: of a proposal, what its leader is
    asked for. ``is_body``: the whole body was asked for, of whomever."""

    view: int
    request: TransactionsRequest | None = None
    is_body: bool = False
    times: int = 0
    asked: int = -1
    due: int = 0


class Fetching:
    """What was asked for and is not here yet. The methods return requests to send. Times are monotonic, ms.

    ``patience``: after which it is asked for again, a body of another member; twice as long each time, eight times at most.
    """

    def __init__(self, member: int, electorate: Electorate, views: Views, patience: int) -> None:
        self._member, self._electorate, self._views, self._patience = member, electorate, views, patience
        self._wanted: dict[bytes, _Wanted] = {}
        self._owed = [0] * len(electorate.keys)
        """How often each member, asked, has not delivered since it last did."""

    @property
    def deadline(self) -> int:
        """When ``ask_again`` is to be called."""
        return min([wanted.due for wanted in self._wanted.values()]) if self._wanted else _NEVER

    def wants(self, block_hash: bytes) -> bool:
        """Whether the whole body was asked for."""
        wanted = self._wanted.get(block_hash)
        return wanted is not None and wanted.is_body

    def awaits(self, block_hash: bytes) -> bool:
        """Whether transactions of a proposal, or its body, were asked for."""
        return block_hash in self._wanted

    def ask(self, block_hash: bytes, view: int, now: int) -> list[Send]:
        """Ask for a body, unless that is done already."""
        if block_hash in self._wanted or len(self._wanted) >= _MAX_WANTED:
            return []
        wanted = self._wanted[block_hash] = _Wanted(view)
        return self._request(block_hash, wanted, now)

    def ask_leader(self, request: TransactionsRequest, view: int, now: int) -> list[Send]:
        """Ask the leader of a view for transactions of what it proposed. Until that is notarized nobody else is asked: it costs
        the view if it withholds them."""
        if request.block in self._wanted:
            return []
        wanted = self._wanted[request.block] = _Wanted(view, request)
        return self._request(request.block, wanted, now)

    def ask_again(self, now: int) -> list[Send]:
        """Ask for all that is due still, for a body another member each time."""
        requests = []
        for block_hash, wanted in self._wanted.items():
            if wanted.due <= now:
                if wanted.asked >= 0:
                    self._owed[wanted.asked] += 1
                requests += self._request(block_hash, wanted, now)
        return requests

    def _request(self, block_hash: bytes, wanted: _Wanted, now: int) -> list[Send]:
        """Transactions from who proposed them; a body from one of those whose votes say they have it."""
        notarization = self._views.read(wanted.view).certificate(VoteKind.NOTARIZE)
        message: TransactionsRequest | BodyRequest
        if wanted.request is not None and (notarization is None or wanted.times == 0):
            message, wanted.asked = wanted.request, wanted.view % len(self._electorate.keys)
        else:
            message, wanted.asked = BodyRequest(wanted.view, block_hash), self._next(wanted, notarization)
            wanted.is_body = True
        wanted.due = now + (self._patience << min(wanted.times, 3))
        wanted.times += 1
        return [] if wanted.asked < 0 else [Send(self._electorate.keys[wanted.asked], message)]

    def _next(self, wanted: _Wanted, notarization: Certificate | None) -> int:
        """Of those who signed, the one that has owed the least; -1: there is none."""
        members = len(self._electorate.keys)
        signers = notarization.signers if notarization is not None else range(members)
        turn = self._member + 1 + wanted.times
        return min(
            (signer for signer in signers if signer != self._member),
            key=lambda signer: (self._owed[signer], (signer - turn) % members),
            default=-1,
        )

    def arrived(self, block_hash: bytes) -> None:
        wanted = self._wanted.pop(block_hash, None)
        if wanted is not None and wanted.asked >= 0:
            self._owed[wanted.asked] = 0

    def forget(self, block_hash: bytes) -> None:
        """A proposal's view is over, and no quorum has notarized it."""
        self._wanted.pop(block_hash, None)

    def clear(self, view: int) -> None:
        """A block of ``view`` is final: proposals of later views matter still; what else does is asked for anew."""
        self._wanted = {key: one for key, one in self._wanted.items() if one.request is not None and one.view > view}
