"""Durable jobs: what is to be done after a request was answered, at least once, whatever stops in between.

A job is a row: the kind of work and whom it is about. Its handler does one step of the subject's state machine and says when it
wants to be called again. Who adds a job does so in the database transaction that makes it necessary.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy import Connection, Index, String, bindparam, delete, select, update
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base, Database, insert, now_ms
from gateway.statements import Statement

log = structlog.get_logger()

T = TypeVar("T")
Handler = Callable[[str], Awaitable[float | None]]
"""Does one step for a subject. Returns after how many seconds to be called again, or None when there is nothing left to do."""
AT_ONCE = 8
"""Jobs of one kind that run at the same time: one kind that waits for others does not keep the rest waiting."""
_LONGEST_SLEEP = 1.0
_LONGEST_PAUSE_MS = 60_000


class Job(Base):
    """``turn`` grows whenever the job is asked for anew, so that what is asked for while it runs is not forgotten at its end."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_due", "kind", "due_at"),)
    kind: Mapped[str] = mapped_column(String(24), primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[int]
    turn: Mapped[int]
    failures: Mapped[int]


class _Due(NamedTuple):
    kind: str
    subject: str
    due_at: int
    turn: int
    failures: int


_NEXT = Statement(
    lambda _: select(Job.__table__).where(Job.kind == bindparam("kind")).order_by(Job.due_at, Job.subject).limit(2 * AT_ONCE)
)


class Jobs:
    """All jobs of a gateway. A handler may be called again for what it did before a crash, so it must find out by itself.

    Attributes:
        ring: called when the process that does the jobs has to look.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ring: Callable[[], None] = lambda: None
        self._handlers: dict[str, Handler] = {}
        self._running: dict[str, set[str]] = {}
        self._ended = set[tuple[str, str]]()
        """Since the last look began: what it finds of them may be from before."""
        self._wake = asyncio.Event()

    def handle(self, kind: str, handler: Handler) -> None:
        """Let ``handler`` do the jobs of a kind. Before ``run``."""
        self._handlers[kind] = handler
        self._running[kind] = set()

    def add(self, connection: Connection, kind: str, subject: str, due_at: int | None = None) -> None:
        """Ask for a job at ``due_at`` (ms, now by default), in the caller's write; if it is there, at that time instead."""
        due = now_ms() if due_at is None else due_at
        statement = insert(connection, Job).values(kind=kind, subject=subject, due_at=due, turn=0, failures=0)
        again = {"due_at": due, "turn": Job.turn + 1, "failures": 0}
        connection.execute(statement.on_conflict_do_update(index_elements=["kind", "subject"], set_=again))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """A write of the database after which jobs may be due."""
        result = await self._database.write(change)
        self.wake()
        return result

    def wake(self) -> None:
        """Jobs may be due. Whichever process does them is told."""
        self.look()
        self.ring()

    def look(self) -> None:
        """Jobs may be due, if this process does them."""
        self._wake.set()

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        for running in self._running.values():
            running.clear()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                self._ended.clear()
                due, pause = await self._database.read(self._look)
                for job in due:
                    running = self._running[job.kind]
                    if job.subject not in running and (job.kind, job.subject) not in self._ended and len(running) < AT_ONCE:
                        running.add(job.subject)
                        tasks.create_task(self._do(job))
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    def _look(self, connection: Connection) -> tuple[list[_Due], float]:
        """Jobs that are due, those that run among them, and the seconds until the next one is."""
        now, pause, found = now_ms(), _LONGEST_SLEEP, list[_Due]()
        for kind in self._handlers:
            for job in map(_Due._make, _NEXT.run(connection, {"kind": kind})):
                if job.due_at <= now:
                    found.append(job)
                else:
                    pause = min(pause, (job.due_at - now) / 1000)
                    break
        return found, pause

    async def _do(self, job: _Due) -> None:
        try:
            failures, pause = 0, await self._handlers[job.kind](job.subject)
        except Exception as error:
            failures, pause = job.failures + 1, min(1000 << min(job.failures, 10), _LONGEST_PAUSE_MS) / 1000
            log.warning(
                "a job failed; it is tried again", kind=job.kind, subject=job.subject, in_seconds=pause, error=repr(error)
            )
        mine = (Job.kind == job.kind, Job.subject == job.subject, Job.turn == job.turn)
        if pause is None:
            await self._database.write(lambda c: c.execute(delete(Job).where(*mine)) and None)
        else:
            due = now_ms() + round(pause * 1000)
            await self._database.write(
                lambda c: c.execute(update(Job).where(*mine).values(due_at=due, failures=failures)) and None
            )
        self._running[job.kind].discard(job.subject)
        self._ended.add((job.kind, job.subject))
        self._wake.set()
