"""What a member answers clients: only what it is asked itself, unless the answer is small, and never much at once."""

import pytest

from node.effects import Publish, ReplyBlocks
from node.protocol.codec import decode, encode
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_LISTED_BYTES
from node.protocol.queries import EVERYONE, GetAccount, GetBlocks, GetPending, GetStatus, PendingList, Query, Reply, Request
from node.replica.mempool import read_pooled
from tests.chains import Network, key
from tests.unit.replicas import at, replica_of

NETWORK = Network(committees=1)


@pytest.mark.parametrize(
    ("request_", "by_everyone"),
    [(GetStatus(), True), (GetAccount(bytes(20)), True), (GetBlocks(1, 1), False), (GetPending(1), False)],
)
def test_it_is_answered_by_the_member_asked_and_by_everyone_only_if_it_is_small(request_: Request, by_everyone: bool) -> None:
    replica = replica_of(NETWORK, 0)
    asked = [Query(bytes(16), "client", member, request_) for member in (0, 1, EVERYONE)]
    answers = [[e for e in replica.on_query(query, at(1)) if isinstance(e, Publish | ReplyBlocks)] for query in asked]
    assert [bool(effects) for effects in answers] == [True, False, by_everyone]


def test_transactions_that_wait_are_listed_as_far_as_they_fit() -> None:
    replica, memo = replica_of(NETWORK, 0), "x" * 140
    for salt in range(1000):
        transaction = NETWORK.pay(NETWORK.issuers["USD"], key("payee"), 5, memo=memo, salt=salt)
        replica.mempool.add(read_pooled(encode(transaction)))
    (reply,) = (e for e in replica.on_query(Query(bytes(16), "c", 0, GetPending(1000)), at(1)) if isinstance(e, Publish))
    answer = decode(Reply, reply.body, MAX_BROKER_BODY_BYTES).answer
    assert isinstance(answer, PendingList)
    listed = [encoded for _, encoded in answer.transactions]
    assert answer.total == 1000 > len(listed)
    assert MAX_LISTED_BYTES - len(listed[0]) < sum(map(len, listed)) <= MAX_LISTED_BYTES
