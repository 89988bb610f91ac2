"""The job that makes scheduled payments: one payment for each time, bound to its run in the transaction that accepts it.

A run is tried for 24 hours from its time on: every hour, while the wallet has too little or the network lets the payment expire.
Then it has failed, and the next one comes at its own time. So a gateway that was away pays what is late by less than that, and
misses the rest. There is one payment under way for a run at most, and none after one that was committed.
"""

from typing import Any

from sqlalchemy import Connection, Row, select, update

from gateway.checkout.settling import transfer_end
from gateway.database import Database, insert, now_ms
from gateway.events.outbox import Outbox
from gateway.jobs import Jobs
from gateway.plans.payer import Payer
from gateway.plans.scheduled import KIND, Scheduled, Schedules, rule_of
from gateway.plans.states import RunStatus, ScheduleStatus
from gateway.plans.tables import ScheduledPayment, ScheduledRun
from node.protocol.codes import Code

WINDOW_MS = 24 * 3600 * 1000
_EVERY_MS = 3600 * 1000
_FIRST_LOOK = 0.2
_PASSING = (Code.INSUFFICIENT_FUNDS, Code.BELOW_SMALLEST_BALANCE, Code.EXPIRED)
"""What may be otherwise in an hour."""
_BEGUN = (RunStatus.RETRYING, RunStatus.PROCESSING)


class Running:
    """The jobs of kind ``KIND``; their subject is a scheduled payment."""

    def __init__(self, database: Database, jobs: Jobs, outbox: Outbox, payer: Payer, schedules: Schedules) -> None:
        self._database, self._outbox, self._payer, self._schedules = database, outbox, payer, schedules
        jobs.handle(KIND, self._step)

    async def _step(self, scheduled_id: str) -> float | None:
        found = await self._database.read(lambda c: _load(c, scheduled_id))
        if found is None or found.row.next_at is None:
            return None
        row, run = found
        if run is not None and run.status == RunStatus.PROCESSING:
            return await self._follow(found)
        if row.status != ScheduleStatus.ACTIVE:
            return None
        now = now_ms()
        begin: int = row.next_at if run is None else run.updated_at + _EVERY_MS
        if now < begin:
            return (begin - now) / 1000
        late = now - row.next_at
        if late >= WINDOW_MS:
            return await self._finish(found, RunStatus.FAILED, "missed" if run is None else run.code)
        return await self._pay(found)

    async def _pay(self, found: Scheduled) -> float | None:
        """Raises Problem (503) when it is worth trying again at once."""
        row = found.row

        def bind(connection: Connection, transfer_id: bytes) -> bool:
            same = (ScheduledPayment.id == row.id, ScheduledPayment.next_at == row.next_at)
            active = update(ScheduledPayment).where(*same, ScheduledPayment.status == ScheduleStatus.ACTIVE)
            is_active = connection.execute(active.values(status=ScheduleStatus.ACTIVE)).rowcount
            new = {"status": RunStatus.PROCESSING, "code": "", "transfer_id": transfer_id, "attempts": _attempts(found) + 1}
            return bool(is_active) and _put_run(connection, row, new, RunStatus.RETRYING)

        if code := await self._payer.pay(row.user_id, row.wallet_id, row, bind):
            return await self._refused(found, code, _attempts(found) + 1)
        return _FIRST_LOOK

    async def _follow(self, found: Scheduled) -> float | None:
        """The payment of a run is under way."""
        run = found.run
        assert run is not None
        end, pause = await self._database.read(lambda c: transfer_end(c, run.transfer_id))
        if end.committed:
            return await self._finish(found, RunStatus.PAID, "")
        return await self._refused(found, end.code, run.attempts) if end.failed else pause

    async def _refused(self, found: Scheduled, code: str, attempts: int) -> float | None:
        """It was not paid, and never will be by that payment."""
        row = found.row
        again = row.status == ScheduleStatus.ACTIVE and now_ms() + _EVERY_MS < row.next_at + WINDOW_MS
        if code not in _PASSING or not again:
            return await self._finish(found, RunStatus.FAILED, code, attempts)

        def save(connection: Connection) -> float | None:
            # What has been stopped meanwhile is for the next step to see.
            new = {"status": RunStatus.RETRYING, "code": code, "attempts": attempts}
            if _load(connection, row.id) != found or not _put_run(connection, row, new, *_BEGUN):
                return 0.0
            if found.run is None or found.run.attempts == attempts == 1:
                self._outbox.emit(connection, row.user_id, f"{KIND}.retrying", self._schedules.view(connection, row))
            return _EVERY_MS / 1000

        return await self._outbox.write(save)

    async def _finish(self, found: Scheduled, status: RunStatus, code: str, attempts: int | None = None) -> float | None:
        """A run has ended, and the next time comes, if there is one."""
        row = found.row
        next_at = rule_of(row).after(row.next_at)
        values: dict[str, Any] = {"next_at": next_at}
        if next_at is None and row.status != ScheduleStatus.CANCELED:
            values["status"] = ScheduleStatus.COMPLETED
        tried = _attempts(found) if attempts is None else attempts

        def save(connection: Connection) -> float | None:
            new = {"status": status, "code": code, "attempts": tried}
            if _load(connection, row.id) != found or not _put_run(connection, row, new, *_BEGUN):
                return 0.0
            connection.execute(update(ScheduledPayment).where(ScheduledPayment.id == row.id).values(**values))
            after = connection.execute(select(ScheduledPayment.__table__).where(ScheduledPayment.id == row.id)).one()
            self._outbox.emit(connection, row.user_id, f"{KIND}.{status}", self._schedules.view(connection, after))
            return None if next_at is None else 0.0

        return await self._outbox.write(save)


def _load(connection: Connection, scheduled_id: str) -> Scheduled | None:
    """With the run of its present time."""
    row = connection.execute(select(ScheduledPayment.__table__).where(ScheduledPayment.id == scheduled_id)).first()
    if row is None:
        return None
    run = select(ScheduledRun.__table__).where(ScheduledRun.scheduled_id == row.id, ScheduledRun.due_at == row.next_at)
    return Scheduled(row, connection.execute(run).first())


def _attempts(found: Scheduled) -> int:
    return 0 if found.run is None else int(found.run.attempts)


def _put_run(connection: Connection, row: Row[Any], values: dict[str, Any], *old: RunStatus) -> bool:
    """Write the run of the present time, if it is new or has one of the statuses ``old``."""
    new = {"scheduled_id": row.id, "due_at": row.next_at, "transfer_id": None} | values | {"updated_at": now_ms()}
    changes = values | {"updated_at": new["updated_at"]}
    statement = insert(connection, ScheduledRun).values(**new)
    keys = ["scheduled_id", "due_at"]
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changes, where=ScheduledRun.status.in_(old))
    return bool(connection.execute(statement).rowcount)
