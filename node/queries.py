"""Answers to clients' questions over the broker, each signed by this member."""

import trio
from msgspec import Raw

from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.queries import (
    Account,
    GetAccount,
    GetBlocks,
    GetPending,
    GetStatus,
    NodeStatus,
    PendingList,
    Query,
    sign_reply,
)
from node.replica import Replica
from node.storage import Storage

_REPLY_BYTES = 2 << 20


async def answer_query(query: Query, replica: Replica, storage: Storage, name: str, key: KeyPair) -> bytes:
    """The encoded reply, from the replica's memory; blocks come from storage, read in a thread, and pass through as they are."""
    answer: NodeStatus | Account | PendingList | Raw
    match query.request:
        case GetStatus():
            consensus = replica.consensus
            answer = NodeStatus(
                name=name,
                height=replica.state.height,
                view=consensus.view,
                state_root=replica.state.state_root,
                leader=consensus.leader_of(consensus.view),
                mempool=len(replica.mempool),
                pending_commits=replica.state.totals().pending,
            )
        case GetBlocks(first, count):
            blocks = await trio.to_thread.run_sync(storage.blocks, first, _REPLY_BYTES, count)
            answer = Raw(encode([2, [Raw(block) for block in blocks]]))  # a BlockList
        case GetAccount(address):
            answer = Account(replica.state.height, replica.state.balances_of(address))
        case GetPending(limit):
            entries = [entry for _, entry in zip(range(limit), replica.mempool, strict=False)]
            answer = PendingList(len(replica.mempool), tuple((entry.id, entry.encoded) for entry in entries))
    return sign_reply(query.id, replica.shard, replica.electorate.epoch, replica.member, answer, key)
