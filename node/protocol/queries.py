"""Questions of clients to the members of a committee, over the broker, and the answers they sign."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from node.protocol.block import Balance, Height, MemberIndex, ShardNumber
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import Hash, KeyPair, Signature, digest, verify
from node.protocol.transaction import AssetCode


class GetStatus(Struct, array_like=True, frozen=True, tag=1):
    """-> ``NodeStatus``."""


class GetBlocks(Struct, array_like=True, frozen=True, tag=2):
    """Final blocks from height ``first`` on -> ``BlockList``. To be asked of one member."""

    first: Height
    count: Annotated[int, Meta(ge=1, le=256)]


class GetAccount(Struct, array_like=True, frozen=True, tag=3):
    """-> ``Account``. One member alone may lie: believe f+1 that agree."""

    address: Annotated[bytes, Meta(min_length=20, max_length=20)]


class GetPending(Struct, array_like=True, frozen=True, tag=4):
    """Transactions waiting in the mempool -> ``PendingList``. To be asked of one member."""

    limit: Annotated[int, Meta(ge=1, le=1000)]


Request = GetStatus | GetBlocks | GetAccount | GetPending
EVERYONE = -1
"""Each member of the committee."""


class Query(Struct, array_like=True, frozen=True):
    """``member``: index of the node that shall answer, or EVERYONE, if the answer is small."""

    id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    client: Annotated[str, Meta(min_length=1, max_length=64)]
    member: Annotated[int, Meta(ge=EVERYONE)]
    request: Request

    @property
    def is_small(self) -> bool:
        """Whether the answer has some hundred bytes at most, so that everyone may be asked."""
        return isinstance(self.request, GetStatus | GetAccount)


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
    """Consecutive blocks from the requested height; fewer than asked when they would not fit, or do not exist yet; none if they
    are not kept any more. ``oldest``: height from which on the member keeps all."""

    blocks: tuple[CertifiedBlock, ...]
    oldest: Height = 1


class StoredBlockList(Struct, array_like=True, frozen=True, tag=2):
    """A ``BlockList`` of blocks that storage holds encoded; to be sent, never to be read."""

    blocks: tuple[Raw, ...]
    oldest: int


class Account(Struct, array_like=True, frozen=True, tag=3):
    """Balances by asset at ``height``, in asset order."""

    height: Height
    balances: tuple[tuple[AssetCode, Balance], ...]


class PendingList(Struct, array_like=True, frozen=True, tag=4):
    """(transaction id, encoded transaction) of up to ``limit`` of ``total``; fewer than asked when they would not fit."""

    total: int
    transactions: tuple[tuple[Hash, bytes], ...]


Answer = NodeStatus | BlockList | Account | PendingList


class Reply(Struct, array_like=True, frozen=True):
    """An answer, signed by the member that gives it."""

    id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    epoch: Annotated[int, Meta(ge=1, le=2**53)]
    shard: ShardNumber
    member: MemberIndex
    answer: Answer
    signature: Signature = bytes(64)

    @property
    def chain(self) -> Chain:
        """The one that it is about."""
        return Chain(self.epoch, self.shard)

    def _statement(self, electorate: Electorate) -> bytes:
        return digest("reply", encode([electorate.document, self.id, self.epoch, self.shard, self.member, self.answer]))

    def is_valid(self, electorate: Electorate) -> bool:
        return (
            self.chain == electorate.chain
            and self.member < len(electorate.keys)
            and verify(electorate.keys[self.member], self._statement(electorate), self.signature)
        )


def sign_reply(query_id: bytes, electorate: Electorate, member: int, answer: Answer | StoredBlockList, key: KeyPair) -> bytes:
    """An encoded ``Reply``."""
    sent = [query_id, *electorate.chain, member, answer]
    return encode([*sent, key.sign(digest("reply", encode([electorate.document, *sent])))])
