"""A bit of a database's first page turns over: where its tables are, and what SQLite and this program know the file by."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from node import memory, storage
from node.database import StorageDamaged, StorageError
from node.effects import Checkpoint, Journal, Pledge
from node.memory import Memory
from node.storage import Storage
from tests.unit.test_storage import NETWORK, commit, handed_over

PLEDGE = Pledge(1, bytes(32))
Opened = Storage | Memory


def chain(path: Path) -> Storage:
    opened = Storage(path, NETWORK)
    if opened.last_block() is None:
        blocks = commit(1, (1, 1, b"x")), commit(2)
        opened.write([*blocks, Journal(3, "vote", b"a"), Checkpoint(1, ((b"k", b"v"), (b"i", b"w")), 2), PLEDGE])
        opened.write([Checkpoint(2, ((b"l", b"w"),), None)])
    return opened


def chain_handed_over(path: Path) -> Storage:
    opened = Storage(path, NETWORK)
    if opened.last_block() is None:
        opened.write([handed_over(1), commit(2, (1, 1, b"x")), Journal(3, "vote", b"a"), PLEDGE])
    return opened


def remembered(path: Path) -> Memory:
    opened = Memory(path.parent, NETWORK)
    if not opened.pledges():
        opened.write([PLEDGE])
    return opened


def all_in(opened: Opened) -> object:
    """But for what ``add`` adds."""
    if isinstance(opened, Memory):
        return opened.pledges()[:1], opened.begun()
    rows = list(opened.rows(1)), opened.part(1, b"")
    facts = opened.pledge() is not None, opened.checkpoint(), opened.handed_over(), opened.oldest, opened.first_bundles()
    return rows, facts, opened.journal()[:1], opened.last_block(), opened.blocks(1, 10**6), opened.bundles(1, 1, 10**6)


def add(opened: Opened) -> None:
    if isinstance(opened, Memory):
        opened.write([Pledge(1, bytes(32), b"", 2)])
    else:
        opened.write([Journal(9, "vote", bytes(20_000))])


def bits(page: bytes) -> list[int]:
    """Every third of the header, and every eleventh of what the tables are described by; what is between them is not used."""
    cells, content = (int.from_bytes(page[at : at + 2], "big") for at in (103, 105))
    return [*range(0, (108 + 2 * cells) * 8, 3), *range(content * 8, 8 * 8192, 11)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.mark.long
@pytest.mark.parametrize("open_one", [chain, chain_handed_over, remembered])
def test_after_any_flip_all_is_there_and_can_be_written_or_the_file_is_damaged(
    path: Path, open_one: Callable[[Path], Opened]
) -> None:
    with closing(open_one(path)) as opened:
        expected = all_in(opened)
    data, found = path.read_bytes(), 0
    for bit in bits(data):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        for part in path.parent.iterdir():
            part.unlink()
        path.write_bytes(flipped)
        found += 1
        with suppress(StorageDamaged), closing(open_one(path)) as opened:
            assert all_in(opened) == expected, divmod(bit, 8)
            add(opened)
            assert all_in(opened) == expected, divmod(bit, 8)
            found -= 1
    assert found > 200


@pytest.mark.parametrize(("module", "open_one"), [(storage, chain), (memory, remembered)])
def test_a_later_versions_file_is_not_taken_for_damaged_even_if_its_tables_are_the_same(
    path: Path, module: object, open_one: Callable[[Path], Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(module, "FORMAT", 3)
        open_one(path).close()
    with pytest.raises(StorageError, match="not written by this version") as refused:
        open_one(path)
    assert not isinstance(refused.value, StorageDamaged)


@pytest.mark.parametrize("tables", ["CREATE TABLE other (x);", "DROP TABLE meta; CREATE TABLE meta (key, value, sum, more);"])
def test_a_file_with_other_tables_is_not_taken_for_damaged(path: Path, tables: str) -> None:
    with sqlite3.connect(path) as other:
        other.executescript(f"CREATE TABLE meta (word); {tables} PRAGMA user_version = 7")
    with pytest.raises(StorageError, match="not written by this version") as refused:
        chain(path)
    assert not isinstance(refused.value, StorageDamaged)


def test_a_file_of_before_tables_were_noted_is_opened_and_from_then_on_they_are(path: Path) -> None:
    with closing(chain(path)) as opened:
        expected = all_in(opened)
    for _ in range(2):
        with closing(sqlite3.connect(path)) as before, before:
            assert before.execute("DELETE FROM meta WHERE key = ':tables'").rowcount == 1
        with closing(chain(path)) as opened:
            assert all_in(opened) == expected
