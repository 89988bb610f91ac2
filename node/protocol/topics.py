"""The broker's contract: topics and what is published on them (MessagePack), between nodes, coordinator and clients.

The broker may lose and repeat; it cannot forge, because whatever is believed is signed, and whatever matters is asked
for again: transactions are re-sent until final, blocks are numbered by height and refilled by query.
"""

from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.block import MemberIndex, ShardNumber
from node.protocol.certificate import Electorate
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import Hash, KeyPair, Signature, digest, verify
from node.protocol.limits import MAX_BATCH_TRANSACTIONS, MAX_TRANSACTION_BYTES, MIN_TRANSACTION_BYTES


def transactions_topic(network: bytes, chain: Chain) -> str:
    """Client -> every member of the committee that keeps the home shard's chain: ``TransactionBatch``."""
    return f"shardpay:{network.hex()}:tx:{chain.epoch}:{chain.shard}"


def blocks_topic(network: bytes, chain: Chain) -> str:
    """Proposer -> clients: one ``CertifiedBlock`` per message, in height order but for losses."""
    return f"shardpay:{network.hex()}:blocks:{chain.epoch}:{chain.shard}"


def refusals_topic(network: bytes, chain: Chain) -> str:
    """Node -> clients: ``Refusals``."""
    return f"shardpay:{network.hex()}:refusals:{chain.epoch}:{chain.shard}"


def queries_topic(network: bytes, chain: Chain) -> str:
    """Client -> nodes of a committee: ``Query``."""
    return f"shardpay:{network.hex()}:query:{chain.epoch}:{chain.shard}"


def replies_topic(network: bytes, client: str) -> str:
    """Node -> one client: ``Reply``. ``client`` is any unguessable text."""
    return f"shardpay:{network.hex()}:reply:{client}"


def epoch_topic(network: bytes) -> str:
    """Coordinator -> all: ``Announcement``, on every change and every second."""
    return f"shardpay:{network.hex()}:epoch"


def bulletins_topic(network: bytes) -> str:
    """Members of committees, and whoever has them -> all: ``bulletins.Message``."""
    return f"shardpay:{network.hex()}:bulletins"


def asks_topic(network: bytes) -> str:
    """Anybody -> who has bulletins and successions: ``bulletins.Ask``."""
    return f"shardpay:{network.hex()}:asks"


def entries_topic(network: bytes) -> str:
    """Nodes and coordinator -> members of the register: one encoded ``entries.Entry`` per message."""
    return f"shardpay:{network.hex()}:entries"


def reports_topic(network: bytes) -> str:
    """Every process -> dashboard: ``Event``."""
    return f"shardpay:{network.hex()}:reports"


_Encoded = Annotated[bytes, Meta(min_length=MIN_TRANSACTION_BYTES, max_length=MAX_TRANSACTION_BYTES)]


class TransactionBatch(Struct, array_like=True, frozen=True):
    """Encoded transactions, at most MAX_BROKER_BATCH_BYTES together."""

    transactions: Annotated[tuple[_Encoded, ...], Meta(min_length=1, max_length=MAX_BATCH_TRANSACTIONS)]


class Refusal(Struct, array_like=True, frozen=True, gc=False):
    """A transaction a node did not admit. For bytes that are no transaction, ``transaction_id`` is SHA-256 of the bytes."""

    transaction_id: Hash
    code: Code


class Refusals(Struct, array_like=True, frozen=True):
    """One member's refusals, signed by it. One member alone may lie: believe f+1 that agree. DUPLICATE is no verdict: the
    transaction is pending, or final in a block."""

    shard: ShardNumber
    member: MemberIndex
    items: Annotated[tuple[Refusal, ...], Meta(min_length=1, max_length=4096)]
    signature: Signature = bytes(64)

    def _statement(self, electorate: Electorate) -> bytes:
        return digest("refusals", encode([electorate.document, self.shard, self.member, self.items]))

    def signed(self, key: KeyPair, electorate: Electorate) -> "Refusals":
        return Refusals(self.shard, self.member, self.items, key.sign(self._statement(electorate)))

    def is_valid(self, electorate: Electorate) -> bool:
        return (
            self.shard == electorate.shard
            and self.member < len(electorate.keys)
            and verify(electorate.keys[self.member], self._statement(electorate), self.signature)
        )
