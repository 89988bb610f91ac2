"""Checkpoints: rows out, state back, and everything after goes on as if nothing had happened."""

import random

import pytest

from node.ledger.execution import Execution, admit
from node.ledger.rows import ANSWERED, META_KEY, WAITING, CheckpointRow
from node.ledger.state import Corrupt, State
from node.protocol.block import Balance
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.transaction import Leg
from tests.unit.ledger_driver import COMMITTED, EXPIRED, Ledgers


class Disk:
    """Rows as storage keeps them."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, rows: tuple[tuple[bytes, bytes | None], ...]) -> None:
        for key, data in rows:
            if data is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = data


@pytest.fixture
def busy() -> tuple[Ledgers, Disk]:
    """Two shards with holds and undecided transactions; shard 0 is at a checkpoint, all of them written."""
    ledgers, disk = Ledgers(2, checkpoint_interval=5), Disk()
    a, b = ledgers.account(0), ledgers.account(1)
    ledgers.fund(a, 1_000)
    ledgers.fund(b, 1_000)
    ledgers.block(0, ledgers.freeze(ledgers.account(0, 3)), ledgers.pay(a, b, 10), take=0)
    exchange = ledgers.sign(Leg(b, a, "USD", 20), Leg(a, b, "USD", 7))
    ledgers.block(1, exchange, take=0)
    ledgers.block(0, ledgers.pay(a, ledgers.account(0, 1), 5), take=1)
    assert exchange.id + ANSWERED in ledgers.states[0].records
    while ledgers.states[0].height % 5 or len(ledgers.states[0].alarms_before(1 << 60)) < 12:
        ledgers.now += 10
        ledgers.block(0, *(ledgers.pay(a, b, 1) for _ in range(3)), take=0)
    disk.write(ledgers.states[0].checkpoint())
    return ledgers, disk


def restored(ledgers: Ledgers, disk: Disk) -> State:
    return State.restore(ledgers.rules[0], disk.rows.items())


def test_restored_state_is_the_same(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, _ = busy
    original, state = ledgers.states[0], restored(*busy)
    assert (state.height, state.time, state.state_root) == (original.height, original.time, original.state_root)
    assert state.balances == original.balances
    assert state.records == original.records
    assert any(key.endswith(WAITING) for key in state.records)
    assert state.totals() == original.totals()
    assert state.totals().pending > 0
    assert {k: v for k, v in state.undecided.items() if v} == {k: v for k, v in original.undecided.items() if v}
    assert (state.cursor(1), state.sequence(1)) == (original.cursor(1), original.sequence(1))


@pytest.mark.parametrize("expire", [False, True])
def test_later_blocks_have_the_same_roots(busy: tuple[Ledgers, Disk], expire: bool) -> None:
    ledgers, _ = busy
    twin, original = restored(*busy), ledgers.states[0]
    seen = set()
    for i in range(12):
        ledgers.now += 995 if expire else 0
        bundles = list(ledgers.channels[1, 0])
        ledgers.channels[1, 0].clear()
        transactions = [ledgers.pay(ledgers.account(0), ledgers.account(i % 2, i % 4 + 1), 3)]
        ledgers.states[0] = twin
        again = ledgers.execute(0, *transactions, bundles=bundles)
        twin.commit(again.overlay)
        ledgers.states[0] = original
        execution = ledgers.block(0, *transactions, bundles=bundles)
        assert (again.state_root, again.effects, again.outbox) == (execution.state_root, execution.effects, execution.outbox)
        seen |= {receipt.outcome for receipt in execution.effects.receipts}
        ledgers.block(1)
    assert (EXPIRED if expire else COMMITTED) in seen
    assert twin.totals() == original.totals()
    assert twin.records == original.records
    assert any(key.endswith(ANSWERED) for key in twin.records) is not expire


def test_rows_are_what_changed_since_the_last_call(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, disk = busy
    assert [key for key, _ in ledgers.states[0].checkpoint()] == [META_KEY]
    a, c = ledgers.account(0), ledgers.account(0, 1)
    everything = ledgers.balance(c)[0]
    ledgers.block(0, ledgers.pay(c, a, everything), take=0)
    for _ in range(4):
        ledgers.block(0, take=0)
    rows = ledgers.states[0].checkpoint()
    assert {key for key, _ in rows} == {a + b"USD", c + b"USD", META_KEY}
    assert dict(rows)[c + b"USD"] is None
    disk.write(rows)
    assert restored(*busy).state_root == ledgers.states[0].state_root


def test_checkpoint_is_taken_only_where_the_header_commits_to_the_state(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, _ = busy
    ledgers.block(0, take=0)
    with pytest.raises(ValueError, match="not a checkpoint"):
        ledgers.states[0].checkpoint()


def test_genesis_checkpoint() -> None:
    ledgers, disk = Ledgers(1), Disk()
    disk.write(ledgers.states[0].checkpoint())
    assert restored(ledgers, disk).state_root == ledgers.states[0].state_root


def test_replay_set_comes_back_through_remember(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, _ = busy
    ledgers.now += 1
    transaction = ledgers.pay(ledgers.account(0), ledgers.account(0, 1), 1)
    state = restored(*busy)
    state.remember(transaction.id, transaction.order.valid_until)
    assert admit(state, ledgers.rules[0], transaction.id, transaction, ledgers.now) is Code.DUPLICATE
    late = ledgers.sign(*transaction.order.legs, valid_until=state.time - 1)
    state.remember(late.id, late.order.valid_until)
    assert not state.has_seen(late.id, late.order.valid_until)


def test_every_damaged_missing_or_added_row_is_noticed(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, disk = busy
    rules, rng = ledgers.rules[0], random.Random(3)
    assert len(disk.rows) > 5
    for key, data in disk.rows.items():
        at = rng.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        if key != META_KEY or at != 3:  # the time in the meta row is compared with the header by the caller
            for change in ({key: flipped}, {key: b""}, {key: data + b"\0"}, {key + b"x": data}):
                with pytest.raises(Corrupt):
                    State.restore(rules, (disk.rows | change).items())
        with pytest.raises(Corrupt):
            State.restore(rules, [row for row in disk.rows.items() if row[0] != key])
    for key in (b"", b"short", bytes(20) + b"USD", bytes(20) + b"\xff", bytes(20) + b"XYZ"):
        with pytest.raises(Corrupt):
            State.restore(rules, (disk.rows | {key: encode(Balance(1))}).items())


def test_rows_of_an_older_checkpoint_mixed_in_are_noticed(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, disk = busy
    old = dict(disk.rows)
    for _ in range(5):
        ledgers.block(0, ledgers.pay(ledgers.account(0), ledgers.account(0, 1), 1), take=0)
    disk.write(ledgers.states[0].checkpoint())
    key = ledgers.account(0) + b"USD"
    with pytest.raises(Corrupt, match="state root"):
        State.restore(ledgers.rules[0], (disk.rows | {key: old[key]}).items())


def test_balances_that_do_not_sum_up_are_noticed_even_under_a_right_root(busy: tuple[Ledgers, Disk]) -> None:
    ledgers, disk = busy
    state = ledgers.states[0]
    key = ledgers.account(0) + b"USD"
    rows = disk.rows | {key: encode(Balance(state.balances[key].available + 1, state.balances[key].held))}
    del rows[META_KEY]
    forged = State(ledgers.rules[0], state.time)
    forged._load(rows)
    root = forged.tree.updated(rows, forged.value).root
    for totals in (state.totals(), decode(CheckpointRow, disk.rows[META_KEY], 1 << 20).totals):
        meta = encode(CheckpointRow(state.height, state.time, root, totals))
        with pytest.raises(Corrupt, match="USD"):
            State.restore(ledgers.rules[0], (rows | {META_KEY: meta}).items())


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_checkpoint_roots_of_blocks_not_committed_yet(interval: int) -> None:
    """A chain of executions, committed late, has the roots of the same blocks committed one by one."""
    early, late = Ledgers(1, interval), Ledgers(1, interval)
    roots, pending = [], list[Execution]()
    for i in range(9):
        mint = early.pay(early.issuer("USD"), early.account(0, i % 4), 10 + i)
        burn = early.pay(early.account(0, i % 4), early.issuer("USD"), 10 + i)
        late.account(0, i % 4)
        transactions = (mint, burn) if i % 2 else (mint,)
        roots.append(early.block(0, *transactions).state_root)
        pending.append(late.execute(0, *transactions, parent=pending[-1] if pending else None))
        if i == 4:
            for execution in pending[:-1]:
                late.states[0].commit(execution.overlay)
            pending = pending[-1:]
            assert late.states[0].state_root == roots[3]
        assert pending[-1].state_root == roots[-1]
    for execution in pending:
        late.states[0].commit(execution.overlay)
    assert late.states[0].state_root == early.states[0].state_root
    assert late.states[0].tree.root == early.states[0].tree.root
