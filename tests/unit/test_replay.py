"""The replay set's rows: they say which ids there are, part for part, and go when no block can include these any more."""

import pytest

from node.ledger import replay
from node.ledger.rows import REPLAYED, Replayed, replay_key
from node.protocol.crypto import digest
from tests.unit.ledger_driver import START, Ledgers

SLOT = replay.slot_of(START + 5_000)
END = replay.last_moment(replay_key(0, SLOT, 0))


@pytest.fixture
def one() -> Ledgers:
    ledgers = Ledgers(1)
    ledgers.block(0, ledgers.sign(ledgers.pay(ledgers.issuer("USD"), ledgers.account(0), 100).order.legs[0], valid_until=START))
    return ledgers


def included(ledgers: Ledgers, count: int, valid_until: int = START + 5_000) -> list[bytes]:
    leg = ledgers.pay(ledgers.account(0), ledgers.account(0, 1), 1).order.legs[0]
    transactions = [ledgers.sign(leg, valid_until=valid_until) for _ in range(count)]
    ledgers.block(0, *transactions)
    return [transaction.id for transaction in transactions]


def parts(ledgers: Ledgers, slot: int = SLOT) -> list[Replayed]:
    rows = [ledgers.states[0].record(replay_key(0, slot, part)) for part in range(9)]
    return [row for row in rows if isinstance(row, Replayed)]


def chain(ids: list[bytes]) -> bytes:
    found = bytes(32)
    for transaction_id in ids:
        found = digest("replay", found, transaction_id)
    return found


def test_a_part_has_the_ids_in_the_order_of_their_inclusion_whatever_the_blocks(
    one: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAY_PART", 4)
    ids = [transaction_id for count in (3, 0, 1, 2, 5) for transaction_id in included(one, count)]
    assert parts(one) == [Replayed(4, chain(ids[:4])), Replayed(4, chain(ids[4:8])), Replayed(3, chain(ids[8:]))]
    for part in range(3):
        own = b"".join(ids[4 * part : 4 * part + 4])
        assert one.disks[0].ids[replay_key(0, SLOT, part)] == own
        assert replay.commits_to(parts(one)[part], own)
        for wrong in (own[32:], own[32:64] + own[:32] + own[64:], own + own[:32], own[:-1]):
            assert not replay.commits_to(parts(one)[part], wrong)


def test_rows_go_when_the_last_of_their_ids_is_expired_and_the_ids_with_them(one: Ledgers) -> None:
    (early,), (late,) = included(one, 1, END - 1), included(one, 1, END + 1)
    for now, is_there in ((END, True), (END + 1, False)):
        one.now = now
        one.block(0)
        assert (parts(one) != []) is is_there
        assert one.states[0].has_seen(early, END - 1) is is_there
        assert one.states[0].has_seen(late, END + 1)
    assert len(parts(one, SLOT + 1)) == 1


def test_blocks_that_are_not_final_go_on_with_each_others_rows(one: Ledgers) -> None:
    pay = [one.sign(one.pay(one.account(0), one.account(0, 1), 1).order.legs[0]) for _ in range(4)]
    first = one.execute(0, *pay[:2])
    second = one.execute(0, *pay[2:], parent=first)
    assert second.overlay.record(replay_key(0, SLOT, 0)) == Replayed(4, chain([transaction.id for transaction in pay]))
    assert [piece.start for piece in second.overlay.included] == [2]
    assert [key[-1:] for key in one.states[0].records].count(REPLAYED) == 1, "nothing of them is final"
