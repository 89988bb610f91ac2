"""Answering clients' questions over the broker, each answer signed by this member."""

from collections.abc import Sequence
from itertools import islice

from msgspec import Raw

from node.consensus.round import Seat
from node.consensus.simplex import Simplex
from node.effects import Publish, ReplyBlocks
from node.ledger.state import State
from node.protocol.limits import MAX_LISTED_BYTES
from node.protocol.queries import (
    Account,
    Answer,
    GetAccount,
    GetBlocks,
    GetPending,
    GetStatus,
    NodeStatus,
    PendingList,
    Query,
    StoredBlockList,
    sign_reply,
)
from node.protocol.topics import replies_topic
from node.replica.drafts import Draft
from node.replica.mempool import Mempool


class Answering:
    """Answers from memory; blocks are read from storage first. ``name``: the node's."""

    def __init__(self, name: str, seat: Seat, state: State, consensus: Simplex[Draft], mempool: Mempool) -> None:
        self._name, self._seat = name, seat
        self._state, self._consensus, self._mempool = state, consensus, mempool

    def answer(self, query: Query) -> Publish | ReplyBlocks:
        match query.request:
            case GetBlocks():
                return ReplyBlocks(query)
            case GetStatus():
                return _reply(self._seat, query, self._status())
            case GetAccount(address):
                return _reply(self._seat, query, Account(self._state.height, self._state.balances_of(address)))
            case GetPending(limit):
                return _reply(self._seat, query, self._pending(limit))

    def _status(self) -> NodeStatus:
        consensus, state = self._consensus, self._state
        return NodeStatus(
            name=self._name,
            height=state.height,
            view=consensus.view,
            state_root=state.state_root,
            leader=consensus.leader_of(consensus.view),
            mempool=len(self._mempool),
            pending_commits=state.totals().pending,
        )

    def _pending(self, limit: int) -> PendingList:
        listed, room = [], MAX_LISTED_BYTES
        for pooled in islice(self._mempool, limit):
            room -= len(pooled.encoded)
            if room < 0:
                break
            listed.append((pooled.id, pooled.encoded))
        return PendingList(len(self._mempool), tuple(listed))


def sign_blocks(seat: Seat, query: Query, stored: Sequence[bytes], oldest: int) -> Publish:
    """The reply to a question, of encoded blocks from storage, which keeps all from ``oldest`` on. May run in any thread."""
    return _reply(seat, query, StoredBlockList(tuple(map(Raw, stored)), oldest))


def _reply(seat: Seat, query: Query, answer: Answer | StoredBlockList) -> Publish:
    body = sign_reply(query.id, seat.electorate, seat.member, answer, seat.key)
    return Publish(replies_topic(seat.electorate.network, query.client), body)
