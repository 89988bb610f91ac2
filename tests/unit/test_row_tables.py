"""Rows on disk: a checkpoint that is held stays readable, whatever comes; and what is fetched takes the place of all others."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import Raw, structs

from node import row_tables
from node.consensus.journal import journaled
from node.database import StorageDamaged
from node.effects import BeginHandoff, Checkpoint, Commit, FinishHandoff, Hold, Journal, StoreParts
from node.handing_over import read_checkpoint, read_parts
from node.ledger.commitment import EMPTY_TREE, branches, subtree_root, updated
from node.ledger.rows import REPLAYED, Replayed, replay_key
from node.protocol import limits
from node.protocol.block import Balance
from node.protocol.certificate import VoteKind, sign_vote
from node.protocol.checkpoint import Branching, CertifiedCheckpoint, Ids, Rows
from node.protocol.codec import encode
from node.recovery import recover
from node.storage import Storage
from tests.unit.interrupted import interrupting
from tests.unit.test_recovery import HISTORY, SHARD, committed

LABEL = b"network!"
Model = dict[bytes, bytes]
NAMES = [b"%020d" % number + b"USD" for number in range(600)]
PLACES = [b"", *(bytes([a]) for a in range(16)), *(bytes([a, b]) for a in range(16) for b in range(16))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def storage(path: Path) -> Iterator[Storage]:
    with closing(Storage(path, LABEL)) as found:
        yield found


def below(model: Model, place: bytes) -> list[tuple[bytes, bytes]]:
    digits = "".join(f"{digit:x}" for digit in place)
    return [(key, value) for key, value in sorted(model.items()) if sha256(key).hexdigest().startswith(digits)]


def checkpoints(storage: Storage, count: int, first: int = 1, seed: int = 3) -> Iterator[tuple[int, Model]]:
    """Random rows, a few at a time; yields (height, rows as of it) each time one is whole, and half-way to the next one."""
    chance, model = random.Random(f"{seed}/{first}"), Model()
    for height in range(first, first + count):
        written = {name: chance.choice((None, b"%d" % height)) for name in chance.sample(NAMES, chance.choice((0, 5, 400)))}
        rows = list(written.items())
        storage.write([Checkpoint(height, tuple(rows[: len(rows) // 2]), None)])
        if height > first:
            yield height - 1, model
        storage.write([Checkpoint(height, tuple(rows[len(rows) // 2 :]), height + 1)])
        model = {key: value for key, value in (model | written).items() if value is not None}
        yield height, model


def test_a_part_of_the_last_whole_checkpoint_is_all_rows_of_a_subtree_in_order(storage: Storage) -> None:
    for height, model in checkpoints(storage, 20):
        for place in random.Random(height).sample(PLACES, 8):
            assert storage.part(height, place) == below(model, place)
        name = NAMES[height]
        assert storage.row(height, name) == model.get(name)
        assert storage.part(height - 1, b"") is None
        assert storage.part(height + 1, b"") is None


def test_the_held_checkpoint_stays_as_it_was_until_it_is_let_go(storage: Storage, path: Path) -> None:
    held: tuple[int, Model] | None = None
    for height, model in checkpoints(storage, 40):
        if held is None and height == 7:
            storage.write([Hold(height)])
            held = height, model
        if held is not None:
            for place in (b"", *random.Random(height).sample(PLACES, 5)):
                assert storage.part(held[0], place) == below(held[1], place)
        assert storage.part(height, b"") == below(model, b"")
    assert held is not None
    storage.write([Hold(None)])
    assert storage.part(held[0], b"") is None
    assert storage.part(40, b"") == below(model, b"")
    for _ in range(4):
        storage.write([Checkpoint(41, (), None)])
    with closing(sqlite3.connect(path)) as inside:
        assert inside.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_part_that_is_read_while_its_checkpoint_is_let_go_is_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile = interrupting(monkeypatch)
    with closing(Storage(path, LABEL)) as storage:
        storage.write([Checkpoint(2, ((NAMES[0], b"old"),), 4), Hold(2), Checkpoint(4, ((NAMES[0], b"new"),), 6)])
        storage.write([Checkpoint(6, (), None)])
        meanwhile["FROM state"] = lambda: storage.write([Hold(None), Checkpoint(6, (), None)])
        assert storage.part(2, b"") == [(NAMES[0], b"old")]
        assert storage.part(2, b"") is None


def test_ids_that_go_while_they_are_read_are_not_handed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile, row = interrupting(monkeypatch), replay_key(0, 7, 0)
    with closing(Storage(path, LABEL)) as storage:
        storage.write([commit(1, (row, 0, bytes(32))), Checkpoint(2, ((row, encode(Replayed(1, bytes(32)))),), 4)])
        storage.write([Checkpoint(3, (), None)])
        meanwhile["FROM replay"] = lambda: storage.write([Checkpoint(4, ((row, None),), 6)])
        assert read_parts(storage, 2, [row]) == ()


def test_another_checkpoint_can_be_held_at_once(storage: Storage) -> None:
    for height, model in checkpoints(storage, 30):
        if height in (7, 20):
            storage.write([Hold(height)])
            held = model
        assert height < 7 or storage.part(20 if height >= 20 else 7, b"") == below(held, b"")


def test_what_was_held_before_a_restart_is_not_any_more(storage: Storage, path: Path) -> None:
    for height, _ in checkpoints(storage, 10):
        if height == 5:
            storage.write([Hold(5)])
    storage.close()
    with closing(Storage(path, LABEL)) as again:
        assert again.part(5, b"") is None
        for _ in range(4):
            again.write([Checkpoint(11, (), None)])
        with closing(sqlite3.connect(path)) as inside:
            assert inside.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_what_was_kept_is_cleared_a_few_rows_at_a_time_whatever_is_held_next(storage: Storage, path: Path) -> None:
    """Millions of rows may have been kept."""
    names = [b"%020d" % number + b"USD" for number in range(3_000)]

    def kept() -> int:
        with closing(sqlite3.connect(path)) as inside:
            return int(inside.execute("SELECT count(*) FROM kept WHERE held = 1").fetchone()[0])

    def write(height: int, some: Sequence[bytes]) -> None:
        storage.write([Checkpoint(height, tuple((name, b"%d" % height) for name in some), height + 1)])

    write(1, names)
    storage.write([Hold(1)])
    write(2, names)
    height = 2
    while kept() < len(names):
        height += 1
        write(height, ())
    storage.write([Hold(height)])
    left, later = [kept()], height
    assert left == [len(names)], "no write takes the time for all"
    while left[-1]:
        later += 1
        write(later, names[:10])
        left.append(kept())
        assert storage.part(height, b"") == sorted((name, b"2") for name in names)
    assert len(left) > 4


def test_rows_of_a_whole_checkpoint_move_little_faster_than_the_next_ones_come(storage: Storage, path: Path) -> None:
    """Each may lie on a page of its own, which a block waits for."""
    names = [b"%020d" % number + b"USD" for number in range(2_000)]

    def waiting() -> int:
        with closing(sqlite3.connect(path)) as inside:
            return int(inside.execute("SELECT count(*) FROM recent WHERE height = 1").fetchone()[0])

    storage.write([Checkpoint(1, tuple((name, b"1") for name in names), None)])
    storage.write([Checkpoint(1, (), 2)])
    left = [waiting()]
    for start in range(0, len(names), 100):
        storage.write([Checkpoint(2, tuple((name, b"2") for name in names[start : start + 100]), None)])
        left.append(waiting())
    assert left[-1] == 0, "before the next checkpoint is whole"
    assert max(before - after for before, after in pairwise(left)) < 150


@pytest.mark.parametrize("is_held", [False, True])
def test_ids_go_with_their_row_but_not_while_it_is_held(storage: Storage, is_held: bool) -> None:
    row, ids = replay_key(0, 7, 0), [bytes([n]) * 32 for n in range(5)]
    for height in range(1, 4):
        storage.write([commit(height, (row, height - 1, ids[height - 1]))])
    storage.write([Checkpoint(2, ((row, encode(Replayed(2, bytes(32)))),), 4)])
    storage.write([Hold(2)] if is_held else [])
    storage.write([Checkpoint(4, ((row, None),), 6)])
    storage.write([Checkpoint(6, (), 8)])
    expected = b"".join(ids[:2]) if is_held else b""
    assert storage.ids(row, 2) == expected, "the first two, as of the checkpoint"
    assert read_parts(storage, 2, [row]) == ((Ids(row, expected),) if is_held else ())
    storage.write([Hold(None)])
    storage.write([Checkpoint(8, (), None)])
    assert storage.ids(row, 5) == b""


def test_ids_that_the_held_checkpoint_needs_stay_while_an_earlier_one_is_cleared(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_tables, "_CLEARED", 1)
    others = tuple((name, b"1") for name in NAMES[:20])
    last = max(row_tables.path_of(name) for name, _ in others)
    row = next(key for slot in range(10_000) if row_tables.path_of(key := replay_key(0, slot, 0)) > last)
    for height in range(1, 4):
        storage.write([commit(height, (row, height - 1, bytes([height]) * 32))])
    storage.write([Checkpoint(2, (*others, (row, encode(Replayed(2, bytes(32))))), 4), Hold(2)])
    storage.write([Checkpoint(4, (*others, (row, encode(Replayed(3, bytes(32))))), 6)])
    storage.write([Checkpoint(6, (), None), Hold(4)])
    storage.write([Checkpoint(6, ((row, None),), 8)])
    expected = b"".join(bytes([height]) * 32 for height in range(1, 4))
    for _ in range(30):
        assert read_parts(storage, 4, [row]) == (Ids(row, expected),)
        storage.write([Checkpoint(8, (), None)])
    storage.write([Hold(None)])
    for _ in range(3):
        storage.write([Checkpoint(8, (), None)])
    assert storage.ids(row, 3) == b""


def commit(height: int, *included: tuple[bytes, int, bytes]) -> Commit:
    return structs.replace(committed(SHARD.chain[height - 1]), included=included)


def test_parts_in_an_answer_are_the_first_that_fit(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple((name, encode(Balance(number + 1))) for number, name in enumerate(NAMES))
    storage.write([Checkpoint(1, rows, 2)])
    monkeypatch.setattr("node.handing_over.MAX_PART_ROWS", 100)
    tree = updated(EMPTY_TREE, ((name, Balance(number + 1)) for number, name in enumerate(NAMES)))
    known = branches(tree, 100)
    places = [bytes([digit]) for digit in range(16)]
    found = read_parts(storage, 1, [Branching(b"", known[b""]), *places])
    assert isinstance(found[0], Branching)
    counts = [len(part.rows) for part in found[1:] if isinstance(part, Rows)]
    assert sum(counts[:-1]) < 100 <= sum(counts)
    for part in found[1:]:
        assert isinstance(part, Rows)
        digit = part.place[0]
        assert subtree_root(part.rows, 1) == known[b""][32 * digit : 32 * digit + 32]
        assert subtree_root(part.rows[::-1], 1) != known[b""][32 * digit : 32 * digit + 32]
        assert subtree_root((part.rows[0], *part.rows), 1) != known[b""][32 * digit : 32 * digit + 32]
    assert read_parts(storage, 2, places) == ()


# -- the whole of it, as it is stored ----------------------------------------------------------------------------------


def proof_of(storage: Storage) -> CertifiedCheckpoint:
    """Of the last whole checkpoint."""
    height, certified_at = storage.checkpoint() or (0, 0)
    rows = storage.part(height, b"") or []
    return read_checkpoint(storage, height, certified_at, updated(EMPTY_TREE, ((name, Raw(data)) for name, data in rows)).root)


def hand_over(source: Storage, target: Storage, proof: CertifiedCheckpoint) -> None:
    """All of the last whole checkpoint, in one part, and its ids."""
    height, _ = source.checkpoint() or (0, 0)
    names = [name for name, _ in source.part(height, b"") or []]
    parts = read_parts(source, height, [b"", *(name for name in names if name.endswith(REPLAYED))])
    target.write([BeginHandoff(), StoreParts(tuple(part for part in parts if not isinstance(part, Branching)))])
    target.write([FinishHandoff(proof)])


def vote(view: int) -> Journal:
    return journaled(view, sign_vote(SHARD.members[0], 0, SHARD.electorate, VoteKind.NULLIFY, view, bytes(32)))


@pytest.mark.parametrize("before", [0, 5], ids=["an empty disk", "a disk with an older ledger"])
def test_a_ledger_handed_over_goes_on_like_the_one_it_comes_from(tmp_path: Path, before: int) -> None:
    """Also when it is handed on to a third one, and after a restart."""
    first, second, third = (Storage(tmp_path / f"{n}.db", SHARD.electorate.network) for n in range(3))
    first.write([effect for effects in HISTORY for effect in effects])
    second.write([effect for effects in HISTORY[:before] for effect in effects])
    second.write([vote(6), vote(60)])
    assert proof_of(first).is_valid(SHARD.electorate)
    hand_over(first, second, proof_of(first))
    hand_over(second, third, proof_of(second))
    assert [record.view for record in second.journal()] == [60], "what it signed in later views it knows"
    for storage in (second, third):
        recovered = recover(storage, SHARD.rules, SHARD.electorate)
        assert (recovered.state.height, recovered.state.state_root) == (6, SHARD.roots[6])
        assert (recovered.last, recovered.peaks) == (SHARD.last(6), SHARD.peaks(6))
        assert storage.blocks(6, 1 << 20) == []
        storage.write([effect for effects in HISTORY[6:] for effect in effects])
        recovered = recover(storage, SHARD.rules, SHARD.electorate)
        assert (recovered.state.height, recovered.state.state_root) == (11, SHARD.roots[11])
        assert recovered.peaks == SHARD.peaks(11)
    for storage in (first, second, third):
        storage.close()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda proof: structs.replace(proof, before=bytes(32)),
        lambda proof: structs.replace(proof, root=bytes(32)),
        lambda proof: structs.replace(proof, header=SHARD.header(7)),
        lambda proof: structs.replace(proof, header=structs.replace(proof.header, time=0)),
        lambda proof: structs.replace(proof, certifying=SHARD.header(10)),
        lambda proof: structs.replace(proof, skipped=()),
        lambda proof: structs.replace(proof, skipped=(*proof.skipped, SHARD.header(1))),
        lambda proof: structs.replace(proof, skipped=(*proof.skipped, SHARD.genesis)),
        lambda proof: structs.replace(proof, finality=proof.certifying_finality),
        lambda proof: structs.replace(proof, certifying_finality=proof.finality),
    ],
    ids=[
        "before",
        "root",
        "block",
        "time",
        "later block",
        "no links",
        "a link more",
        "the genesis",
        "finality",
        "later finality",
    ],
)
def test_another_proof_than_a_checkpoints_is_none(
    tmp_path: Path, wrong: Callable[[CertifiedCheckpoint], CertifiedCheckpoint]
) -> None:
    first, second = (Storage(tmp_path / f"{n}.db", SHARD.electorate.network) for n in range(2))
    first.write([effect for effects in HISTORY for effect in effects])
    forged = wrong(proof_of(first))
    assert not forged.is_valid(SHARD.electorate)
    if forged.root != bytes(32):  # that follows from the rows
        hand_over(first, second, forged)
        with pytest.raises(StorageDamaged):
            recover(second, SHARD.rules, SHARD.electorate)
    first.close()
    second.close()


def test_no_part_is_larger_than_a_frame() -> None:
    """With the longest rows there are: transactions of 16 legs that wait for 15 shards."""
    longest = 16 * (20 + 20 + 12 + 9 + 8) + 15 * 2 * 5 + 64
    assert limits.MAX_PART_ROWS * longest + (1 << 20) < limits.MAX_FRAME_BYTES
    assert limits.MAX_REPLAY_PART * 32 < 1 << 18
