"""What a replica keeps with a block that is not final, and the ledger as it is after any of these blocks."""

from collections.abc import Iterator

from msgspec import Struct

from node.consensus.tree import Tree
from node.ledger.execution import Execution
from node.ledger.state import Overlay, State
from node.protocol.channel import CertifiedBundle
from node.protocol.entries import Entry
from node.replica.mempool import Pooled
from node.replica.witnesses import Verdicts


class Payload(Struct, frozen=True):
    """A block's content, decoded; its bundles have proven themselves, its transactions' signatures are checked apart.
    ``verdicts``: of the witnesses of what its bundles prepare, as far as they are checked."""

    bundles: tuple[CertifiedBundle, ...]
    transactions: tuple[Pooled, ...]
    verdicts: Verdicts
    entries: tuple[Entry, ...] = ()


class Draft(Struct, frozen=True):
    """``execution``: what executing it gave, once that is done, at ``executed_at`` (ms, monotonic); an own proposal is executed
    as it is made."""

    payload: Payload
    execution: Execution | None = None
    executed_at: int = 0


class Branches:
    """``state``: after the last final block, the root of ``tree``."""

    def __init__(self, state: State, tree: Tree[Draft]) -> None:
        self.state = state
        self._tree = tree

    def after(self, block_hash: bytes) -> State | Overlay | None:
        """The ledger after a block: the last final one, or one that was executed on top of it; else None."""
        if block_hash == self._tree.root_hash:
            return self.state
        pending = self._tree.get(block_hash)
        draft = pending.draft if pending is not None else None
        return draft.execution.overlay if draft is not None and draft.execution is not None else None

    def in_flight(self, block_hash: bytes) -> int:
        """How many transactions this block and its ancestors have taken that are not final yet."""
        return sum(len(payload.transactions) for payload in self._payloads(block_hash))

    def entries_in_flight(self, block_hash: bytes) -> int:
        """The same of entries."""
        return sum(len(payload.entries) for payload in self._payloads(block_hash))

    def _payloads(self, block_hash: bytes) -> Iterator[Payload]:
        return (pending.draft.payload for pending in self._tree.branch(block_hash) if pending.draft is not None)
