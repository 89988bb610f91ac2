"""Transactions that wait: each once, and not more than there is room for."""

import pytest
from msgspec import structs

from node.protocol.codec import encode
from node.protocol.transaction import Transaction
from node.replica import mempool
from node.replica.mempool import Entry, Mempool
from tests.chains import Network, key

NETWORK = Network(committees=1)


def entry(salt: int = 0, transaction: Transaction | None = None) -> Entry:
    one = transaction or NETWORK.pay(NETWORK.issuers["USD"], key("payee"), 5, salt=salt)
    return Entry(one.id, one, encode(one))


def test_of_one_transaction_with_two_signatures_the_first_stays() -> None:
    pool, first = Mempool(), entry()
    (witness,) = first.transaction.witnesses
    second = entry(transaction=structs.replace(first.transaction, witnesses=(structs.replace(witness, signature=bytes(64)),)))
    for one in (first, second):
        pool.add(one)
    assert list(pool) == [first]
    pool.remove([first.id])
    assert len(pool) == 0


@pytest.mark.parametrize(
    ("limit", "room"), [("MAX_TRANSACTIONS", 2), ("MAX_BYTES", 2 * len(entry().encoded)), ("MAX_CHECKING", 2)]
)
def test_what_there_is_no_room_for_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch, limit: str, room: int) -> None:
    monkeypatch.setattr(mempool, limit, room)
    pool, entries = Mempool(), [entry(salt) for salt in (1, 2, 3)]
    pool.expect(entries[:2])
    if limit != "MAX_CHECKING":
        pool.settle(entries[:2], [True, True])
    assert pool.screen([entries[2].encoded]) == ([], [])
    assert pool.dropped == 1
    pool.settle(entries[:2], [False, False])
    pool.remove([one.id for one in entries])
    assert pool.screen([entries[2].encoded]) == ([entries[2]], [])
