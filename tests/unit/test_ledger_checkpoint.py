"""Checkpoints: a root that is due later, worked out a little with each block; rows out, state back, and everything after goes on
as if nothing had happened."""

import random
import time
from collections.abc import Callable, Sequence

import pytest
from msgspec import structs

from node.ledger import rules as ledger_rules
from node.ledger.admission import admit
from node.ledger.commitment import EMPTY_TREE, updated
from node.ledger.execution import Execution
from node.ledger.rows import ANSWERED, REPLAYED, WAITING, Replayed
from node.ledger.state import Overlay, State
from node.ledger.totals import Corrupt
from node.protocol.block import Balance, Totals
from node.protocol.checkpoint import next_state_root
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.transaction import Leg
from tests.unit.ledger_driver import Disk, Ledgers
from tests.vectors.reference import tree

Block = dict[bytes, Balance]
KEYS = [i.to_bytes(20, "big") + b"USD" for i in range(3_000)]


@pytest.fixture
def busy() -> Ledgers:
    """Two shards with holds and undecided transactions; shard 0 is well past a checkpoint with all of them in it."""
    ledgers = Ledgers(2, checkpoint_interval=5)
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
    for _ in range(5):
        ledgers.block(0, take=0)
    return ledgers


# -- the root ----------------------------------------------------------------------------------------------------------


def blocks(seed: int, count: int, most: int) -> list[Block]:
    """Rows that blocks write: some of them often, some of them empty."""
    chance = random.Random(seed)
    return [
        {key: Balance(chance.choice((0, 0, 1, 2))) for key in chance.choices(KEYS[: 1 << chance.randrange(12)], k=number)}
        for number in (chance.choice((0, 1, most)) for _ in range(count))
    ]


def execute(parent: State | Overlay, block: Block) -> Execution:
    overlay = Overlay(parent, parent.height + 1, parent.time)
    overlay.balances.update(block)
    return Execution(overlay, (), ())


def expected_roots(chain: Sequence[Block], interval: int) -> list[bytes]:
    """State roots by height, as docs/protocol.md has it."""
    rows: dict[bytes, list[object]] = {}
    root, roots, due, written, last = bytes(32), [bytes(32)], interval, set[bytes](), bytes(32)
    for height, block in enumerate(chain, 1):
        rows |= {key: [balance.available, 0, False] for key, balance in block.items()}
        written |= block.keys()
        changes = execute(State.genesis(Ledgers(1).rules[0]), block).changes_hash
        roots.append(next_state_root(roots[-1], changes, last + root if height == due else b""))
        if height == due:
            root, last = tree({key: value for key, value in rows.items() if any(value)}), roots[-1]
            due += interval * max(1, -(-len(written) // (interval * ledger_rules.HASHED_ROWS)))
            written.clear()
    return roots


@pytest.mark.parametrize("interval", [1, 3, 10])
@pytest.mark.parametrize("ahead", [1, 2, 25])
def test_a_checkpoints_header_has_the_root_as_of_the_checkpoint_before(
    monkeypatch: pytest.MonkeyPatch, interval: int, ahead: int
) -> None:
    """``ahead``: so many blocks are executed before the first of them is final."""
    monkeypatch.setattr(ledger_rules, "HASHED_ROWS", 20)
    chain = blocks(seed=7, count=75, most=100)
    state, roots = State.genesis(Ledgers(1, interval).rules[0]), [bytes(32)]
    for start in range(0, len(chain), ahead):
        parent: State | Overlay = state
        executed = []
        for block in chain[start : start + ahead]:
            executed.append(execute(parent, block))
            parent = executed[-1].overlay
        for execution in executed:
            state.commit(execution.overlay)
            roots.append(execution.state_root)
    assert roots == expected_roots(chain, interval)


def test_a_checkpoint_that_is_not_final_counts_even_when_no_row_was_written_since() -> None:
    chain: list[Block] = [{key: Balance(1)} for key in KEYS[:4]] + [{}, {}] * 3
    state, roots = State.genesis(Ledgers(1, 3).rules[0]), [bytes(32)]
    tip: State | Overlay = state
    for height, block in enumerate(chain, 1):
        execution = execute(tip, block)
        tip = execution.overlay
        roots.append(execution.state_root)
        if height <= 4:
            state.commit(execution.overlay)
    assert roots == expected_roots(chain, 3)


def test_branches_that_are_not_final_do_not_see_each_other() -> None:
    state = State.genesis(Ledgers(1, 3).rules[0])
    left, right = ([*blocks(seed, 12, 30)] for seed in (1, 2))
    tips: list[State | Overlay] = [state, state]
    roots: list[list[bytes]] = [[bytes(32)], [bytes(32)]]
    for pair in zip(left, right, strict=True):
        for side in range(2):
            execution = execute(tips[side], pair[side])
            tips[side] = execution.overlay
            roots[side].append(execution.state_root)
    assert roots == [expected_roots(left, 3), expected_roots(right, 3)]


def test_no_block_hashes_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are counted, since time is the machine's. A checkpoint with more rows takes longer, not more at once."""
    monkeypatch.setattr(ledger_rules, "HASHED_ROWS", 50)
    state = State.genesis(Ledgers(1, 10).rules[0])
    rows: Block = {key: Balance(1) for key in KEYS}
    gaps, last, stored, largest = [], 0, set[bytes](), 0
    for height in range(1, 151):
        wanted = rows if height == 5 else {KEYS[height]: Balance(height)}
        part = state.commit(execute(state, wanted).overlay)
        largest = max(largest, len(part.rows))
        stored |= {key for key, _ in part.rows}
        if state.checkpoint == height:
            assert part.certified_at == (height if last else None)
            gaps.append(height - last)
            last = height
    assert len(stored) == len(KEYS)
    assert gaps == [10, 60, 10, 10, 10, 10, 10, 10, 10, 10]
    assert largest <= 50 * 10 // 9 + 1, "a tenth of the blocks is left over"


def test_dust_in_chosen_places_makes_no_block_slow() -> None:
    """100,000 accounts whose addresses end alike. In a tree of fixed buckets one block took half a second for it; here none
    takes more than some milliseconds, so the limit is generous."""
    state = State.genesis(Ledgers(1, 100).rules[0])
    dust = [i.to_bytes(18, "big") + b"xxUSD" for i in range(100_000)]
    for start in range(0, len(dust), 2_000):
        state.commit(execute(state, {key: Balance(1) for key in dust[start : start + 2_000]}).overlay)
    slowest = 0.0
    while state.height < 200:
        begun = time.thread_time()
        state.commit(execute(state, {}).overlay)
        slowest = max(slowest, time.thread_time() - begun)
    assert slowest < 0.2


# -- rows --------------------------------------------------------------------------------------------------------------


def test_holds_and_undecided_transactions_are_in_the_rows(busy: Ledgers) -> None:
    """That a restored state goes on the same is in the histories."""
    disk = busy.disks[0]
    assert disk.whole is not None
    state = disk.restored(busy.rules[0])
    assert any(key.endswith(WAITING) for key in state.records)
    assert (state.height, state.next_checkpoint) == disk.whole
    assert state.totals().hash() == disk.headers[state.height].totals_hash
    assert state.totals().pending > 0


def test_rows_are_as_of_the_checkpoint_and_only_those_written_since_the_one_before(busy: Ledgers) -> None:
    a, c, disk = busy.account(0), busy.account(0, 1), busy.disks[0]
    before, at = disk.rows(), busy.balance(a)[0]
    busy.block(0, busy.pay(c, a, busy.balance(c)[0]), take=0)
    for _ in range(4):
        busy.block(0, take=0)
    first = len(disk.slices)
    for _ in range(5):
        busy.block(0, busy.pay(a, c, 1), take=0)
    parts = disk.slices[first:]
    rows = dict(row for part in parts for row in part.rows)
    assert disk.whole == (busy.states[0].height - 5, busy.states[0].height)
    accounts = {key: value for key, value in rows.items() if not key.endswith(REPLAYED)}
    assert accounts == {a + b"USD": encode(Balance(at + 5, busy.balance(a)[1])), c + b"USD": None}
    assert len(rows) == 3, "and a row of the replay set"
    assert before | rows == disk.rows()


def test_the_replay_set_comes_back_with_the_rows(busy: Ledgers) -> None:
    """As of the checkpoint: what was included later is not in it."""
    pay = [busy.pay(busy.account(0), busy.account(0, 1), 1) for _ in range(11)]
    for transaction in pay:
        busy.block(0, transaction, take=0)
    state, when = busy.disks[0].restored(busy.rules[0]), busy.states[0].height - 11
    for height, transaction in enumerate(pay, when + 1):
        code = Code.DUPLICATE if height <= state.height else Code.OK
        assert admit(state, busy.rules[0], transaction.id, transaction, state.time) is code
    assert when < state.height < when + 11


@pytest.mark.parametrize("wrong", [lambda ids: ids[:-32], lambda ids: ids[32:] + ids[:32], lambda ids: b"\0" + ids[1:]])
def test_ids_that_are_not_those_of_the_rows_are_noticed(busy: Ledgers, wrong: Callable[[bytes], bytes]) -> None:
    disk = busy.disks[0]
    for key in [key for key in disk.rows() if key.endswith(REPLAYED)]:
        disk.ids[key] = wrong(disk.ids[key][: 32 * busy_count(disk, key)])
    with pytest.raises(Corrupt, match="replay set"):
        disk.restored(busy.rules[0])


def busy_count(disk: Disk, key: bytes) -> int:
    data = disk.rows()[key]
    return decode(Replayed, data, 100).count if data is not None else 0


def test_every_damaged_missing_added_or_older_row_is_noticed(busy: Ledgers) -> None:
    disk, rng = busy.disks[0], random.Random(3)
    older = disk.rows()
    for _ in range(10):
        busy.block(0, busy.pay(busy.account(0), busy.account(0, 1), 1), take=0)
    rows = disk.rows()
    right = disk.restored(busy.rules[0]).checkpoint_root()
    mixed_in = busy.account(0) + b"USD"
    wrong: list[dict[bytes, bytes | None]]
    wrong = [rows | {key: encode(Balance(1))} for key in (b"", b"short", *(bytes(20) + end for end in (b"USD", b"\xff", b"XYZ")))]
    wrong += [rows | {mixed_in: older[mixed_in]}]
    for key, data in rows.items():
        if data is None:
            continue
        at = rng.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        wrong += [{row: value for row, value in rows.items() if row != key}]
        wrong += [rows | {key: other} for other in (flipped, b"", None, data + b"\0")]
        wrong += [rows | {key + b"x": data}]
    for damaged in wrong:
        assert damaged != rows
        assert root_of(busy, disk, damaged) != right


def root_of(ledgers: Ledgers, disk: Disk, rows: dict[bytes, bytes | None]) -> bytes:
    try:
        return disk.restored(ledgers.rules[0], rows).checkpoint_root()
    except Corrupt:
        return b""


def test_balances_that_do_not_sum_up_are_noticed_even_under_a_right_root(busy: Ledgers) -> None:
    disk, key = busy.disks[0], busy.account(0) + b"USD"
    state = disk.restored(busy.rules[0])
    forged = Balance(state.balances[key].available + 1, state.balances[key].held)
    (usd,) = state.totals().assets
    for totals in (state.totals(), Totals((structs.replace(usd, available=usd.available + 1),), state.totals().pending)):
        disk.headers[state.height] = structs.replace(disk.headers[state.height], totals_hash=totals.hash())
        with pytest.raises(Corrupt, match="USD"):
            disk.restored(busy.rules[0], disk.rows() | {key: encode(forged)})


def test_the_root_is_that_of_all_rows(busy: Ledgers) -> None:
    state = busy.disks[0].restored(busy.rules[0])
    rows = [*state.balances.items(), *state.records.items()]
    assert updated(EMPTY_TREE, rows).root == state.checkpoint_root()


@pytest.mark.parametrize("made_up", [Balance(1), Balance(0, 1)], ids=["available", "held"])
def test_a_balance_of_an_asset_that_never_came_here_is_noticed_even_under_a_right_root(busy: Ledgers, made_up: Balance) -> None:
    disk, state = busy.disks[0], busy.disks[0].restored(busy.rules[0])
    assert "EUR" not in [total.asset for total in state.totals().assets]
    with pytest.raises(Corrupt, match="EUR"):
        disk.restored(busy.rules[0], disk.rows() | {busy.account(0) + b"EUR": encode(made_up)})
