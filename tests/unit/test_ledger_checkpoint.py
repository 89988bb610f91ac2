"""Checkpoints: rows out, state back, and everything after goes on as if nothing had happened."""

import random

import pytest
from msgspec import structs

from node.ledger.admission import admit
from node.ledger.commitment import BucketTree
from node.ledger.rows import ANSWERED, META_KEY, WAITING, CheckpointRow
from node.ledger.state import Corrupt, State
from node.protocol.block import Balance, Totals
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.transaction import Leg
from tests.unit.ledger_driver import Ledgers, write

Rows = dict[bytes, bytes]


@pytest.fixture
def busy() -> tuple[Ledgers, Rows]:
    """Two shards with holds and undecided transactions; shard 0 is at a checkpoint, all of them written."""
    ledgers, rows = Ledgers(2, checkpoint_interval=5), Rows()
    a, b = ledgers.account(0), ledgers.account(1)
    ledgers.fund(a, 1_000)
    ledgers.fund(b, 1_000)
    ledgers.block(0, ledgers.freeze(ledgers.account(0, 3)), ledgers.pay(a, b, 10), take=0)
    exchange = ledgers.sign(Leg(b, a, "USD", 20), Leg(a, b, "USD", 7))
    ledgers.block(1, exchange, take=0)
    ledgers.block(0, ledgers.pay(a, ledgers.account(0, 1), 5), take=1)
    assert exchange.id + ANSWERED in ledgers.states[0].records
    while ledgers.states[0].height % 5 or len(list(ledgers.states[0].alarms_before(1 << 60))) < 12:
        ledgers.now += 10
        ledgers.block(0, *(ledgers.pay(a, b, 1) for _ in range(3)), take=0)
    write(rows, ledgers.states[0])
    return ledgers, rows


def restored(ledgers: Ledgers, rows: Rows) -> State:
    return State.restore(ledgers.rules[0], rows.items())


def test_holds_and_undecided_transactions_are_in_the_rows(busy: tuple[Ledgers, Rows]) -> None:
    """That a restored state is the same, and goes on the same, is in the histories."""
    original, state = busy[0].states[0], restored(*busy)
    assert any(key.endswith(WAITING) for key in state.records)
    assert state.totals() == original.totals()
    assert state.totals().pending > 0
    assert (state.balances, state.records) == (original.balances, original.records)


def test_rows_are_what_changed_since_the_last_call(busy: tuple[Ledgers, Rows]) -> None:
    ledgers, rows = busy
    state = ledgers.states[0]
    assert [key for key, _ in state.checkpoint()] == [META_KEY]
    a, c = ledgers.account(0), ledgers.account(0, 1)
    ledgers.block(0, ledgers.pay(c, a, ledgers.balance(c)[0]), take=0)
    with pytest.raises(ValueError, match="not a checkpoint"):
        state.checkpoint()
    for _ in range(9):  # one checkpoint is left out
        ledgers.block(0, take=0)
    before = dict(rows)
    write(rows, state)
    changed = {key for key in rows.keys() | before.keys() if rows.get(key) != before.get(key)}
    assert changed == {a + b"USD", c + b"USD", META_KEY}
    assert c + b"USD" not in rows
    assert restored(*busy).state_root == state.state_root


def test_the_replay_set_comes_back_through_remember(busy: tuple[Ledgers, Rows]) -> None:
    ledgers, _ = busy
    state = restored(*busy)
    leg = Leg(ledgers.account(0), ledgers.account(0, 1), "USD", 1)
    for late, code in ((-1, Code.EXPIRED), (0, Code.DUPLICATE), (5_000, Code.DUPLICATE)):
        transaction = ledgers.sign(leg, valid_until=state.time + late)
        state.remember(transaction.id, transaction.order.valid_until)
        assert admit(state, ledgers.rules[0], transaction.id, transaction, state.time) is code
        assert state.has_seen(transaction.id, transaction.order.valid_until) is (late >= 0)


def test_every_damaged_missing_added_or_older_row_is_noticed(busy: tuple[Ledgers, Rows]) -> None:
    (ledgers, rows), rng = busy, random.Random(3)
    older = dict(rows)
    for _ in range(5):
        ledgers.block(0, ledgers.pay(ledgers.account(0), ledgers.account(0, 1), 1), take=0)
    write(rows, ledgers.states[0])
    mixed_in = ledgers.account(0) + b"USD"
    wrong = [rows | {key: encode(Balance(1))} for key in (b"", b"short", *(bytes(20) + end for end in (b"USD", b"\xff", b"XYZ")))]
    wrong += [rows | {mixed_in: older[mixed_in]}]
    for key, data in rows.items():
        at = rng.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        wrong += [{other: value for other, value in rows.items() if other != key}]
        if key != META_KEY or at != 3:  # the time in the meta row is compared with the header by the caller
            wrong += [rows | change for change in ({key: flipped}, {key: b""}, {key: data + b"\0"}, {key + b"x": data})]
    for damaged in wrong:
        with pytest.raises(Corrupt):
            restored(ledgers, damaged)


def test_balances_that_do_not_sum_up_are_noticed_even_under_a_right_root(busy: tuple[Ledgers, Rows]) -> None:
    ledgers, rows = busy
    state, key = ledgers.states[0], ledgers.account(0) + b"USD"
    forged = Balance(state.balances[key].available + 1, state.balances[key].held)
    root = BucketTree().updated(rows.keys() - {META_KEY}, lambda row: forged if row == key else state.value(row)).root
    meta = decode(CheckpointRow, rows[META_KEY], 1 << 20)
    (usd,) = meta.totals.assets
    for totals in (meta.totals, Totals((structs.replace(usd, available=usd.available + 1),), meta.totals.pending)):
        row = encode(CheckpointRow(meta.height, meta.time, root, totals))
        with pytest.raises(Corrupt, match="USD"):
            restored(ledgers, rows | {key: encode(forged), META_KEY: row})
