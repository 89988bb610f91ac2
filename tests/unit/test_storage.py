"""The node's database: what was acknowledged is there, what is damaged is refused."""

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from msgspec import structs

from node.database import StorageDamaged, StorageError, set_aside
from node.effects import Checkpoint, Commit, FinishHandoff, Hold, Journal, Pledge
from node.protocol.block import skip_height
from node.protocol.checkpoint import CertifiedCheckpoint
from node.protocol.crypto import ZERO_HASH
from node.storage import Storage
from tests.chains import Network
from tests.unit.interrupted import interrupting

NETWORK = bytes(32)


def commit(height: int, *bundles: tuple[int, int, bytes], view: int | None = None, size: int = 100) -> Commit:
    encoded = height.to_bytes(4, "big") * (size // 4)
    return Commit(height, view or height, None, encoded, bundles)  # type: ignore[arg-type]  # only the encoding is stored


def block(height: int, size: int = 100) -> bytes:
    return commit(height, size=size).encoded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def storage(path: Path) -> Iterator[Storage]:
    storage = Storage(path, NETWORK)
    yield storage
    storage.close()


def reopened(storage: Storage, path: Path) -> Storage:
    storage.close()
    return Storage(path, NETWORK)


def test_everything_written_is_there_after_opening_again(storage: Storage, path: Path) -> None:
    assert (storage.journal(), storage.last_block(), storage.checkpoint(), storage.pledge()) == ([], None, None, None)
    storage.write([Journal(4, "vote", b"a"), Journal(3, "proposal", b"b"), commit(1, (1, 1, b"x"), (2, 1, b"y"))])
    storage.write([Checkpoint(1, ((b"k2", b"2"), (b"k1", b"1")), 3)])
    storage.write([Pledge(1, bytes(32)), Pledge(1, bytes(32), b"r" * 32)])
    storage = reopened(storage, path)
    assert storage.journal() == [Journal(3, "proposal", b"b"), Journal(4, "vote", b"a")]
    assert storage.last_block() == (1, block(1))
    assert storage.bundles(1, 1, 1000) == [b"x"]
    assert storage.bundles(2, 1, 1000) == [b"y"]
    assert storage.checkpoint() == (1, 3)
    assert rows(storage) == {b"k1": b"1", b"k2": b"2"}
    assert storage.pledge() == Pledge(1, bytes(32), b"r" * 32)


def test_a_journal_record_replaces_the_one_in_its_slot(storage: Storage) -> None:
    storage.write([Journal(1, "vote", b"old"), Journal(1, "finalize", b"other"), Journal(1, "vote", b"new")])
    assert storage.journal() == [Journal(1, "finalize", b"other"), Journal(1, "vote", b"new")]


def test_a_commit_forgets_the_journal_up_to_its_view(storage: Storage) -> None:
    storage.write([Journal(view, "vote", b"") for view in (5, 6, 7)])
    storage.write([commit(1, view=6)])
    assert [record.view for record in storage.journal()] == [7]


def rows(storage: Storage) -> dict[bytes, bytes]:
    """Of the last whole checkpoint."""
    height, _ = storage.checkpoint() or (0, 0)
    return {key: value for key, value in dict(storage.rows(height)).items() if value is not None}


def test_a_checkpoint_counts_when_its_last_rows_are_there(storage: Storage, path: Path) -> None:
    storage.write([Checkpoint(10, ((b"a", b"1"), (b"b", b"2"), (b"c", b"3")), 20)])
    storage.write([Checkpoint(20, ((b"b", None), (b"new", b"5")), None)])
    storage = reopened(storage, path)
    assert (storage.checkpoint(), rows(storage)) == ((10, 20), {b"a": b"1", b"b": b"2", b"c": b"3"})
    storage.write([Checkpoint(20, ((b"c", b"4"), (b"absent", None)), 30)])
    assert (storage.checkpoint(), rows(storage)) == ((20, 30), {b"a": b"1", b"c": b"4", b"new": b"5"})
    storage.close()


def test_rows_of_many_checkpoints_give_the_last_whole_one_and_do_not_pile_up(storage: Storage, path: Path) -> None:
    chance, model = random.Random(5), dict[bytes, bytes]()
    for height in range(1, 60):
        count = 3_000 if height == 7 else chance.choice((0, 3, 600))
        written = {b"%04d" % chance.randrange(4_000): chance.choice((None, b"x%d" % height)) for _ in range(count)}
        parts = list(written.items())
        storage.write([Checkpoint(height, tuple(parts[:200]), None)])
        before = rows(storage)
        assert before == model, "what is not whole does not count"
        storage.write([Checkpoint(height, tuple(parts[200:]), height + 1)])
        model = {key: value for key, value in (model | written).items() if value is not None}
        assert rows(storage) == model
    for _ in range(100):
        storage.write([Checkpoint(60, (), None)])
    storage.close()
    with closing(sqlite3.connect(path)) as inside:
        assert inside.execute("SELECT count(*) FROM recent").fetchone() == (0,)
        assert inside.execute("SELECT count(*) FROM state").fetchone() == (len(model),)


def test_a_write_that_fails_leaves_nothing_of_itself(storage: Storage) -> None:
    broken: list[Commit | Journal] = [commit(1), Journal(2, "vote", object())]  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        storage.write(broken)
    assert storage.last_block() is None
    storage.write([commit(1)])
    assert storage.last_block() == (1, block(1))


@pytest.mark.parametrize(("limit", "heights"), [((350,), [3, 4, 5]), ((300,), [3, 4, 5]), ((1,), [3]), ((10**6, 2), [3, 4])])
def test_blocks_come_consecutive_and_within_the_limits(storage: Storage, limit: tuple[int, ...], heights: list[int]) -> None:
    storage.write([commit(height) for height in range(1, 11)])
    assert storage.blocks(3, *limit) == list(map(block, heights))
    assert storage.blocks(11, *limit) == []
    assert [height for height, _ in storage.blocks_descending()] == list(range(10, 0, -1))


def test_blocks_that_are_past_go_but_not_what_a_checkpoint_or_a_later_skip_needs(storage: Storage, path: Path) -> None:
    """Checkpoints every 50 blocks, whole two blocks later; all may go up to 100 blocks before the last."""
    held = None
    for height in range(1, 401):
        kept = structs.replace(commit(height), past=max(0, height - 100))
        storage.write([kept, Checkpoint(height - 2, (), height)] if height % 50 == 2 else [kept])
        if height == 300:
            storage.write([Hold(250)])
            held = storage.oldest
        assert storage.oldest > max(0, height - 100 - 2 * 32) or held
        assert storage.oldest <= max(1, height - 99)
        below = height + 1
        while below := skip_height(below):
            assert storage.block(below) == block(below), "for the skips of the next block"
    assert storage.oldest <= 250, "a held checkpoint keeps its proof"
    assert storage.block(storage.oldest) == block(storage.oldest)
    assert storage.blocks(storage.oldest - 2, 10**6) == []
    kept_for_skips = [height for height in range(1, storage.oldest) if storage.block(height) is not None]
    assert len(kept_for_skips) <= 8
    again = reopened(storage, path)
    assert again.oldest == storage.oldest
    assert len(again.blocks(again.oldest, 10**6, 400)) == 401 - again.oldest
    again.close()


def test_without_a_whole_checkpoint_no_block_goes(storage: Storage) -> None:
    for height in range(1, 200):
        storage.write([structs.replace(commit(height), past=height - 1)])
    assert (storage.oldest, storage.block(1)) == (1, block(1))


def handed_over(height: int) -> FinishHandoff:
    """Of a checkpoint at this height; only what is stored of it counts."""
    final = Network(committees=1).shards[0].add()
    header, later = (structs.replace(final.block.header, height=at, view=at) for at in (height, height + 1))
    return FinishHandoff(CertifiedCheckpoint(header, final.finality, later, final.finality, ZERO_HASH, ZERO_HASH, ()))


def test_blocks_that_go_while_they_are_asked_for_are_not_taken_for_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block 224 alone of them is kept: skips of later blocks lead to it."""
    meanwhile = interrupting(monkeypatch)
    with closing(Storage(path, NETWORK)) as storage:
        storage.write([handed_over(200), *(commit(height) for height in range(201, 401)), Checkpoint(390, (), 395)])
        meanwhile["FROM blocks"] = lambda: storage.write([structs.replace(commit(401), past=300)])
        assert storage.blocks(224, 10**6) == []
        assert (storage.oldest, storage.block(224)) == (233, block(224))
        assert meanwhile == {}, "it was asked for before"


def test_blocks_that_should_have_gone_with_a_write_that_fails_are_still_kept(storage: Storage) -> None:
    storage.write([*(commit(height) for height in range(1, 101)), Checkpoint(90, (), 95)])
    with pytest.raises(TypeError):
        storage.write([structs.replace(commit(101), past=80), Journal(102, "vote", object())])  # type: ignore[arg-type]
    assert (storage.oldest, storage.blocks(1, 1)) == (1, [block(1)])
    storage.write([structs.replace(commit(101), past=80)])
    assert (storage.oldest, storage.blocks(1, 1)) == (33, [])


def test_bundles_come_by_destination_and_sequence(storage: Storage) -> None:
    storage.write([commit(h, (1, h, b"one%d" % h), (2, h, b"two%d" % h)) for h in (1, 2, 3)])
    assert storage.bundles(2, 2, 1000) == [b"two2", b"two3"]
    assert storage.bundles(2, 1, 9) == [b"two1", b"two2"]
    assert storage.bundles(3, 1, 1000) == []


def test_reading_goes_on_while_blocks_are_added(storage: Storage) -> None:
    storage.write([commit(1), commit(2)])
    newest_first = storage.blocks_descending()
    assert next(newest_first)[0] == 2
    storage.write([commit(3)])
    assert [height for height, _ in newest_first] == [1]


def test_a_database_in_use_is_refused(storage: Storage, path: Path) -> None:
    with pytest.raises(StorageError, match="in use by another process"):
        Storage(path, NETWORK)
    reopened(storage, path).close()


def make_another_program_write(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE something (x)")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: Storage(path, b"x" * 32).close(), "belongs to network"),
        (lambda path: path.write_bytes(b"not a database" * 1000), "damaged"),
        (make_another_program_write, "not written by this version"),
        (lambda path: path.with_name("node.db.lock").mkdir(), "cannot make"),
    ],
    ids=["another network's", "no database", "another program's", "no place for it"],
)
def test_what_is_not_this_nodes_database_is_refused(path: Path, make: Callable[[Path], object], complaint: str) -> None:
    make(path)
    with pytest.raises(StorageError, match=complaint):
        Storage(path, NETWORK)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE journal SET data = x'00'", r"journal row \(2, 'vote'\)"),
        ("UPDATE journal SET view = 3", r"journal row \(3, 'vote'\)"),
        ("UPDATE blocks SET data = data || x'00' WHERE height = 2", r"blocks row \(2,\)"),
        ("UPDATE blocks SET data = (SELECT data FROM blocks WHERE height = 1) WHERE height = 2", r"blocks row \(2,\)"),
        ("DELETE FROM blocks WHERE height = 2", r"blocks row \(2,\) is missing"),
        ("UPDATE bundles SET data = 'text'", r"bundles row \(1, 1\)"),
        ("UPDATE state SET value = x'ff'", r"state row \(-?\d+, b'k'\)"),
        ("UPDATE recent SET value = x'ff' WHERE key = x'6c'", r"state row \(-?\d+, b'l'\)"),
        ("UPDATE meta SET value = value || x'00' WHERE key = ':checkpoint'", r"meta row \(':checkpoint',\)"),
        ("UPDATE meta SET value = x'ff' WHERE key = ':secret'", r"meta row \(':secret',\)"),
    ],
)
def test_a_damaged_row_is_named_and_not_believed(path: Path, statement: str, row: str) -> None:
    storage = Storage(path, NETWORK)
    storage.write([commit(1, (1, 1, b"x")), commit(2), commit(3), Journal(2, "vote", b"a"), Checkpoint(1, ((b"k", b"v"),), 2)])
    storage.write([Checkpoint(2, ((b"l", b"w"), (b"m", None)), None)])
    storage.write([Journal(2, "vote", b"a")])
    storage.write([Pledge(1, bytes(32))])
    storage.close()
    with sqlite3.connect(path) as vandal:
        vandal.execute(statement)
    vandal.close()

    with pytest.raises(StorageDamaged, match=row), closing(Storage(path, NETWORK)) as found:
        (
            found.pledge(),
            found.journal(),
            found.checkpoint(),
            list(found.rows(2)),
            found.blocks(1, 10**6),
            found.bundles(1, 1, 10**6),
        )


def test_overwritten_pages_are_noticed(storage: Storage, path: Path) -> None:
    storage.write([Checkpoint(1, tuple((b"%06d" % i, bytes(50)) for i in range(5000)), 2)])
    storage.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4)
        file.write(os.urandom(path.stat().st_size // 2))
    with pytest.raises(StorageError, match="damaged"):
        rows(Storage(path, NETWORK))


@pytest.mark.parametrize("name", [b"tablejournal", b"CREATE TABLE journal"])
def test_tables_whose_names_are_no_text_any_more_are_noticed(storage: Storage, path: Path, name: bytes) -> None:
    storage.close()
    data = path.read_bytes()
    assert name in data
    path.write_bytes(data.replace(name, b"\x9f" * len(name)))
    with pytest.raises(StorageDamaged):
        Storage(path, NETWORK)


def test_a_closed_storage_says_so(storage: Storage) -> None:
    storage.close()
    storage.close()
    with pytest.raises(StorageError, match="closed"):
        storage.write([commit(1)])


WRITER = """
import sys
from pathlib import Path
from node.effects import Checkpoint, Commit, Journal
from node.storage import Storage
storage = Storage(Path(sys.argv[1]), bytes(32))
height = (storage.last_block() or (0, b""))[0]
while True:
    height += 1
    encoded = height.to_bytes(4, "big") * 10_000
    storage.write([Journal(height + 1, "vote", encoded), Commit(height, height, None, encoded, ((1, height, encoded[:400]),)),
                   Checkpoint(height, ((b"height", encoded[:4]),), height + 1)])
    print(height, flush=True)
"""


def test_kill_at_any_instant_keeps_all_acknowledged_writes_and_no_half_ones(path: Path) -> None:
    chance, height = random.Random(1), 0
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            seen = [process.stdout.readline()]
            timer = Timer(chance.uniform(0, 0.15), process.kill)
            timer.start()
            seen += process.stdout.readlines()
        acknowledged = [int(line) for line in seen if line.endswith("\n")]  # a line cut off was not
        assert acknowledged[0] == height + 1, "a restarted writer goes on after what is there"
        with closing(Storage(path, NETWORK)) as storage:
            height, _ = storage.last_block() or (0, b"")
            assert acknowledged[-1] <= height <= acknowledged[-1] + 1, "all acknowledged writes, and at most the one under way"
            numbers = [h.to_bytes(4, "big") for h in range(1, height + 1)]
            blocks = [body for first in range(1, height + 1, 256) for body in storage.blocks(first, 1 << 30)]
            assert blocks == [number * 10_000 for number in numbers]
            bundles = [body for first in range(1, height + 1, 256) for body in storage.bundles(1, first, 1 << 30)]
            assert bundles == [number * 100 for number in numbers]
            assert [record.view for record in storage.journal()] == [height + 1]
            assert storage.checkpoint() == (height, height + 1)
            assert rows(storage) == {b"height": numbers[-1]}


FULL = """
import resource, sys
from pathlib import Path
from node.effects import Commit, Journal
from node.database import StorageFull
from node.storage import Storage
storage = Storage(Path(sys.argv[1]), bytes(32))
storage.write([Journal(2, "a", b"kept")])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    storage.write([Journal(3, "a", b"v"), Commit(1, 1, None, b"x" * 1_000_000, ())])
except StorageFull as error:
    assert "no space left" in str(error)
    print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert [(r.view, r.data) for r in storage.journal()] == [(2, b"kept")]
assert storage.last_block() is None
storage.write([Journal(3, "a", b"x" * 1_000_000)])
assert len(storage.journal()) == 2
print("room again")
"""


def test_a_full_disk_raises_storage_full_stores_nothing_and_recovers(path: Path) -> None:
    """The file-size limit stands for the disk: beyond it every write fails, as on a full one."""
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["full", "room again"], done.stdout + done.stderr


FULL_EVERYWHERE = """
import resource, signal, sys
from pathlib import Path
from node.effects import Checkpoint, Commit, Journal, Pledge
from node.database import StorageFull
from node.storage import Storage
path, found = Path(sys.argv[1]), 0
storage = Storage(path, bytes(32))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def everything():
    height, _ = storage.checkpoint() or (0, 0)
    return (storage.journal(), storage.last_block(), storage.blocks(1, 1 << 30), storage.bundles(1, 1, 1 << 30), height,
            dict(storage.rows(height)), storage.pledge())

for number in range(1, 13):
    rows = tuple((b"%d" % i, None if i % number == 3 else bytes(number) * 50) for i in range(0, 900, number))
    block = Commit(number, number, None, bytes(20_000), ((1, number, bytes(5_000)),))
    write = [Journal(number + 1, "vote", b"v"), block, Checkpoint(number, rows, number + 1), Pledge(number, bytes(number))]
    before, room = everything(), -1
    while True:  # a page more of it finds room each time, until all does
        room += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size + room * 8216, hard))
        try:
            storage.write(write)
        except StorageFull:
            found += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert everything() == before, number
        else:
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert storage.last_block()[0] == number and storage.checkpoint() == (number, number + 1)
    storage.write([Journal(number + 1, "finalize", b"f")])
print("full", found)
"""


def test_a_disk_full_at_any_page_of_any_write_stores_nothing_of_it(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_EVERYWHERE, str(path)], capture_output=True, text=True, timeout=120)
    word, _, number = done.stdout.partition(" ")
    assert (word, int(number or 0) > 50) == ("full", True), done.stdout + done.stderr


def test_each_write_reaches_the_disk_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own words for it, of every connection that is opened."""
    opened, connect = list[sqlite3.Connection](), sqlite3.connect

    def recording(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", recording)
    with closing(Storage(path, NETWORK)) as storage:
        storage.write([commit(1)])
        for connection in opened:
            found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "fullfsync")]
            assert found == ["wal", 2, 1]
    assert len(opened) == 2


def test_a_damaged_database_set_aside_makes_room_for_a_new_one(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageDamaged):
        Storage(path, NETWORK)
    aside = set_aside(path)
    assert aside.read_bytes().startswith(b"not a database")
    assert Storage(path, NETWORK).last_block() is None


def test_bundles_that_were_taken_are_forgotten_and_no_others(storage: Storage, path: Path) -> None:
    storage.write([commit(height, (1, height, b"%d" % height), (2, height, b"%d" % height)) for height in range(1, 5)])
    storage.write([structs.replace(commit(5, (1, 5, b"5")), taken=((1, 3),))])
    storage = reopened(storage, path)
    assert [storage.bundles(1, first, 1000) for first in (1, 3, 4)] == [[], [], [b"4", b"5"]]
    assert storage.bundles(2, 1, 1000) == [b"1", b"2", b"3", b"4"]
    assert storage.first_bundles() == {1: 4, 2: 1}
