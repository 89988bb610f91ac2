"""The node's database: what was acknowledged is there, what is damaged is refused."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.effects import Abstain, Begin, Checkpoint, Commit, Journal
from node.storage import Storage, StorageDamaged, StorageError, set_aside

NETWORK = bytes(32)


def commit(height: int, *bundles: tuple[int, int, bytes], view: int | None = None, size: int = 100) -> Commit:
    encoded = height.to_bytes(4, "big") * (size // 4)
    return Commit(height, view or height, None, encoded, bundles)  # type: ignore[arg-type]  # only the encoding is stored


def block(height: int, size: int = 100) -> bytes:
    return commit(height, size=size).encoded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


def reopened(storage: Storage, path: Path) -> Storage:
    storage.close()
    return Storage(path, NETWORK)


def test_everything_written_is_there_after_opening_again(path: Path) -> None:
    storage = Storage(path, NETWORK)
    assert (storage.journal(), storage.last_block(), storage.checkpoint(), storage.has_begun()) == ([], None, None, False)
    storage.write([Journal(4, "vote", b"a"), Journal(3, "proposal", b"b"), commit(1, (1, 1, b"x"), (2, 1, b"y"))])
    storage.write([Checkpoint(1, ((b"k2", b"2"), (b"k1", b"1")))])
    storage.write([Abstain(7), Begin()])
    storage = reopened(storage, path)
    assert storage.journal() == [Journal(3, "proposal", b"b"), Journal(4, "vote", b"a")]
    assert storage.last_block() == (1, block(1))
    assert storage.bundles(1, 1, 1000) == [b"x"]
    assert storage.bundles(2, 1, 1000) == [b"y"]
    assert storage.checkpoint() == (1, [(b"k1", b"1"), (b"k2", b"2")])
    assert (storage.abstains_through(), storage.has_begun()) == (7, True)


def test_a_journal_record_replaces_the_one_in_its_slot(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([Journal(1, "vote", b"old"), Journal(1, "finalize", b"other"), Journal(1, "vote", b"new")])
    assert storage.journal() == [Journal(1, "finalize", b"other"), Journal(1, "vote", b"new")]


def test_a_commit_forgets_the_journal_up_to_its_view(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([Journal(view, "vote", b"") for view in (5, 6, 7)])
    storage.write([commit(1, view=6)])
    assert [record.view for record in storage.journal()] == [7]


def test_a_checkpoint_changes_and_deletes_rows_of_the_one_before(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([Checkpoint(10, ((b"a", b"1"), (b"b", b"2"), (b"c", b"3")))])
    storage.write([Checkpoint(20, ((b"b", None), (b"c", b"4"), (b"absent", None)))])
    assert storage.checkpoint() == (20, [(b"a", b"1"), (b"c", b"4")])


def test_a_write_that_fails_leaves_nothing_of_itself(path: Path) -> None:
    storage = Storage(path, NETWORK)
    broken: list[Commit | Journal] = [commit(1), Journal(2, "vote", object())]  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        storage.write(broken)
    assert storage.last_block() is None
    storage.write([commit(1)])
    assert storage.last_block() == (1, block(1))


def test_blocks_come_consecutive_and_within_the_limits(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([commit(height) for height in range(1, 11)])
    assert storage.blocks(3, 350) == [block(3), block(4), block(5)]
    assert storage.blocks(3, 300) == [block(3), block(4), block(5)]
    assert storage.blocks(3, 1) == [block(3)], "one at least"
    assert storage.blocks(3, 10**6, count=2) == [block(3), block(4)]
    assert storage.blocks(11, 10**6) == []
    assert [height for height, _ in storage.blocks_descending()] == list(range(10, 0, -1))


def test_bundles_come_by_destination_and_sequence(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([commit(h, (1, h, b"one%d" % h), (2, h, b"two%d" % h)) for h in (1, 2, 3)])
    assert storage.bundles(2, 2, 1000) == [b"two2", b"two3"]
    assert storage.bundles(2, 1, 9) == [b"two1", b"two2"]
    assert storage.bundles(3, 1, 1000) == []


def test_reading_goes_on_while_blocks_are_added(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([commit(1), commit(2)])
    newest_first = storage.blocks_descending()
    assert next(newest_first)[0] == 2
    storage.write([commit(3)])
    assert [height for height, _ in newest_first] == [1]


def test_a_database_of_another_network_is_refused(path: Path) -> None:
    Storage(path, NETWORK).close()
    with pytest.raises(StorageError, match="belongs to network"):
        Storage(path, b"x" * 32)
    Storage(path, NETWORK).close()


def test_a_database_in_use_is_refused(path: Path) -> None:
    storage = Storage(path, NETWORK)
    with pytest.raises(StorageError, match="in use by another process"):
        Storage(path, NETWORK)
    reopened(storage, path).close()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="damaged"):
        Storage(path, NETWORK)


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE something (x)")
    with pytest.raises(StorageError, match="not written by this version"):
        Storage(path, NETWORK)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot make"):
        Storage(tmp_path / "file" / "node.db", NETWORK)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE journal SET data = x'00'", r"journal row \(2, 'vote'\)"),
        ("UPDATE journal SET view = 3", r"journal row \(3, 'vote'\)"),
        ("UPDATE blocks SET data = data || x'00' WHERE height = 2", r"blocks row \(2,\)"),
        ("UPDATE blocks SET data = (SELECT data FROM blocks WHERE height = 1) WHERE height = 2", r"blocks row \(2,\)"),
        ("DELETE FROM blocks WHERE height = 2", r"blocks row \(2,\) is missing"),
        ("UPDATE bundles SET data = 'text'", r"bundles row \(1, 1\)"),
        ("UPDATE state SET value = x'ff'", r"state row \(b'k',\)"),
        ("UPDATE meta SET value = x'ff' WHERE key = 'begun'", r"meta row \('begun',\)"),
    ],
)
def test_a_damaged_row_is_named_and_not_believed(path: Path, statement: str, row: str) -> None:
    storage = Storage(path, NETWORK)
    storage.write([commit(1, (1, 1, b"x")), commit(2), commit(3), Journal(2, "vote", b"a"), Checkpoint(1, ((b"k", b"v"),))])
    storage.write([Journal(2, "vote", b"a")])
    storage.write([Begin()])
    storage.close()
    with sqlite3.connect(path) as vandal:
        vandal.execute(statement)
    vandal.close()

    def read_everything() -> None:
        storage = Storage(path, NETWORK)
        try:
            storage.has_begun(), storage.journal(), storage.checkpoint()
            storage.blocks(1, 10**6), storage.bundles(1, 1, 10**6)
        finally:
            storage.close()

    with pytest.raises(StorageError, match=f"damaged.*{row}"):
        read_everything()


def test_overwritten_pages_are_noticed(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([Checkpoint(1, tuple((b"%06d" % i, bytes(50)) for i in range(5000)))])
    storage.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(16384))
    with pytest.raises(StorageError, match="damaged"):
        Storage(path, NETWORK)


def test_a_full_disk_is_said_clearly_and_loses_nothing(path: Path) -> None:
    storage = Storage(path, NETWORK)
    storage.write([commit(1)])
    pages = storage._writer.execute("PRAGMA page_count").fetchone()[0]
    storage._writer.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite reports it as it does a full disk
    with pytest.raises(StorageError, match="no space left"):
        storage.write([Journal(2, "vote", b"v"), commit(2, size=200_000)])
    storage = reopened(storage, path)
    assert storage.last_block() == (1, block(1))
    assert storage.journal() == []
    storage.write([commit(2)])


def test_a_closed_storage_says_so(path: Path) -> None:
    storage = Storage(path, NETWORK)
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
                   Checkpoint(height, ((b"height", encoded[:4]),))])
    print(height, flush=True)
"""


def test_kill_at_any_instant_keeps_all_acknowledged_writes_and_no_half_ones(path: Path) -> None:
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert int(process.stdout.readline()) > acknowledged, "a restarted writer goes on after what is there"
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        lines = rest.split("\n")[:-1]  # a line cut off was not acknowledged
        storage = Storage(path, NETWORK)
        found = storage.last_block()
        assert found is not None
        height, _ = found
        acknowledged = max(acknowledged + 1, *(int(line) for line in lines)) if lines else acknowledged + 1
        assert acknowledged <= height <= acknowledged + 1, "all acknowledged writes, and at most the one under way"
        blocks = [body for first in range(1, height + 1, 256) for body in storage.blocks(first, 1 << 30)]
        assert blocks == [h.to_bytes(4, "big") * 10_000 for h in range(1, height + 1)]
        bundles = [body for first in range(1, height + 1, 256) for body in storage.bundles(1, first, 1 << 30)]
        assert len(bundles) == height
        assert [record.view for record in storage.journal()] == [height + 1]
        assert storage.checkpoint() == (height, [(b"height", height.to_bytes(4, "big"))])
        storage.close()
        acknowledged = height


def test_a_full_disk_raises_storage_full_stores_nothing_and_recovers(tmp_path: Path) -> None:
    """The file-size limit stands for the disk: beyond it every write fails, as on a full one."""
    script = """
import resource, sys
from pathlib import Path
from node.effects import Journal
from node.storage import Storage, StorageFull
storage = Storage(Path(sys.argv[1]), b"12345678")
storage.write([Journal(1, "a", b"kept")])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    storage.write([Journal(2, "a", b"x" * 1_000_000)])
except StorageFull:
    print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert [(r.view, r.data) for r in storage.journal()] == [(1, b"kept")]
storage.write([Journal(2, "a", b"x" * 1_000_000)])
assert len(storage.journal()) == 2
print("room again")
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "node.db")], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["full", "room again"], done.stdout + done.stderr


def test_a_damaged_database_set_aside_makes_room_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    Storage(path, b"12345678").close()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageDamaged):
        Storage(path, b"12345678")
    aside = set_aside(path)
    assert aside.read_bytes().startswith(b"not a database")
    assert Storage(path, b"12345678").last_block() is None
