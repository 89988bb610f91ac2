"""Durable jobs: done at least once, one step at a time, never twice at once, whatever stops in between."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.database import Database, now_ms, open_engine
from gateway.jobs import AT_ONCE, Jobs

Story = Callable[[Jobs], Awaitable[None]]


def told(folder: Path, story: Story) -> None:
    """Tell a story of the jobs in a folder's database. ``story`` adds handlers and jobs; they run until it ends."""

    async def tell() -> None:
        database = Database(open_engine(f"sqlite:///{folder}/gateway.db"))
        try:
            await story(Jobs(database))
        finally:
            database.close()

    asyncio.run(tell())


async def running(jobs: Jobs, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(jobs.run())
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110 - what it waits for is not of this loop
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})


async def add(jobs: Jobs, *subjects: str, kind: str = "walk", due_at: int | None = None) -> None:
    def change(connection: Connection) -> None:
        for subject in subjects:
            jobs.add(connection, kind, subject, due_at)

    await jobs.write(change)


def test_a_job_is_called_until_it_says_that_nothing_is_left(tmp_path: Path) -> None:
    steps = list[str]()

    async def walk(subject: str) -> float | None:
        steps.append(subject)
        return 0.01 if steps.count(subject) < 3 else None

    async def story(jobs: Jobs) -> None:
        jobs.handle("walk", walk)
        await add(jobs, "a", "b")
        await running(jobs, lambda: len(steps) >= 6)

    told(tmp_path, story)
    assert sorted(steps) == ["a", "a", "a", "b", "b", "b"]


def test_a_job_that_was_cut_off_is_done_by_the_next_process(tmp_path: Path) -> None:
    done = list[str]()

    async def cut_off(jobs: Jobs) -> None:
        begun = asyncio.Event()

        async def hang(_: str) -> float | None:
            begun.set()
            await asyncio.sleep(3600)
            return None

        jobs.handle("walk", hang)
        await add(jobs, "a")
        await running(jobs, begun.is_set)

    async def next_process(jobs: Jobs) -> None:
        async def walk(subject: str) -> float | None:
            done.append(subject)
            return None

        jobs.handle("walk", walk)
        await running(jobs, lambda: bool(done))

    told(tmp_path, cut_off)
    told(tmp_path, next_process)
    assert done == ["a"]


def test_one_that_fails_is_tried_again_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    calls = list[str]()

    async def walk(subject: str) -> float | None:
        calls.append(subject)
        if subject == "bad" and calls.count("bad") == 1:
            raise ArithmeticError
        return None

    async def story(jobs: Jobs) -> None:
        jobs.handle("walk", walk)
        await add(jobs, "bad", "good")
        await running(jobs, lambda: calls.count("bad") == 2)

    told(tmp_path, story)
    assert calls[:2] in (["bad", "good"], ["good", "bad"])
    assert len(calls) == 3


def test_what_is_asked_for_while_it_runs_is_done_once_more_and_not_at_the_same_time(tmp_path: Path) -> None:
    inside, most, calls = 0, 0, 0

    async def story(jobs: Jobs) -> None:
        async def walk(_: str) -> float | None:
            nonlocal inside, most, calls
            inside, calls = inside + 1, calls + 1
            most = max(most, inside)
            if calls == 1:
                await add(jobs, "a")
                await asyncio.sleep(0.05)
            inside -= 1
            return None

        jobs.handle("walk", walk)
        await add(jobs, "a")
        await running(jobs, lambda: calls == 2)

    told(tmp_path, story)
    assert (most, calls) == (1, 2)


def test_one_that_ends_while_it_is_looked_for_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()

    async def story(jobs: Jobs) -> None:
        late, seen, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        read = Database.read

        async def slow(database: Database, query: Callable[[Connection], Any]) -> Any:
            """The second look finds the job that runs, and tells of it when that has ended."""
            found = await read(database, query)
            if late.is_set() and not seen.is_set():
                seen.set()
                await ended.wait()
            return found

        async def walk(subject: str) -> float | None:
            calls.append(subject)
            if len(calls) == 1:
                late.set()
                jobs.look()
                await seen.wait()
            return None

        async def end() -> None:
            await seen.wait()
            await jobs.write(lambda c: None)  # the job's last write is done
            await jobs.write(lambda c: None)
            ended.set()
            await add(jobs, "b")

        monkeypatch.setattr(Database, "read", slow)
        jobs.handle("walk", walk)
        await add(jobs, "a")
        ending = asyncio.create_task(end())
        await running(jobs, lambda: "b" in calls)
        await ending

    told(tmp_path, story)
    assert calls == ["a", "b"]


def test_a_kind_that_hangs_takes_no_room_from_others(tmp_path: Path) -> None:
    hanging, done = set[str](), list[str]()

    async def hang(subject: str) -> float | None:
        hanging.add(subject)
        await asyncio.sleep(3600)
        return None

    async def walk(subject: str) -> float | None:
        done.append(subject)
        return None

    async def story(jobs: Jobs) -> None:
        jobs.handle("hang", hang)
        jobs.handle("walk", walk)
        await add(jobs, *(str(number) for number in range(3 * AT_ONCE)), kind="hang")
        await add(jobs, "a")
        await running(jobs, lambda: bool(done) and len(hanging) == AT_ONCE)

    told(tmp_path, story)
    assert len(hanging) == AT_ONCE


def test_a_job_waits_for_its_time(tmp_path: Path) -> None:
    done = list[float]()

    async def story(jobs: Jobs) -> None:
        async def walk(_: str) -> float | None:
            done.append(time.time() * 1000)
            return None

        jobs.handle("walk", walk)
        due = now_ms() + 300
        await add(jobs, "a", due_at=due)
        await running(jobs, lambda: bool(done))
        assert due <= done[0]

    told(tmp_path, story)
