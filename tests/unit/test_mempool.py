"""Transactions that wait: each once, not more than there is room for, and payers in turn."""

from collections import Counter

import pytest
from msgspec import structs

from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction
from node.replica import mempool
from node.replica.mempool import Mempool, Pooled, read_pooled
from tests.chains import Network, key

NETWORK = Network(committees=1)
ANN, BOB, CAROL = key("ann"), key("bob"), key("carol")


def entry(salt: int = 0, transaction: Transaction | None = None, payer: KeyPair = ANN) -> Pooled:
    one = transaction or NETWORK.pay(payer, key("payee"), 5, salt=salt)
    return read_pooled(encode(one))


def entries(payer: KeyPair, count: int) -> list[Pooled]:
    return [entry(salt, payer=payer) for salt in range(count)]


def take_in(pool: Mempool, *offered: Pooled, may_push_out: bool = True) -> list[Refusal]:
    """Screened, checked, settled; all refusals."""
    found, refusals = pool.screen([one.encoded for one in offered])
    pool.expect(found)
    return refusals + pool.settle(found, [True] * len(found), may_push_out=may_push_out)


def test_of_one_transaction_with_two_signatures_the_first_stays() -> None:
    pool, first = Mempool(), entry()
    (witness,) = first.transaction.witnesses
    second = entry(transaction=structs.replace(first.transaction, witnesses=(structs.replace(witness, signature=bytes(64)),)))
    for one in (first, second):
        pool.add(one)
    assert list(pool) == [first]
    pool.remove([first.id])
    assert len(pool) == 0


@pytest.mark.parametrize(("limit", "room"), [("MAX_CHECKING", 2), ("MAX_CHECKING_BYTES", 2 * len(entry().encoded))])
def test_no_more_than_there_is_room_for_is_under_check(monkeypatch: pytest.MonkeyPatch, limit: str, room: int) -> None:
    monkeypatch.setattr(mempool, limit, room)
    pool, offered = Mempool(), entries(ANN, 3)
    pool.expect(offered[:2])
    assert pool.screen([offered[2].encoded]) == ([], [])
    assert pool.dropped == 1
    pool.settle(offered[:2], [False, False], may_push_out=True)
    assert pool.screen([offered[2].encoded]) == ([offered[2]], [])


LIMITS = [("MAX_TRANSACTIONS", 8), ("MAX_BYTES", 8 * len(entry().encoded))]


@pytest.mark.parametrize(("limit", "room"), LIMITS)
def test_who_fills_a_full_mempool_alone_is_refused_more(monkeypatch: pytest.MonkeyPatch, limit: str, room: int) -> None:
    monkeypatch.setattr(mempool, limit, room)
    pool, offered = Mempool(), entries(ANN, 9)
    assert take_in(pool, *offered[:8]) == []
    assert pool.screen([offered[8].encoded]) == ([], [Refusal(offered[8].id, Code.LIMIT_EXCEEDED)])
    pool.expect([offered[8]])
    assert pool.settle([offered[8]], [True], may_push_out=True) == [Refusal(offered[8].id, Code.LIMIT_EXCEEDED)], "full since"
    assert (list(pool), pool.dropped) == (offered[:8], 2)
    pool.remove([offered[0].id])
    assert take_in(pool, offered[8]) == []


@pytest.mark.parametrize(("limit", "room"), LIMITS)
def test_who_has_little_waiting_pushes_out_the_latest_of_who_has_much(
    monkeypatch: pytest.MonkeyPatch, limit: str, room: int
) -> None:
    monkeypatch.setattr(mempool, limit, room)
    pool, much, some = Mempool(), entries(ANN, 7), entries(BOB, 1)
    take_in(pool, *much, *some)
    newcomer, again = entries(CAROL, 2)
    assert take_in(pool, newcomer) == [Refusal(much[6].id, Code.LIMIT_EXCEEDED)]
    assert set(pool) == {*much[:6], *some, newcomer}
    assert take_in(pool, again) == [Refusal(much[5].id, Code.LIMIT_EXCEEDED)]
    for salt in range(2, 9):
        take_in(pool, entry(salt, payer=CAROL))
    waiting = Counter(one.payer for one in pool)
    assert waiting[some[0].payer] == 1, "who has least is left alone"
    assert waiting[much[0].payer] <= 4 * waiting[newcomer.payer], "whoever goes on sending has a quarter of the most at least"
    assert len(pool) == 8


def test_only_what_its_client_sent_pushes_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A liar's proposal brings whatever it likes."""
    monkeypatch.setattr(mempool, "MAX_TRANSACTIONS", 8)
    pool, much = Mempool(), entries(ANN, 8)
    take_in(pool, *much)
    newcomer = entry(payer=CAROL)
    assert take_in(pool, newcomer, may_push_out=False) == [Refusal(newcomer.id, Code.LIMIT_EXCEEDED)]
    assert list(pool) == much


def test_payers_take_turns_and_go_to_the_end_when_one_of_theirs_was_taken() -> None:
    pool = Mempool()
    ann, bob, carol = entries(ANN, 3), entries(BOB, 2), entries(CAROL, 1)
    for one in (*ann, *bob, *carol):
        pool.add(one)

    def turns(*without: Pooled) -> list[Pooled]:
        return list(pool.in_turn(lambda one: one not in without))

    assert turns() == [ann[0], bob[0], carol[0], ann[1], bob[1], ann[2]]
    assert turns(ann[0], carol[0]) == [ann[1], bob[0], ann[2], bob[1]], "what does not fit costs no turn"
    pool.remove([ann[0].id])
    assert turns() == [bob[0], carol[0], ann[1], bob[1], ann[2]]
    pool.remove([bob[0].id, carol[0].id])
    assert turns() == [ann[1], bob[1], ann[2]]
    assert list(pool) == [*ann[1:], bob[1]], "in order of arrival"
