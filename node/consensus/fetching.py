"""Fetching: the bodies of blocks that a member knows by hash only. From one member at a time, never a storm."""

from collections.abc import Sequence
from itertools import count

from node.effects import Send
from node.protocol.certificate import Certificate, Electorate
from node.protocol.limits import MAX_VIEWS_AHEAD
from node.protocol.messages import BodyRequest


class Fetching:
    """The bodies asked for and not here yet. The methods return requests to send."""

    def __init__(self, member: int, electorate: Electorate) -> None:
        self._member, self._electorate = member, electorate
        self._wanted: dict[bytes, tuple[int, Sequence[int], count[int]]] = {}

    def wants(self, block_hash: bytes) -> bool:
        return block_hash in self._wanted

    def ask(self, block_hash: bytes, view: int, notarization: Certificate | None) -> list[Send]:
        """Ask for a body, unless that is done already: those first whose votes in ``notarization`` say they have it."""
        if block_hash in self._wanted or len(self._wanted) >= MAX_VIEWS_AHEAD:
            return []
        signers = notarization.signers if notarization is not None else range(len(self._electorate.keys))
        others = [signer for signer in signers if signer != self._member]
        self._wanted[block_hash] = (view, others, count(self._member))
        return self._request(block_hash)

    def ask_again(self) -> list[Send]:
        """Ask for all that is missing still, of another member each time."""
        return [request for block_hash in self._wanted for request in self._request(block_hash)]

    def _request(self, block_hash: bytes) -> list[Send]:
        view, others, turns = self._wanted[block_hash]
        if not others:
            return []
        return [Send(self._electorate.keys[others[next(turns) % len(others)]], BodyRequest(view, block_hash))]

    def arrived(self, block_hash: bytes) -> None:
        self._wanted.pop(block_hash, None)

    def clear(self) -> None:
        """A block became final: what still matters is asked for anew."""
        self._wanted.clear()
