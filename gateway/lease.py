"""Which of several processes follows the chains: the one that has the lease, for as long as it renews it.

A process may stand still past its lease and then go on, not knowing that another has taken over. So each lease has a token,
greater than all before, and whatever its holder writes is written only if the token is still the latest: that is checked in the
same database transaction.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, String, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import FENCE, Base, Database, insert, now_ms
from gateway.statements import Statement

log = structlog.get_logger()
DURATION = 4.0
"""Seconds from its last renewal until another process may take the lease, by the database's clock."""
_RENEW_EVERY = 1.0
_NAME = "follower"


class LeaseRecord(Base):
    """``holder``: the process's name, and what tells it from all others. ``caught_up``: whether it is at the chains' ends."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(24), primary_key=True)
    holder: Mapped[str] = mapped_column(String(160))
    token: Mapped[int]
    expires_at: Mapped[int]
    caught_up: Mapped[bool]


class Lost(Exception):
    """Another process has the lease, or may have."""


class Lease:
    """The lease, as this process sees it.

    Attributes:
        held: whether this process has it.
        holder: name of the process that has it; "" when none has.
        caught_up: what its holder says.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database, self._name = database, name
        self._me = f"{name} {_identity()}"
        self._token = 0
        self._wake = asyncio.Event()
        self.held = False
        self.holder = ""
        self.caught_up = False

    async def keep(self, work: Callable[[], Awaitable[None]], caught_up: Callable[[], bool]) -> None:
        """Have ``work`` done for as long as this process has the lease, and do all to get it, until cancelled. All that ``work``
        and the tasks that it starts write is fenced."""
        while True:
            if (token := await self._database.write(self._take)) is None:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RENEW_EVERY):
                        await self._wake.wait()
                continue
            self._token, self.held, self.holder = token, True, self._name
            log.info("this process follows the chains now", token=token)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._fenced(work))
                    await self._renew(caught_up)  # in here: with Python 3.11 a group that fails as it ends counts as cancelled
            except* Lost as lost:
                log.warning("this process follows the chains no more", token=token, error=str(lost.exceptions[0]))
            finally:
                self.held = False
                with suppress(Exception):
                    async with asyncio.timeout(1):
                        await self._database.write(self._release)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # a group that fails and is cancelled at once tells of its failure alone

    async def look(self) -> None:
        """Read who has it; if nobody has, try to get it at once."""
        if self.held:
            return
        query = select(LeaseRecord.__table__).where(LeaseRecord.name == _NAME)
        row, now = await self._database.read(lambda c: (c.execute(query).first(), database_ms(c)))
        alive = row is not None and row.expires_at > now
        self.holder, self.caught_up = (row.holder.split(" ")[0], row.caught_up) if row is not None and alive else ("", False)
        if not alive:
            self._wake.set()

    def check(self, connection: Connection) -> None:
        """The fence. Raises Lost."""
        self._expect(connection)

    async def _fenced(self, work: Callable[[], Awaitable[None]]) -> None:
        FENCE.set(self.check)  # of this task, and of those it starts
        await work()

    async def _renew(self, caught_up: Callable[[], bool]) -> None:
        good_until = time.monotonic() + DURATION
        while True:
            await asyncio.sleep(_RENEW_EVERY)
            begun, self.caught_up = time.monotonic(), caught_up()
            try:
                async with asyncio.timeout(good_until - begun):
                    await self._database.write(lambda c: self._extend(c, self.caught_up))
            except TimeoutError:
                raise Lost("it could not be renewed in time") from None
            good_until = begun + DURATION

    def _take(self, connection: Connection) -> int | None:
        """The token, if the lease is free."""
        row = connection.execute(select(LeaseRecord.__table__).where(LeaseRecord.name == _NAME)).first()
        now = database_ms(connection)
        if row is not None and row.expires_at > now and row.holder != self._me and not _has_died(row.holder):
            return None
        taken: dict[str, Any] = {"holder": self._me, "token": 1 if row is None else row.token + 1, "caught_up": False}
        taken["expires_at"] = now + round(DURATION * 1000)
        put = insert(connection, LeaseRecord).values(name=_NAME, **taken)
        connection.execute(put.on_conflict_do_update(index_elements=["name"], set_=taken))
        token: int = taken["token"]
        return token

    def _extend(self, connection: Connection, caught_up: bool) -> None:
        self._expect(connection)
        until = database_ms(connection) + round(DURATION * 1000)
        connection.execute(update(LeaseRecord).where(LeaseRecord.name == _NAME).values(expires_at=until, caught_up=caught_up))

    def _release(self, connection: Connection) -> None:
        mine = (LeaseRecord.name == _NAME, LeaseRecord.token == self._token)
        connection.execute(update(LeaseRecord).where(*mine).values(expires_at=0, caught_up=False))

    def _expect(self, connection: Connection) -> None:
        row = _TOKEN.run(connection, {}).fetchone()
        if (token := row and row[0]) != self._token:
            raise Lost(f"the lease is at token {token}, mine is {self._token}")


_TOKEN = Statement(lambda _: select(LeaseRecord.token).where(LeaseRecord.name == _NAME))


def database_ms(connection: Connection) -> int:
    """The database's clock, ms since the Unix epoch: the same one for all processes, however theirs differ. SQLite has its
    machine's, as all who use it have."""
    if connection.dialect.name != "postgresql":
        return now_ms()
    return int(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one() * 1000)


def _identity() -> str:
    """What tells this process from all others, also from later ones with its id; on Linux in a form that lets others on the same
    machine see whether it lives."""
    try:
        return f"{_machine()} {os.getpid()} {_started(os.getpid())}"
    except OSError:
        return secrets.token_hex(16)


def _has_died(holder: str) -> bool:
    """Whether a process is known to be no more: then nobody need wait for its lease to end."""
    try:
        _, machine, pid, started = holder.split(" ")
        return machine == _machine() and _started(int(pid)) != started
    except (OSError, ValueError):  # of another machine, or of a form that tells nothing
        return False


def _machine() -> str:
    """This boot of this machine, and the namespace in which process ids are counted. Raises OSError where none can be told."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; "" when there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
