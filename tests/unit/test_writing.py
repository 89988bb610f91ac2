"""Where a node writes what it must not forget: on the spot, or in a thread when that would hold up its loop for long."""

import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from node.database import StorageDamaged, StorageError, StorageFull
from node.effects import Journal, Row
from node.metrics import Metrics
from node.protocol.chain import Chain
from node.stores import Stores
from node.writing import QUICK, Writing

CHAIN, ROWS = Chain(1, 0), [Journal(1, "vote", b"1")]


class Disk:
    """Stands for a node's databases, each write of which takes so many seconds of a clock of its own.

    Attributes:
        on_the_spot: of each write, whether it was made on the loop. errors: of the next writes.
    """

    def __init__(self) -> None:
        self.takes = self.now = 0.0
        self.on_the_spot: list[bool] = []
        self.errors: list[StorageError] = []

    def write(self, chain: Chain, rows: Sequence[Row]) -> None:
        assert (chain, rows) == (CHAIN, ROWS)
        self.now += self.takes
        self.on_the_spot.append(threading.current_thread() is threading.main_thread())
        if self.errors:
            raise self.errors.pop()

    async def write_often(self, writing: Writing, takes: float, count: int) -> list[bool]:
        """Where these were made."""
        self.takes, self.on_the_spot = takes, []
        for _ in range(count):
            await writing.write(CHAIN, ROWS)
        return self.on_the_spot


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("node.writing.perf_counter", lambda: disk.now)
    return disk


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def writes(disk: Disk, told: list[str]) -> Writing:
    return Writing(cast(Stores, disk), Metrics(), told.append)


async def test_a_quick_disk_is_waited_for_on_the_spot_though_it_is_slow_once(disk: Disk, writes: Writing) -> None:
    assert all(await disk.write_often(writes, 0.9 * QUICK, 50))
    assert await disk.write_often(writes, 1.5 * QUICK, 1) == [True]
    assert all(await disk.write_often(writes, 0.5 * QUICK, 50))


async def test_a_slow_disk_holds_up_the_loop_a_few_times_only_until_it_is_quick_again(disk: Disk, writes: Writing) -> None:
    slow = await disk.write_often(writes, 5 * QUICK, 20)
    assert slow[0], "nothing is known of it yet"
    assert not any(slow[3:])
    quick = await disk.write_often(writes, QUICK / 10, 50)
    assert not quick[0]
    assert quick[-1]
    assert all(before <= after for before, after in pairwise(quick)), "once only"


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_full_disk_is_waited_for_and_told_of_once(
    autojump_clock: MockClock, disk: Disk, writes: Writing, told: list[str], is_slow: bool
) -> None:
    await disk.write_often(writes, 5 * QUICK if is_slow else 0, 20)
    disk.errors = [StorageFull("no space left")] * 3
    await disk.write_often(writes, 0, 1)
    assert disk.on_the_spot == [not is_slow] * 4
    assert told == ["standing still: no space left", "there is room on the disk again; going on"]
    assert trio.current_time() > 0


async def test_a_slow_disk_is_written_though_all_other_threads_are_in_use(
    disk: Disk, writes: Writing, nursery: trio.Nursery
) -> None:
    """Peers may ask for as much as keeps them busy."""
    await disk.write_often(writes, 5 * QUICK, 20)
    others = trio.to_thread.current_default_thread_limiter()
    others.total_tokens = 1
    await others.acquire_on_behalf_of("a peer")
    with trio.fail_after(60):
        await disk.write_often(writes, 0, 1)
    others.release_on_behalf_of("a peer")
    assert disk.on_the_spot == [False]


@pytest.mark.parametrize("is_slow", [False, True])
async def test_damage_is_raised_wherever_it_is_found(disk: Disk, writes: Writing, is_slow: bool) -> None:
    await disk.write_often(writes, 5 * QUICK if is_slow else 0, 20)
    disk.errors = [StorageDamaged(Path("node.db"), "a row")]
    with pytest.raises(StorageDamaged):
        await disk.write_often(writes, 0, 1)
    assert disk.on_the_spot == [not is_slow]
