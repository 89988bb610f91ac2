"""Assembling: proposals whose transactions are not all here. What clients send, or the leader, completes them."""

from collections.abc import Callable, Iterable

from msgspec import Struct

from node.protocol.block import Block
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import DecodeError
from node.protocol.merkle import leaf_hash
from node.protocol.messages import Proposal, TransactionsReply
from node.replica.mempool import Mempool, Pooled, read_pooled


class Assembled(Struct, frozen=True):
    """A proposal with its whole block, and what is in that, decoded; bundles have proven themselves."""

    proposal: Proposal
    block: Block
    bundles: tuple[CertifiedBundle, ...]
    transactions: tuple[Pooled, ...]


class Misnamed(Exception):
    """The leader of ``view`` sent something else than transactions of its proposal in their order."""

    def __init__(self, view: int) -> None:
        super().__init__(view)
        self.view = view


class _Partial(Struct):
    """``found`` and ``missing``: by leaf."""

    proposal: Proposal
    bundles: tuple[CertifiedBundle, ...]
    found: dict[bytes, Pooled]
    missing: set[bytes]

    def assembled(self) -> Assembled:
        compact = self.proposal.block
        transactions = tuple(self.found[leaf] for leaf in compact.leaves)
        block = Block(compact.header, compact.bundles, tuple(pooled.encoded for pooled in transactions), compact.entries)
        return Assembled(self.proposal, block, self.bundles, transactions)


class Assembling:
    """Proposals by the hash of their block, while consensus ``awaits`` them: two of the current view, and of earlier ones those
    that a quorum has notarized.

    Attributes:
        partial: those that are not whole.
    """

    def __init__(self, mempool: Mempool, awaits: Callable[[bytes], bool]) -> None:
        self._mempool, self._awaits = mempool, awaits
        self.partial: dict[bytes, _Partial] = {}

    def begin(self, proposal: Proposal, bundles: tuple[CertifiedBundle, ...]) -> Assembled | tuple[int, ...]:
        """The whole, or the places of the transactions that are not here."""
        self.partial = {block_hash: one for block_hash, one in self.partial.items() if self._awaits(block_hash)}
        leaves = proposal.block.leaves
        found = {leaf: pooled for leaf in leaves if (pooled := self._mempool.seen(leaf)) is not None}
        places = tuple(place for place, leaf in enumerate(leaves) if leaf not in found)
        partial = _Partial(proposal, bundles, found, {leaves[place] for place in places})
        if not places:
            return partial.assembled()
        self.partial.setdefault(proposal.vote.block, partial)
        return places

    def offer(self, transactions: Iterable[Pooled]) -> list[Assembled]:
        """Clients sent transactions. Returns what they complete."""
        if not self.partial:
            return []
        by_leaf = {pooled.leaf: pooled for pooled in transactions}
        return [assembled for block_hash in list(self.partial) if (assembled := self._fill(block_hash, by_leaf)) is not None]

    def answered(self, member: int, reply: TransactionsReply) -> Assembled | None:
        """A leader sent transactions of its proposal. Raises Misnamed, and drops the proposal, if they are something else."""
        partial = self.partial.get(reply.block)
        if partial is None or partial.proposal.vote.signer != member:
            return None
        proposed, sent = iter(partial.proposal.block.leaves), dict[bytes, Pooled]()
        leaves = list(map(leaf_hash, reply.transactions))
        try:
            # It may answer what this member asked before it was restarted, or lacked less or more.
            if not leaves or not all(leaf in proposed for leaf in leaves):
                raise DecodeError("not of the proposal, or not in its order")
            for leaf, encoded in zip(leaves, reply.transactions, strict=True):
                if leaf in partial.missing:
                    sent[leaf] = read_pooled(encoded, leaf)
        except DecodeError:
            del self.partial[reply.block]
            raise Misnamed(partial.proposal.block.header.view) from None
        return self._fill(reply.block, sent)

    def _fill(self, block_hash: bytes, by_leaf: dict[bytes, Pooled]) -> Assembled | None:
        partial = self.partial[block_hash]
        for leaf in partial.missing & by_leaf.keys():
            partial.missing.remove(leaf)
            partial.found[leaf] = by_leaf[leaf]
        return self.partial.pop(block_hash).assembled() if not partial.missing else None
