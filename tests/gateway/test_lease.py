"""One process follows the chains at a time; who has lost the lease writes nothing, whatever it believes."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text, update

from gateway import lease as module
from gateway.database import Database, EpochRecord, open_engine
from gateway.events.outbox import Event
from gateway.lease import Lease, LeaseRecord, Lost


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]) -> str:
    return f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else new_database()


@asynccontextmanager
async def process(url: str, name: str) -> AsyncIterator[tuple[Database, Lease]]:
    database = Database(open_engine(url))
    try:
        yield database, Lease(database, name)
    finally:
        database.close()


class Duty:
    """Work that a lease is for: goes on until it is cancelled."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self.go_on, self.written = asyncio.Event(), asyncio.Event()
        self.refused: Exception | None = None

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await self.go_on.wait()
            await asyncio.create_task(self._write())  # fenced is what its tasks write, too
            self.written.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def _write(self) -> None:
        try:
            await self._database.write(lambda c: c.execute(insert(EpochRecord).values(number=7, document=b"")) and None)
        except Exception as error:
            self.refused = error
            raise


def count(connection: Connection) -> int:
    return len(connection.execute(select(EpochRecord.number)).all())


def expire(connection: Connection) -> None:
    connection.execute(update(LeaseRecord).values(expires_at=0))


def test_who_lost_the_lease_without_knowing_writes_nothing_and_steps_down(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RENEW_EVERY", 1000.0)  # the first one stands still

    async def story() -> None:
        async with process(url, "one") as (first, one), process(url, "two") as (second, two), asyncio.TaskGroup() as tasks:
            work, successor = Duty(first), Duty(second)
            keeping = tasks.create_task(one.keep(work, lambda: True))
            await work.begun.wait()
            taking = tasks.create_task(two.keep(successor, lambda: True))
            await asyncio.sleep(0.1)
            assert (one.held, two.held) == (True, False), "one at a time"
            await second.write(expire)
            await two.look()
            await successor.begun.wait()
            work.go_on.set()
            await work.ended.wait()
            assert isinstance(work.refused, Lost)
            assert await second.read(count) == 0
            successor.go_on.set()
            await successor.written.wait()
            assert await second.read(count) == 1
            assert (one.held, two.held) == (False, True)
            keeping.cancel()
            taking.cancel()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_lease_that_cannot_be_renewed_ends_by_its_holders_own_clock(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RENEW_EVERY", 0.01)
    monkeypatch.setattr(module, "DURATION", 0.2)

    async def story() -> None:
        async with process(url, "one") as (database, lease), asyncio.TaskGroup() as tasks:
            work, never = Duty(database), asyncio.Event()
            keeping = tasks.create_task(lease.keep(work, lambda: True))
            await work.begun.wait()

            async def stuck(_: Any) -> None:
                await never.wait()

            monkeypatch.setattr(database, "write", stuck)
            await work.ended.wait()
            work.begun.clear()
            monkeypatch.undo()
            await work.begun.wait()  # it can write again, and takes the lease anew
            assert lease.held
            keeping.cancel()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_whoever_ends_in_order_or_is_known_to_be_dead_keeps_nobody_waiting(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gateway.db"
    program = f"""
import asyncio, os, signal
from gateway.database import Database, open_engine
from gateway.lease import Lease
async def main():
    async def work():
        os.kill(os.getpid(), signal.SIGKILL)
    await Lease(Database(open_engine({url!r})), "dead").keep(work, bool)
asyncio.run(main())
"""

    async def story() -> None:
        async with process(url, "one") as (first, one), process(url, "two") as (second, two):
            ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=60)
            assert ended.returncode == -9
            for database, lease in ((first, one), (second, two)):
                work = Duty(database)
                keeping = asyncio.create_task(lease.keep(work, lambda: True))
                await asyncio.wait_for(work.begun.wait(), module.DURATION / 2)
                keeping.cancel()
                await asyncio.wait([keeping])

    asyncio.run(story())


def test_a_write_waits_for_that_of_another_process_so_that_no_event_becomes_visible_before_an_earlier_one(url: str) -> None:
    row = {"user_id": "u", "type": "t", "subject": "s", "data": "", "created_at": 0}
    emitted = threading.Event()

    def slowly(connection: Connection) -> None:
        connection.execute(insert(Event).values(**row))
        emitted.set()
        connection.execute(text("SELECT pg_sleep(0.3)")) if connection.dialect.name == "postgresql" else time.sleep(0.3)

    def quickly(connection: Connection) -> list[int]:
        connection.execute(insert(Event).values(**row))
        return list(connection.execute(select(Event.id)).scalars())

    async def story() -> None:
        async with process(url, "one") as (first, _), process(url, "two") as (second, _):
            writing = asyncio.create_task(first.write(slowly))
            await asyncio.to_thread(emitted.wait, 10)
            assert await second.write(quickly) == [1, 2], "what it reads is all that was written before"
            await writing

    asyncio.run(asyncio.wait_for(story(), 30))


def test_what_failed_while_it_was_made_durable_is_not_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")
        database, commits = Database(engine), list[str]()

        def lose(_: Connection) -> None:
            commits.append("commit")
            raise ConnectionError("the answer is lost")

        event.listen(engine, "commit", lose)
        results = await asyncio.gather(*(database.write(count) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in results] == [ConnectionError] * 3
        assert commits == ["commit"], "or it might happen twice"
        database.close()

    asyncio.run(story())
