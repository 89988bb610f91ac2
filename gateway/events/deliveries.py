"""Deliveries of webhooks: sent until they arrive, at least once, whatever stops in between.

The rows are the queue: what is due is looked for, sent, and what came of it written down. They are not jobs (``gateway/jobs.py``)
because a receiver may take seconds to answer: of one user at most a few are under way, so that no dead shop holds up the others.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from gateway.database import Database, now_ms
from gateway.events.outbox import KEPT_MS, Event
from gateway.events.posting import Outcome, Poster
from gateway.events.shown import Shower
from gateway.events.tables import PENDING, Attempt, Delivery, WebhookEndpoint
from gateway.problems import Problem

log = structlog.get_logger()
AT_ONCE = 128
AT_ONCE_OF_USER = 8
PAUSES = (60, 300, 1800, 7200, 21_600, *[43_200] * 5)
"""Seconds after the first attempt, the second, and so on: nearly three days, and then it has failed."""
FIRST_PAUSES_ON_DEVNET = (1, 2, 5, 10)
GIVEN_UP_AFTER_MS = 3 * 24 * 3600 * 1000
"""An endpoint that has got nothing for so long is disabled."""
MAX_ATTEMPTS = 100
"""Of one delivery, replays included."""
_LONGEST_SLEEP = 60.0
_REMOVED_AT_ONCE = 500


class _Due(NamedTuple):
    id: int
    user: str


class _Work(NamedTuple):
    """A delivery with all that sending it takes. ``body``: None when the event is too old to be there."""

    id: int
    endpoint: Any
    tries: int
    body: bytes | None


class Deliveries:
    """All deliveries. ``secrets``: those that sign for an endpoint's row.

    Attributes:
        attempts: since start, by whether they succeeded.
        ring: called when the process that sends them has to look.
    """

    def __init__(
        self, database: Database, shower: Shower, poster: Poster, secrets: Callable[[Any], list[str]], devnet: bool
    ) -> None:
        self._database, self._shower, self._poster, self._secrets = database, shower, poster, secrets
        self._pauses = (*(FIRST_PAUSES_ON_DEVNET if devnet else ()), *PAUSES)
        self._sending: dict[int, str] = {}
        self._wake = asyncio.Event()
        self.attempts = {True: 0, False: 0}
        self.ring: Callable[[], None] = lambda: None

    def wake(self) -> None:
        """There may be new ones. Whichever process sends them is told."""
        self.look()
        self.ring()

    def look(self) -> None:
        """There may be new ones, if this process sends them."""
        self._wake.set()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        self._sending.clear()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                pause = await self._start(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def of(self, endpoint_id: str, before: int | None, limit: int) -> list[tuple[Row[Any], Sequence[Row[Any]]]]:
        """An endpoint's deliveries with their attempts, of the latest event first; ``before``: of an earlier event than this."""
        query = select(Delivery.__table__).where(Delivery.endpoint_id == endpoint_id)
        if before is not None:
            query = query.where(Delivery.event_id < before)

        def read(connection: Connection) -> list[tuple[Row[Any], Sequence[Row[Any]]]]:
            rows = connection.execute(query.order_by(Delivery.event_id.desc()).limit(limit)).all()
            found: dict[int, list[Row[Any]]] = {row.id: [] for row in rows}
            for attempt in connection.execute(
                select(Attempt.__table__).where(Attempt.delivery_id.in_(found)).order_by(Attempt.id)
            ):
                found[attempt.delivery_id].append(attempt)
            return [(row, found[row.id]) for row in rows]

        return await self._database.read(read)

    async def replay(self, user_id: str, delivery_id: int) -> None:
        """Send it again, now, and again as if it were new until it arrives.

        Raises:
            Problem: 404; 409, the endpoint is disabled, or it was tried too often.
        """

        def change(connection: Connection) -> None:
            columns = (WebhookEndpoint.disabled, WebhookEndpoint.deleted)
            query = select(*columns).join(Delivery, Delivery.endpoint_id == WebhookEndpoint.id)
            endpoint = connection.execute(query.where(Delivery.id == delivery_id, Delivery.user_id == user_id)).first()
            if endpoint is None or endpoint.deleted:
                raise Problem(404, "webhook_delivery_not_found", "there is no such delivery")
            if endpoint.disabled:
                raise Problem(409, "webhook_endpoint_disabled", "enable the endpoint first")
            tried = select(func.count()).select_from(Attempt).where(Attempt.delivery_id == delivery_id)
            if connection.execute(tried).scalar_one() >= MAX_ATTEMPTS:
                raise Problem(409, "limit_exceeded", f"a delivery is tried at most {MAX_ATTEMPTS} times")
            again = {"status": "pending", "tries": 0, "next_attempt_at": now_ms()}
            connection.execute(update(Delivery).where(Delivery.id == delivery_id).values(**again))

        await self._database.write(change)
        self.wake()

    async def purge(self) -> None:
        """Remove what is older than the events are kept, and what belongs to deleted endpoints, in small steps."""
        while await self._database.write(_remove_some):
            pass

    async def _start(self, tasks: asyncio.TaskGroup) -> float:
        """Begin to send what is due, as far as there is room. Returns the seconds until more is."""
        while (room := AT_ONCE - len(self._sending)) > 0:
            of_user = Counter(self._sending.values())
            busy = [user for user, count in of_user.items() if count >= AT_ONCE_OF_USER]
            limit = AT_ONCE + len(self._sending)  # those that are being sent are among them
            due, pause = await self._database.read(partial(_due, busy=busy, limit=limit))
            fresh = list[_Due]()
            for one in due:
                if one.id not in self._sending and of_user[one.user] < AT_ONCE_OF_USER and len(fresh) < room:
                    of_user[one.user] += 1
                    fresh.append(one)
            for one in fresh:
                self._sending[one.id] = one.user
                tasks.create_task(self._send(one.id))
            if not fresh:
                return pause
        return _LONGEST_SLEEP

    async def _send(self, delivery_id: int) -> None:
        try:
            work = await self._database.read(lambda c: self._load(c, delivery_id))
            if work is not None:
                outcome = await self._outcome(work)
                self.attempts[outcome.error is None] += 1
                pauses = self._pauses[work.tries : work.tries + 1] if work.body and not work.endpoint.disabled else ()
                due = next((now_ms() + round(pause * random.uniform(800, 1000)) for pause in pauses), None)
                if await self._database.write(lambda c: _record(c, work, outcome, due)):
                    log.warning("a webhook endpoint is disabled: it took nothing for days", endpoint=work.endpoint.id)
        finally:
            self._sending.pop(delivery_id, None)
            self.look()

    def _load(self, connection: Connection, delivery_id: int) -> _Work | None:
        found = select(Delivery.__table__).where(Delivery.id == delivery_id, PENDING)
        delivery = connection.execute(found).first()
        if delivery is None:
            return None
        endpoint = connection.execute(select(WebhookEndpoint.__table__).where(WebhookEndpoint.id == delivery.endpoint_id)).one()
        events = connection.execute(select(Event.__table__).where(Event.id == delivery.event_id)).all()
        body = self._shower.show(connection, events)[0].body if events else None
        return _Work(delivery.id, endpoint, delivery.tries, body)

    async def _outcome(self, work: _Work) -> Outcome:
        if work.endpoint.disabled or work.endpoint.deleted:
            return Outcome(None, "endpoint_disabled", 0)
        if work.body is None:
            return Outcome(None, "event_expired", 0)
        try:
            return await self._poster.post(work.endpoint.url, work.body, self._secrets(work.endpoint))
        except Exception as error:  # of ours; the next attempt may be one of a version that is right
            log.error("a webhook could not be sent", delivery=work.id, error=repr(error), exc_info=error)
            return Outcome(None, "internal_error", 0)


def _due(connection: Connection, busy: list[str], limit: int) -> tuple[list[_Due], float]:
    """Deliveries that are due, but of users who are busy, and the seconds until the next one is."""
    now = now_ms()
    query = select(Delivery.id, Delivery.user_id).where(Delivery.next_attempt_at <= now, PENDING, Delivery.user_id.not_in(busy))
    rows = connection.execute(query.order_by(Delivery.next_attempt_at, Delivery.id).limit(limit))
    due = [_Due(*row) for row in rows]
    following = connection.execute(select(func.min(Delivery.next_attempt_at)).where(Delivery.next_attempt_at > now, PENDING))
    at = following.scalar()
    return due, _LONGEST_SLEEP if at is None else min(_LONGEST_SLEEP, (at - now) / 1000)


def _record(connection: Connection, work: _Work, outcome: Outcome, due: int | None) -> bool:
    """Write down an attempt and what follows from it; ``due``: of the next one, should this have failed. Returns whether the
    endpoint was disabled for it."""
    now = now_ms()
    status = "succeeded" if outcome.error is None else "failed" if due is None else "pending"
    values = {"status": status, "tries": work.tries + 1, "next_attempt_at": due if status == "pending" else None}
    if not connection.execute(update(Delivery).where(Delivery.id == work.id).values(**values)).rowcount:
        return False  # removed meanwhile, with its endpoint
    row = {"delivery_id": work.id, "at": now, "status_code": outcome.status_code, "error": outcome.error or "", "ms": outcome.ms}
    connection.execute(insert(Attempt).values(**row))
    endpoint = (WebhookEndpoint.id == work.endpoint.id, WebhookEndpoint.disabled == "")
    if outcome.error is None:
        mended = (*endpoint, WebhookEndpoint.failing_since.is_not(None))
        connection.execute(update(WebhookEndpoint).where(*mended).values(failing_since=None))
        return False
    begins = (*endpoint, WebhookEndpoint.failing_since.is_(None))
    connection.execute(update(WebhookEndpoint).where(*begins).values(failing_since=now))
    hopeless = (*endpoint, WebhookEndpoint.failing_since <= now - GIVEN_UP_AFTER_MS)
    return bool(connection.execute(update(WebhookEndpoint).where(*hopeless).values(disabled="failing")).rowcount)


def _remove_some(connection: Connection) -> bool:
    """Returns whether there may be more."""
    old = select(Delivery.id).where(Delivery.created_at < now_ms() - KEPT_MS)
    of_deleted = select(Delivery.id).join(WebhookEndpoint, WebhookEndpoint.id == Delivery.endpoint_id)
    removed = 0
    for query in (old.order_by(Delivery.id), of_deleted.where(WebhookEndpoint.deleted)):
        ids = connection.execute(query.limit(_REMOVED_AT_ONCE)).scalars().all()
        connection.execute(delete(Attempt).where(Attempt.delivery_id.in_(ids)))
        connection.execute(delete(Delivery).where(Delivery.id.in_(ids)))
        removed = max(removed, len(ids))
    empty = ~select(Delivery.id).where(Delivery.endpoint_id == WebhookEndpoint.id).exists()
    connection.execute(delete(WebhookEndpoint).where(WebhookEndpoint.deleted, empty))
    return removed == _REMOVED_AT_ONCE
