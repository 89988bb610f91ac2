"""Refusals of transactions by members. One member may lie; f+1 that agree include an honest one."""

from gateway.projection import Projection, Status
from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode
from node.protocol.codes import Code
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.topics import Refusals

LASTING = frozenset({Code.WRONG_NETWORK, Code.WRONG_SHARD, Code.UNKNOWN_ASSET, Code.NOT_ISSUER})
"""Reasons that lie in the signed order itself, so no block can ever take it: a verdict.

Funds, freezes, limits and time change: another member may still propose the transaction, so those codes are only kept as the
reason to give when it expires. A bad signature or malformed bytes are no verdict either: signatures are not part of a
transaction's id, so anybody can have the members refuse a spoiled copy of a good one, which was checked here before.
"""
_MAX_TALLIES = 100_000


class RefusalTally:
    """Counts, per transaction and code, the distinct members of its home committee that refuse it."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._members: dict[tuple[bytes, Code], set[int]] = {}

    def hear(self, body: bytes, electorate: Electorate) -> list[tuple[bytes, Code]]:
        """Take in a message; returns the verdicts that f+1 members now agree on."""
        try:
            refusals = decode(Refusals, body, MAX_BROKER_BODY_BYTES)
        except DecodeError:
            return []
        known = [item for item in refusals.items if item.transaction_id in self._projection.active]
        if not known or not refusals.is_valid(electorate):
            return []
        verdicts = []
        for item in known:
            tracked = self._projection.active[item.transaction_id]
            if tracked.home != electorate.shard or tracked.status not in (Status.QUEUED, Status.SUBMITTED):
                continue
            if len(self._members) >= _MAX_TALLIES:
                self._members.clear()  # transactions are re-sent, so are refusals
            members = self._members.setdefault((item.transaction_id, item.code), set())
            members.add(refusals.member)
            if len(members) <= electorate.faults_tolerated:
                continue
            if item.code in LASTING:
                verdicts.append((item.transaction_id, item.code))
            else:
                tracked.reason = item.code
        return verdicts

    def forget(self, id: bytes) -> None:
        """A transaction is final."""
        for code in Code:
            self._members.pop((id, code), None)
