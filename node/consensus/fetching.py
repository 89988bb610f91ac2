"""Fetching: the bodies of blocks that a member knows by hash only. From one member at a time, never a storm."""

from node.consensus.views import Views
from node.effects import Send
from node.protocol.certificate import Electorate, VoteKind
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.messages import BodyRequest


class Fetching:
    """The bodies asked for and not here yet. The methods return requests to send. Times are monotonic, ms."""

    def __init__(self, member: int, electorate: Electorate, views: Views) -> None:
        self._member, self._electorate, self._views = member, electorate, views
        self._wanted: dict[bytes, tuple[int, int, int]] = {}
        """By hash: its view, how often it was asked for, and when last."""

    def wants(self, block_hash: bytes) -> bool:
        return block_hash in self._wanted

    def ask(self, block_hash: bytes, view: int, now: int) -> list[Send]:
        """Ask for a body, unless that is done already."""
        if block_hash in self._wanted or len(self._wanted) >= MAX_VIEWS_AHEAD:
            return []
        return self._request(block_hash, view, 0, now)

    def ask_again(self, now: int) -> list[Send]:
        """Ask for all that was asked for before and is missing still, another member each time."""
        overdue = [(block_hash, view, times) for block_hash, (view, times, at) in self._wanted.items() if at < now]
        return [request for block_hash, view, times in overdue for request in self._request(block_hash, view, times, now)]

    def _request(self, block_hash: bytes, view: int, times: int, now: int) -> list[Send]:
        """From one member; first from those whose votes say they have the body."""
        self._wanted[block_hash] = (view, times + 1, now)
        notarization = self._views.read(view).certificate(VoteKind.NOTARIZE)
        signers = notarization.signers if notarization is not None else range(len(self._electorate.keys))
        others = [signer for signer in signers if signer != self._member]
        target = others[(self._member + times) % len(others)] if others else None
        return [] if target is None else [Send(self._electorate.keys[target], BodyRequest(view, block_hash))]

    def arrived(self, block_hash: bytes) -> None:
        self._wanted.pop(block_hash, None)

    def clear(self) -> None:
        """A block became final: what still matters is asked for anew."""
        self._wanted.clear()
