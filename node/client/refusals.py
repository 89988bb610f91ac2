"""Refusals of transactions by members of a committee. One member may lie; f+1 that agree include an honest one. Pure."""

from collections.abc import Container

from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode
from node.protocol.codes import Code
from node.protocol.limits import MAX_REFUSALS_BYTES
from node.protocol.topics import Refusals

_MAX_TALLIES = 100_000


class RefusalTally:
    """Counts, per transaction and code, the distinct members of one committee that refuse it."""

    def __init__(self, electorate: Electorate) -> None:
        self._electorate = electorate
        self._members: dict[tuple[bytes, Code], set[int]] = {}

    def hear(self, body: bytes, wanted: Container[bytes]) -> list[tuple[bytes, Code]]:
        """Take in a message of the refusals topic; returns what f+1 members agree on, of the transactions ``wanted``."""
        try:
            refusals = decode(Refusals, body, MAX_REFUSALS_BYTES)
        except DecodeError:
            return []
        items = [item for item in refusals.items if item.transaction_id in wanted]
        if not items or not refusals.is_valid(self._electorate):
            return []
        agreed = []
        for item in items:
            if len(self._members) >= _MAX_TALLIES:
                self._members.clear()  # transactions are re-sent, so are refusals
            members = self._members.setdefault((item.transaction_id, item.code), set())
            members.add(refusals.member)
            if len(members) > self._electorate.faults_tolerated:
                agreed.append((item.transaction_id, item.code))
        return agreed

    def forget(self, transaction_id: bytes) -> None:
        """A transaction is final."""
        if self._members:
            for code in Code:
                self._members.pop((transaction_id, code), None)
