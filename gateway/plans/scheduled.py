"""Scheduled payments: made by themselves at their times, once each; ``running`` makes them."""

import secrets
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from gateway.checkout.settling import is_id
from gateway.cursors import read_cursor, write_cursor
from gateway.database import Database, insert, now_ms
from gateway.idempotency import Idempotency, claim
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.plans.calendar import ONCE, Rule, time_zones
from gateway.plans.checking import addresses, check
from gateway.plans.states import RunStatus, ScheduleStatus
from gateway.plans.tables import ScheduledPayment, ScheduledRun
from gateway.problems import Problem
from gateway.times import iso
from gateway.wallets import Wallets
from node.protocol.amounts import format_amount

View = dict[str, Any]
KIND = "scheduled_payment"
MAX_ALIVE = 100
"""Of one user, that are active or paused."""
FARTHEST = timedelta(days=5 * 366)
"""Until the first time."""
_YEARS = range(2000, 2200)
_ALIVE = (ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED)


class NewSchedule(NamedTuple):
    """What a user wants to be paid, and when."""

    wallet_id: str
    to: str
    asset: str
    amount: str
    memo: str
    reference: str
    rule: Rule


class Scheduled(NamedTuple):
    """A scheduled payment and its latest run, as they stand."""

    row: Row[Any]
    run: Row[Any] | None


class Schedules:
    """Everybody's. Methods return the state that is durable."""

    def __init__(self, database: Database, jobs: Jobs, wallets: Wallets, payments: Payments) -> None:
        self._database, self._jobs, self._wallets, self._payments = database, jobs, wallets, payments

    async def plan(self, user_id: str, asked: NewSchedule, key: Idempotency | None) -> View:
        """Have something paid.

        Raises:
            Problem: 404, no such wallet; 409, its key is not here, or there are too many; 422, it can never be paid, or there is
                no such time.
        """
        wallet = await self._wallets.wallet(user_id, asked.wallet_id)
        self._wallets.signer(wallet)
        named = await addresses(self._database, [asked.to])
        try:
            checked = check(self._payments, wallet.address, asked.to, asked.asset, asked.amount, named)
        except Problem as problem:
            raise Problem(problem.status, problem.code, problem.detail, pointer=f"/body/{problem.pointer}") from None
        now, new, rule = now_ms(), secrets.token_bytes(16), asked.rule
        row: dict[str, Any] = {"id": new.hex(), "user_id": user_id, "wallet_id": wallet.id, "created_at": now}
        row |= {"payee": checked.payee, "asset": asked.asset, "units": checked.units}
        row |= {"memo": asked.memo, "reference": asked.reference, "status": ScheduleStatus.ACTIVE}
        row |= {"starts_at": rule.starts_at.isoformat(), "time_zone": rule.time_zone, "repeat": rule.repeat}
        row |= {"interval": rule.interval, "times": rule.times, "until": None if rule.until is None else rule.until.isoformat()}
        row["next_at"] = _first(rule, now)

        def save(connection: Connection) -> View:
            if key is not None and (earlier := claim(connection, user_id, key, new, now)) is not None:
                return self._shown(connection, user_id, earlier.hex())
            alive = select(func.count()).select_from(ScheduledPayment)
            alive = alive.where(ScheduledPayment.user_id == user_id, ScheduledPayment.status.in_(_ALIVE))
            if connection.execute(alive).scalar_one() >= MAX_ALIVE:
                raise Problem(409, "limit_exceeded", f"at most {MAX_ALIVE} scheduled payments")
            connection.execute(insert(connection, ScheduledPayment).values(**row))
            self._jobs.add(connection, KIND, row["id"], row["next_at"])
            return self._shown(connection, user_id, row["id"])

        return await self._jobs.write(save)

    async def pause(self, user_id: str, scheduled_id: str) -> View:
        """Pay nothing until ``resume``. Raises Problem: 404; 409, it is over."""

        def save(connection: Connection) -> View:
            row = self._alive(connection, user_id, scheduled_id)
            self._stop(connection, row, ScheduleStatus.PAUSED)
            return self._shown(connection, user_id, scheduled_id)

        return await self._database.write(save)

    async def resume(self, user_id: str, scheduled_id: str) -> View:
        """Go on with the first time that is to come. Raises Problem: 404; 409, it is over, or there is no such time."""

        def save(connection: Connection) -> View:
            row = self._alive(connection, user_id, scheduled_id)
            if row.status == ScheduleStatus.PAUSED:
                begun = _running(connection, row)
                next_at = row.next_at if begun else rule_of(row).after(now_ms())
                if next_at is None:
                    raise Problem(409, "scheduled_payment_over", "all its times have passed")
                change(connection, row.id, {"status": ScheduleStatus.ACTIVE, "next_at": next_at})
                self._jobs.add(connection, KIND, row.id, None if begun else next_at)
            return self._shown(connection, user_id, scheduled_id)

        return await self._jobs.write(save)

    async def cancel(self, user_id: str, scheduled_id: str) -> View:
        """Pay nothing more; what is under way ends as it ends. Raises Problem: 404; 409, it is over."""

        def save(connection: Connection) -> View:
            row = self._alive(connection, user_id, scheduled_id)
            self.end(connection, row)
            return self._shown(connection, user_id, scheduled_id)

        return await self._database.write(save)

    def end(self, connection: Connection, row: Row[Any]) -> None:
        """Cancel one, in the caller's write."""
        self._stop(connection, row, ScheduleStatus.CANCELED)

    async def get(self, user_id: str, scheduled_id: str) -> View:
        """Raises Problem (404)."""
        return await self._database.read(lambda c: self._shown(c, user_id, scheduled_id))

    async def page(
        self, user_id: str, status: ScheduleStatus | None, cursor: str | None, limit: int
    ) -> tuple[list[View], str | None]:
        """A user's, latest first, and the cursor of the next page."""
        query = select(ScheduledPayment.__table__).where(ScheduledPayment.user_id == user_id)
        query = query.order_by(ScheduledPayment.number.desc()).limit(limit + 1)
        if status is not None:
            query = query.where(ScheduledPayment.status == status)
        if cursor is not None:
            query = query.where(ScheduledPayment.number < read_cursor(cursor)[0])

        def look(connection: Connection) -> tuple[list[View], str | None]:
            rows = connection.execute(query).all()
            following = write_cursor(rows[limit - 1].number) if len(rows) > limit else None
            return [self.view(connection, row) for row in rows[:limit]], following

        return await self._database.read(look)

    async def runs(self, user_id: str, scheduled_id: str, cursor: str | None, limit: int) -> tuple[list[View], str | None]:
        """What became of it at its times, latest first. Raises Problem (404)."""
        query = select(ScheduledRun.__table__).where(ScheduledRun.scheduled_id == scheduled_id)
        query = query.order_by(ScheduledRun.due_at.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(ScheduledRun.due_at < read_cursor(cursor)[0])

        def look(connection: Connection) -> Sequence[Row[Any]]:
            self._load(connection, user_id, scheduled_id)
            return connection.execute(query).all()

        rows = await self._database.read(look)
        following = write_cursor(rows[limit - 1].due_at) if len(rows) > limit else None
        return [_run_view(row) for row in rows[:limit]], following

    def view(self, connection: Connection, row: Row[Any]) -> View:
        """One as the API shows it."""
        last = select(ScheduledRun.__table__).where(ScheduledRun.scheduled_id == row.id).order_by(ScheduledRun.due_at.desc())
        run = connection.execute(last.limit(1)).first()
        return {
            "id": row.id,
            "status": row.status,
            "from_wallet": row.wallet_id,
            "to": row.payee,
            "asset": row.asset,
            "amount": format_amount(row.units, self._payments.assets[row.asset].decimals),
            "memo": row.memo,
            "reference": row.reference,
            "starts_at": row.starts_at,
            "time_zone": row.time_zone,
            "repeat": row.repeat,
            "interval": row.interval,
            "count": row.times,
            "until": row.until,
            "next_run_at": iso(row.next_at) if row.status == ScheduleStatus.ACTIVE else None,
            "last_run": None if run is None else _run_view(run),
            "created_at": iso(row.created_at),
        }

    def _stop(self, connection: Connection, row: Row[Any], status: ScheduleStatus) -> None:
        """No run begins any more, and one that waits to be tried again has failed."""
        change(connection, row.id, {"status": status})
        waiting = (ScheduledRun.scheduled_id == row.id, ScheduledRun.status == RunStatus.RETRYING)
        failed = {"status": RunStatus.FAILED, "code": status.value, "updated_at": now_ms()}
        connection.execute(update(ScheduledRun).where(*waiting).values(**failed))

    def _shown(self, connection: Connection, user_id: str, scheduled_id: str) -> View:
        return self.view(connection, self._load(connection, user_id, scheduled_id))

    def _load(self, connection: Connection, user_id: str, scheduled_id: str) -> Row[Any]:
        mine = (ScheduledPayment.id == scheduled_id, ScheduledPayment.user_id == user_id)
        row = connection.execute(select(ScheduledPayment.__table__).where(*mine)).first() if is_id(scheduled_id) else None
        if row is None:
            raise Problem(404, "scheduled_payment_not_found", "you have no such scheduled payment")
        return row

    def _alive(self, connection: Connection, user_id: str, scheduled_id: str) -> Row[Any]:
        row = self._load(connection, user_id, scheduled_id)
        if row.status not in _ALIVE:
            raise Problem(409, "scheduled_payment_over", f"this scheduled payment is {row.status}")
        return row


def rule_of(row: Row[Any]) -> Rule:
    """The times of a scheduled payment."""
    until = None if row.until is None else date.fromisoformat(row.until)
    return Rule(datetime.fromisoformat(row.starts_at), row.time_zone, row.repeat, row.interval, row.times, until)


def change(connection: Connection, scheduled_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(ScheduledPayment).where(ScheduledPayment.id == scheduled_id).values(**values))


def _first(rule: Rule, now: int) -> int:
    """When it is due first, ms. Raises Problem (422)."""
    if rule.time_zone not in time_zones():
        raise Problem(422, "unknown_time_zone", "a name such as Europe/Berlin, of the IANA's list", pointer="/body/time_zone")
    if rule.repeat == ONCE and (rule.interval != 1 or rule.times is not None or rule.until is not None):
        raise Problem(422, "invalid_time", "what is paid once has no interval, count or until", pointer="/body/repeat")
    if rule.times is not None and rule.until is not None:
        raise Problem(422, "invalid_time", "count or until, not both", pointer="/body/until")
    first = rule.after(0) if rule.starts_at.year in _YEARS else None
    if first is None or not now < first <= now + FARTHEST // timedelta(milliseconds=1):
        raise Problem(422, "invalid_time", "the first time is to come, in the next five years", pointer="/body/starts_at")
    return first


def _running(connection: Connection, row: Row[Any]) -> bool:
    """Whether the payment of its present time is under way."""
    query = select(ScheduledRun.status).where(ScheduledRun.scheduled_id == row.id, ScheduledRun.due_at == row.next_at)
    return connection.execute(query).scalar() == RunStatus.PROCESSING


def _run_view(row: Row[Any]) -> View:
    return {
        "due_at": iso(row.due_at),
        "status": row.status,
        "code": row.code or None,
        "transfer_id": None if row.transfer_id is None else row.transfer_id.hex(),
        "attempts": row.attempts,
        "updated_at": iso(row.updated_at),
    }
