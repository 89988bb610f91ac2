"""The broker's contract: channel names and message bodies (MessagePack), between nodes, coordinator and clients.

The broker may lose and repeat; it cannot forge, because whatever is believed is signed, and whatever matters is asked
for again: transactions are re-sent until final, blocks are numbered by height and refilled by query.
"""

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from node.protocol.block import Balance, Height, MemberIndex, ShardNumber
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import Hash, KeyPair, Signature, digest, verify
from node.protocol.epoch import PhaseNotice, SignedDocument
from node.protocol.transaction import AssetCode, Milliseconds


def transactions_channel(network: bytes, shard: int) -> str:
    """Client -> every member of the home shard's committee: ``TransactionBatch``."""
    return f"shardpay:{network.hex()}:tx:{shard}"


def blocks_channel(network: bytes, shard: int) -> str:
    """Proposer -> clients: one ``CertifiedBlock`` per message, in height order but for losses."""
    return f"shardpay:{network.hex()}:blocks:{shard}"


def refusals_channel(network: bytes, shard: int) -> str:
    """Node -> clients: ``Refusals``."""
    return f"shardpay:{network.hex()}:rejected:{shard}"


def queries_channel(network: bytes, shard: int) -> str:
    """Client -> nodes of a committee: ``Query``."""
    return f"shardpay:{network.hex()}:query:{shard}"


def replies_channel(network: bytes, client: str) -> str:
    """Node -> one client: ``Reply``. ``client`` is any unguessable text."""
    return f"shardpay:{network.hex()}:reply:{client}"


def epoch_channel(network: bytes) -> str:
    """Coordinator -> all: ``EpochAnnouncement``, on every change and every second."""
    return f"shardpay:{network.hex()}:epoch"


def events_channel(network: bytes) -> str:
    """Every process -> dashboard: ``Event``."""
    return f"shardpay:{network.hex()}:events"


class TransactionBatch(Struct, array_like=True, frozen=True):
    """Encoded transactions, at most 64 KB together."""

    transactions: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=4096)]


class Refusal(Struct, array_like=True, frozen=True, gc=False):
    """A transaction a node did not admit. For bytes that are no transaction, ``transaction_id`` is SHA-256 of the bytes."""

    transaction_id: Hash
    code: Code


class Refusals(Struct, array_like=True, frozen=True):
    """One member's refusals, signed by it. One member alone may lie: believe f+1 that agree. DUPLICATE is no verdict: the
    transaction is pending, or final in a block."""

    shard: ShardNumber
    epoch: int
    member: MemberIndex
    items: Annotated[tuple[Refusal, ...], Meta(min_length=1, max_length=4096)]
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("refusals", encode([self.shard, self.epoch, self.member, self.items]))

    def signed(self, key: KeyPair) -> "Refusals":
        return Refusals(self.shard, self.epoch, self.member, self.items, key.sign(self._statement))

    def is_valid(self, electorate: Electorate) -> bool:
        return (
            (self.shard, self.epoch) == (electorate.shard, electorate.epoch)
            and self.member < len(electorate.keys)
            and verify(electorate.keys[self.member], self._statement, self.signature)
        )


class GetStatus(Struct, array_like=True, frozen=True, tag=1):
    """-> ``NodeStatus``."""


class GetBlocks(Struct, array_like=True, frozen=True, tag=2):
    """Final blocks from height ``first`` on -> ``BlockList``."""

    first: Height
    count: Annotated[int, Meta(ge=1, le=256)]


class GetAccount(Struct, array_like=True, frozen=True, tag=3):
    """-> ``Account``. One member alone may lie: believe f+1 that agree."""

    address: Annotated[bytes, Meta(min_length=20, max_length=20)]


class GetPending(Struct, array_like=True, frozen=True, tag=4):
    """Transactions waiting in the mempool -> ``PendingList``."""

    limit: Annotated[int, Meta(ge=1, le=1000)]


Request = GetStatus | GetBlocks | GetAccount | GetPending


class Query(Struct, array_like=True, frozen=True):
    """``member``: index of the node that shall answer, or -1 for each of them."""

    id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    client: Annotated[str, Meta(min_length=1, max_length=64)]
    member: Annotated[int, Meta(ge=-1)]
    request: Request


class NodeStatus(Struct, array_like=True, frozen=True, tag=1):
    name: str
    height: Height
    view: int
    state_root: Hash
    leader: MemberIndex
    mempool: int
    pending_commits: int
    """Cross-shard transactions undecided or unapplied in this shard."""


class BlockList(Struct, array_like=True, frozen=True, tag=2):
    """Consecutive blocks from the requested height; fewer than asked when they would not fit, or do not exist yet."""

    blocks: tuple[CertifiedBlock, ...]


class Account(Struct, array_like=True, frozen=True, tag=3):
    """Balances by asset at ``height``, in asset order."""

    height: Height
    balances: tuple[tuple[AssetCode, Balance], ...]


class PendingList(Struct, array_like=True, frozen=True, tag=4):
    """(transaction id, encoded transaction) of up to ``limit`` of ``total``."""

    total: int
    transactions: tuple[tuple[Hash, bytes], ...]


Answer = NodeStatus | BlockList | Account | PendingList


class Reply(Struct, array_like=True, frozen=True):
    """An answer, signed by the member that gives it."""

    id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    shard: ShardNumber
    epoch: int
    member: MemberIndex
    answer: Answer
    signature: Signature = bytes(64)

    @property
    def _statement(self) -> bytes:
        return digest("reply", encode([self.id, self.shard, self.epoch, self.member, self.answer]))

    def is_valid(self, electorate: Electorate) -> bool:
        return (
            (self.shard, self.epoch) == (electorate.shard, electorate.epoch)
            and self.member < len(electorate.keys)
            and verify(electorate.keys[self.member], self._statement, self.signature)
        )


def sign_reply(id: bytes, shard: int, epoch: int, member: int, answer: Answer | Raw, key: KeyPair) -> bytes:
    """An encoded ``Reply``; the answer may come encoded already."""
    signed = [id, shard, epoch, member, answer]
    return encode([*signed, key.sign(digest("reply", encode(signed)))])


class EpochAnnouncement(Struct, array_like=True, frozen=True):
    """``document``: None before assignment."""

    notice: PhaseNotice
    document: SignedDocument | None


class Event(Struct, array_like=True, frozen=True):
    """What a process is doing; nothing depends on it, so it is not signed.

    kind ``stats``: once a second, ``data`` holds counters since start and gauges of now (the same keys each time).
    kind ``notable``: something worth a line in a feed, ``data["text"]`` says what.
    """

    role: str
    """node, coordinator, gateway."""
    source: str
    """The process's name."""
    kind: str
    time: Milliseconds
    data: dict[str, Any]
