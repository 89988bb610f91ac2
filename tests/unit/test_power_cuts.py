"""The real database on a disk that tears, loses and mixes up writes: a restart gets what was written up to some instant, or is
told that the disk is damaged. It never gets anything else.

The files are copied as they are after each write, and damaged as a power cut or a person would; all from fixed seeds.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from node.database import StorageError
from node.effects import Checkpoint, Commit
from node.protocol.codec import encode
from node.recovery import recover
from node.storage import Storage
from tests.chains import Network, key

NETWORK = Network(committees=1, checkpoint_interval=3)
SHARD = NETWORK.shards[0]
BLOCKS = 14
PAGE = 8192


class Files(NamedTuple):
    """A database as it is on the disk between two writes."""

    database: bytes
    log: bytes

    def put(self, path: Path) -> Path:
        path.write_bytes(self.database)
        path.with_name(path.name + "-wal").write_bytes(self.log)
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
        return path


@pytest.fixture(scope="session")  # a worker may come back to this file, and the chain is made once
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> list[Files]:
    """The files after each of the blocks. Now and then the log is copied into the database, as SQLite does when it is long."""
    path, found = tmp_path_factory.mktemp("disk") / "node.db", []
    with closing(Storage(path, NETWORK.genesis.network)) as storage:
        for height in range(1, BLOCKS + 1):
            payments = [NETWORK.pay(NETWORK.issuers["USD"], key(f"payee {height * i % 7}"), 1) for i in range(3)]
            block = SHARD.add(*payments)
            found.append(files(path))
            storage.write(
                [Commit(height, height, block, encode(block), (), included=SHARD.included[height]), Checkpoint(*SHARD.slices[-1])]
            )
            if height in (5, 11):
                with closing(sqlite3.connect(path)) as other:
                    other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return [*found, files(path)]


def files(path: Path) -> Files:
    return Files(path.read_bytes(), path.with_name(path.name + "-wal").read_bytes())


def restarted(folder: Path, found: Files) -> int:
    """The height a node comes back at; -1: it is told that the disk is damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with closing(Storage(found.put(folder / "node.db"), NETWORK.genesis.network)) as storage:
            recovered = recover(storage, SHARD.rules, SHARD.electorate)
            storage.write([Checkpoint(*part) for part in recovered.slices])
            assert recover(storage, SHARD.rules, SHARD.electorate).state.state_root == recovered.state.state_root
    except StorageError:
        return -1
    height = recovered.state.height
    assert recovered.state.state_root == SHARD.roots[height], "what is believed is what was final"
    assert recovered.last == SHARD.last(height)
    return height


@pytest.mark.parametrize("height", range(BLOCKS))
def test_a_write_cut_off_anywhere_is_there_or_not(snapshots: list[Files], tmp_path: Path, height: int) -> None:
    """All that was acknowledged is there. Of the next write any part reached the disk, in any order, with junk in between."""
    chance, before, after = Random(height), snapshots[height], snapshots[height + 1]
    for _ in range(6):
        log = bytearray(after.log[: chance.randrange(len(before.log), len(after.log) + 1)])
        if len(log) > len(before.log) and before.log == after.log[: len(before.log)] and chance.random() < 0.5:
            torn = chance.randrange(len(before.log), len(log))
            log[torn : torn + 512] = chance.randbytes(len(log[torn : torn + 512]))
        assert restarted(tmp_path / "restarted", Files(before.database, bytes(log))) in (height, height + 1)


def pages(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PAGE] for start in range(0, len(data), PAGE))


@pytest.mark.parametrize("height", [5, 11])
def test_the_log_half_copied_into_the_database_is_copied_again(snapshots: list[Files], tmp_path: Path, height: int) -> None:
    chance, before, after = Random(height), snapshots[height - 1], snapshots[height]
    old = [*pages(before.database)]
    for _ in range(8):
        mixed = [page if chance.random() < 0.5 or i >= len(old) else old[i] for i, page in enumerate(pages(after.database))]
        assert restarted(tmp_path / "restarted", Files(b"".join(mixed), after.log)) == height


@pytest.mark.parametrize("height", range(0, BLOCKS, 3))
def test_a_backup_put_back_is_the_node_of_then(snapshots: list[Files], tmp_path: Path, height: int) -> None:
    """Nothing in it is wrong, so nothing is noticed here."""
    assert restarted(tmp_path / "restarted", snapshots[height]) == height


def lost(chance: Random, found: Files) -> Files:
    """Pages that were acknowledged never reached the disk: they are as they were, or empty, or others."""
    data = [*pages(found.database)]
    for at in chance.sample(range(len(data)), chance.randrange(1, 4)):
        data[at] = chance.choice((bytes(PAGE), chance.choice(data), chance.randbytes(PAGE)))
    return Files(b"".join(data), found.log)


def flipped(chance: Random, found: Files) -> Files:
    """A bit in either file."""
    parts = [bytearray(found.database), bytearray(found.log)]
    part = chance.choice([part for part in parts if part])
    part[chance.randrange(len(part))] ^= 1 << chance.randrange(8)
    return Files(*map(bytes, parts))


@pytest.mark.parametrize("damage", [lost, flipped])
@pytest.mark.parametrize("seed", range(25))
def test_what_a_disk_loses_or_changes_is_never_believed(
    snapshots: list[Files], tmp_path: Path, damage: Callable[[Random, Files], Files], seed: int
) -> None:
    """A bit in an unused part of a page changes nothing; a log that breaks off early is a shorter history."""
    chance = Random(seed)
    height = chance.randrange(6, BLOCKS + 1)
    assert restarted(tmp_path / "restarted", damage(chance, snapshots[height])) <= height


@pytest.mark.parametrize("seed", range(25))
def test_a_database_of_one_time_with_the_log_of_another_is_never_believed(
    snapshots: list[Files], tmp_path: Path, seed: int
) -> None:
    chance = Random(seed)
    one, other = chance.sample(snapshots[1:], 2)
    assert restarted(tmp_path / "restarted", Files(one.database, other.log)) <= BLOCKS
