"""Checking signatures: what waits for it. The checks themselves are done elsewhere, off the loop."""

from collections.abc import Sequence

from msgspec import Struct

from node.consensus.simplex import MAX_PROPOSALS
from node.effects import CheckSignatures
from node.protocol.messages import Proposal
from node.protocol.topics import Refusal
from node.replica.drafts import Draft, Payload
from node.replica.mempool import Entry, Mempool

_MAX_BYTES = 32 << 20
"""Encoded transactions and bundles of all proposals under check. More than the two largest of three leaders, and each leader has
two at most; who comes when it is reached is not voted for."""


class _Check(Struct, frozen=True):
    """Transactions under check, and the proposal that waits for them, if one does."""

    entries: tuple[Entry, ...]
    proposal: Proposal | None
    payload: Payload | None

    @property
    def size(self) -> int:
        block = self.proposal.block if self.proposal is not None else None
        return sum(map(len, (*block.bundles, *block.transactions))) if block is not None else 0


class Checked(Struct, frozen=True):
    """``refusals``: of transactions from clients. ``proposal``: the one that waited, with its payload, if all are valid."""

    refusals: list[Refusal]
    proposal: Proposal | None = None
    draft: Draft | None = None
    invalid_view: int | None = None
    """The view of the proposal that waited, when a signature in it is not valid."""


class Checking:
    """Checks under way, by token."""

    def __init__(self, mempool: Mempool) -> None:
        self._mempool = mempool
        self._checks: dict[int, _Check] = {}
        self._token = 0

    def transactions(self, entries: Sequence[Entry]) -> list[CheckSignatures]:
        """Have transactions from clients checked."""
        return self._check(_Check(tuple(entries), None, None)) if entries else []

    def proposal(self, proposal: Proposal, payload: Payload, unknown: Sequence[Entry]) -> list[CheckSignatures]:
        """Have the transactions of a proposal checked that nobody has checked here before."""
        check = _Check(tuple(unknown), proposal, payload)
        others = [other for other in self._checks.values() if other.proposal is not None]
        signer = proposal.vote.signer
        if sum(other.proposal is not None and other.proposal.vote.signer == signer for other in others) >= MAX_PROPOSALS:
            return []
        if check.size + sum(other.size for other in others) > _MAX_BYTES:
            return []
        return self._check(check)

    def _check(self, check: _Check) -> list[CheckSignatures]:
        self._token += 1
        self._checks[self._token] = check
        self._mempool.expect(check.entries)
        transactions = tuple(entry.transaction for entry in check.entries)
        return [CheckSignatures(self._token, transactions, check.proposal is not None)]

    def settle(self, token: int, verdicts: Sequence[bool]) -> Checked | None:
        """The answer to ``CheckSignatures``: valid transactions enter the mempool. None for an unknown token."""
        check = self._checks.pop(token, None)
        if check is None:
            return None
        refusals = self._mempool.settle(check.entries, verdicts, may_push_out=check.proposal is None)
        if check.proposal is None or check.payload is None:
            return Checked(refusals)
        if not all(verdicts):
            return Checked([], invalid_view=check.proposal.vote.view)
        return Checked([], check.proposal, Draft(check.payload))
