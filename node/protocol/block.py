"""Blocks, their headers, and what executing one produced."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol import merkle
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import Hash, digest, domain_prefix
from node.protocol.limits import MAX_ASSETS, MAX_BLOCK_ENTRIES, MAX_BLOCK_TRANSACTIONS, MAX_COMMITTEE, MAX_SHARDS
from node.protocol.puzzle import NONCE_BYTES
from node.protocol.transaction import Amount, AssetCode, Milliseconds

ShardNumber = Annotated[int, Meta(ge=0, lt=MAX_SHARDS)]
MemberIndex = Annotated[int, Meta(ge=0, lt=MAX_COMMITTEE)]
Height = Annotated[int, Meta(ge=0, le=2**53)]
View = Annotated[int, Meta(ge=0, le=2**53)]
"""A turn of the consensus: each has one leader and ends in a block or in none. Heights number the blocks without gaps."""
Tally = Annotated[int, Meta(ge=0)]
"""Units since genesis, modulo 2^64 (the codec takes no more): it begins again at 0, so it never runs out. See ``net``."""
_TALLIES = 1 << 64


def tally(units: int) -> int:
    """The tally of so many units."""
    return units % _TALLIES


def net(more: int, less: int) -> int:
    """The difference of two tallies, or of their sums, read as signed: exact while it is within -2^63 and 2^63 - 1."""
    return (more - less + _TALLIES // 2) % _TALLIES - _TALLIES // 2


class Header(Struct, array_like=True, frozen=True):
    """What a block's certificate signs (through its hash): where the block stands and every effect it has.

    Fields:
        document: hash of the epoch document whose committee signs; zeros at height 0.
        parent: hash of the block at ``height - 1``.
        skip: hash of the block at ``skip_height(height)``; zeros at height 0.
        time: block time, ms; never before the parent's.
        proposer: index of the leader of ``view`` in the committee.
        payload_root: as ``payload_root`` gives it.
        receipts_root: Merkle root over the encoded receipts.
        outbox_root: Merkle root over the encoded ``channel.Bundle`` of each destination, in shard order.
        changes_hash: digest of the encoded state changes.
        totals_hash: digest of the encoded ``Totals`` after the block.
        change_hash: hash of the shard's ``change.Change`` after the block.
        state_root: the parent's chained with changes_hash; at a checkpoint with the state tree's root as of the one before, too.
        nonce: proof of work, chosen by mining. Last and of fixed width, so a miner hashes only the tail.
    """

    document: Hash
    shard: ShardNumber
    view: View
    height: Height
    parent: Hash
    skip: Hash
    time: Milliseconds
    proposer: MemberIndex
    payload_root: Hash
    receipts_root: Hash
    outbox_root: Hash
    changes_hash: Hash
    totals_hash: Hash
    change_hash: Hash
    state_root: Hash
    nonce: Annotated[bytes, Meta(min_length=8, max_length=8)]

    @property
    def hash(self) -> bytes:
        """The block's hash: 32 bytes; its leading zero bits are the proof of work."""
        return digest("block", encode(self))

    @property
    def mining_prefix(self) -> bytes:
        """The bytes before the nonce of all that the block's hash covers: what a miner searches over."""
        return domain_prefix("block") + encode(self)[:-NONCE_BYTES]


def skip_height(height: int) -> int:
    """The height with its lowest set bit cleared: a chain of such links leads down in few steps (a skip list; for chains of
    blocks: Nikitin et al., CHAINIAC, 2017)."""
    return height & (height - 1)


def payload_root(bundles: Sequence[bytes], leaves: Sequence[bytes], entries: Sequence[bytes] = ()) -> bytes:
    """The Merkle root over three: of the bundles', of the transactions', these by their ``merkle.leaf_hash``, and of the entries'
    root. So nothing can pass from one to the other, and who has the leaves knows what the header commits to."""
    return merkle.root([merkle.root(bundles), merkle.root_above(leaves), merkle.root(entries)])


class Block(Struct, array_like=True, frozen=True):
    """A header and its payload: encoded ``channel.CertifiedBundle``s, encoded transactions, and in the register's blocks encoded
    ``entries.Entry``s, in order of execution."""

    header: Header
    bundles: Annotated[tuple[bytes, ...], Meta(max_length=MAX_SHARDS)]
    transactions: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]
    entries: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BLOCK_ENTRIES)] = ()

    def compact(self) -> "CompactBlock":
        return CompactBlock(self.header, self.bundles, tuple(map(merkle.leaf_hash, self.transactions)), self.entries)

    def payload_root(self) -> bytes:
        return self.compact().payload_root()


class CompactBlock(Struct, array_like=True, frozen=True):
    """A block for who has most of its transactions already (after BIP 152): in their place ``leaves``, the ``merkle.leaf_hash``
    of each as it is encoded, witnesses included."""

    header: Header
    bundles: Annotated[tuple[bytes, ...], Meta(max_length=MAX_SHARDS)]
    leaves: Annotated[tuple[Hash, ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]
    entries: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BLOCK_ENTRIES)] = ()

    def payload_root(self) -> bytes:
        return payload_root(self.bundles, self.leaves, self.entries)


class Outcome(IntEnum):
    """What became of a transaction in a block. PREPARED may be followed by COMMITTED, REJECTED or EXPIRED, which are final."""

    PREPARED = 1
    COMMITTED = 2
    REJECTED = 3
    EXPIRED = 4


class Receipt(Struct, array_like=True, frozen=True, gc=False):
    """One step of one transaction in this shard: in the home shard its decision, in a participant that it was applied."""

    transaction_id: Hash
    outcome: Outcome
    code: Code = Code.OK


class PeerTotal(Struct, array_like=True, frozen=True, gc=False):
    """Units of an asset this shard sent to, and took in from, one other shard, in this epoch."""

    shard: ShardNumber
    exported: Tally
    imported: Tally


class AssetTotal(Struct, array_like=True, frozen=True):
    """One asset's totals in one shard. Always ``is_balanced``: what is here is what came in, less what went out.

    ``minted``, ``burned``: since genesis, in the shard that keeps the issuer's account. ``carried``: what the epoch began with
    beyond those, so that they balance."""

    asset: AssetCode
    available: Amount
    held: Amount
    minted: Tally
    burned: Tally
    carried: Tally
    peers: Annotated[tuple[PeerTotal, ...], Meta(max_length=MAX_SHARDS)]

    @property
    def issued(self) -> int:
        """Units minted here and not burned yet, wherever they are."""
        return net(self.minted, self.burned)

    @property
    def is_balanced(self) -> bool:
        """Whether available + held = carried + minted - burned + sum(imported) - sum(exported)."""
        entered = self.carried + self.minted + sum(peer.imported for peer in self.peers)
        left = self.burned + sum(peer.exported for peer in self.peers)
        return self.available + self.held == net(entered, left)


class Totals(Struct, array_like=True, frozen=True):
    """The shard's totals after a block, by asset code; ``pending`` counts its undecided or unapplied cross-shard transactions."""

    assets: Annotated[tuple[AssetTotal, ...], Meta(max_length=MAX_ASSETS)]
    pending: Annotated[int, Meta(ge=0)]

    def hash(self) -> bytes:
        return digest("totals", encode(self))


class Balance(Struct, array_like=True, frozen=True, gc=False):
    """An account's balance of one asset: ``available`` can be spent, ``held`` is escrowed by undecided transactions."""

    available: Amount = 0
    held: Amount = 0
    frozen: bool = False


class BalanceChange(Struct, array_like=True, frozen=True, gc=False):
    """An account's balance of one asset after the block."""

    address: Annotated[bytes, Meta(min_length=20, max_length=20)]
    asset: AssetCode
    balance: Balance


class Changes(Struct, array_like=True, frozen=True):
    """All that a block changed: balances by (address, asset), and a digest over the other records of the state."""

    balances: tuple[BalanceChange, ...]
    records_hash: Hash

    def hash(self) -> bytes:
        return digest("changes", encode(self))


class Effects(Struct, array_like=True, frozen=True):
    """What executing a block produced, each part bound by a root in its header."""

    receipts: tuple[Receipt, ...]
    changes: Changes
    totals: Totals

    def match(self, header: Header) -> bool:
        """Whether these are the effects the header commits to."""
        return (
            merkle.root([encode(receipt) for receipt in self.receipts]) == header.receipts_root
            and self.changes.hash() == header.changes_hash
            and self.totals.hash() == header.totals_hash
        )
