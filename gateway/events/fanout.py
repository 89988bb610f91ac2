"""From events to deliveries: each event becomes one delivery for each endpoint of its user that wants its type, exactly once.

The deliveries and how far the events are read are written in one database transaction.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from gateway.database import Database, insert, now_ms
from gateway.events.outbox import Event, Outbox
from gateway.events.tables import PENDING, Consumer, Delivery, WebhookEndpoint
from gateway.statements import Statement

MAX_PENDING = 10_000
"""Deliveries on their way to one endpoint; those beyond fail at once, and can be replayed."""
_NAME = "webhooks"
_MAX_READ = 500
_SKIPPED = 10_000
"""Events that concern no endpoint, after which that is written down; after a crash they are read again."""
_PAUSE = 0.05
_ALIVE = (WebhookEndpoint.disabled == "", WebhookEndpoint.deleted.is_(False))
_ANY = Statement(lambda _: select(WebhookEndpoint.id).where(*_ALIVE).limit(1))
_LAST = Statement(lambda _: select(func.max(Event.id)))


class FanOut:
    """Reads the outbox. ``on_new`` is called when there are new deliveries.

    Attributes:
        position: the last event that was dealt with.
    """

    def __init__(self, database: Database, outbox: Outbox, on_new: Callable[[], None]) -> None:
        self._database, self._on_new = database, on_new
        self.position = self._kept = 0
        self._wake = asyncio.Event()
        outbox.listeners.append(self._wake.set)

    async def run(self) -> None:
        """Until cancelled."""
        position = select(Consumer.position).where(Consumer.name == _NAME)
        self.position = self._kept = await self._database.read(lambda c: c.execute(position).scalar() or 0)
        while True:
            self._wake.clear()
            while await self._step():
                pass
            await asyncio.sleep(_PAUSE)
            await self._wake.wait()

    async def _step(self) -> bool:
        """Deal with the next events. Returns whether there may be more."""
        first = self.position
        ids, wanted = await self._database.read(lambda c: _look(c, first))
        if not ids:
            return False
        last = ids[-1]
        if wanted or last - self._kept >= _SKIPPED:
            made = await self._database.write(lambda c: _deliver(c, first, last))
            self._kept = last
            if made:
                self._on_new()
        self.position = last
        return len(ids) == _MAX_READ


def _look(connection: Connection, after: int) -> tuple[Sequence[int], bool]:
    """The next events, and whether any endpoint wants one of them. While there is no endpoint at all, only the last: one that is
    made later wants none of those before."""
    if _ANY.run(connection, {}).fetchone() is None:
        (last,) = _LAST.run(connection, {}).fetchone()
        return [last] if last is not None and last > after else [], False
    ids = connection.execute(select(Event.id).where(Event.id > after).order_by(Event.id).limit(_MAX_READ)).scalars().all()
    return ids, bool(ids and _wanted(connection, after, ids[-1]))


def _wanted(connection: Connection, after: int, last: int) -> list[Any]:
    """The events in between with the endpoints that want them: (id, type, user_id, endpoint, ...), a row for each pair."""
    columns = (Event.id, Event.type, Event.user_id, WebhookEndpoint.id.label("endpoint"), WebhookEndpoint.events)
    query = select(*columns).join(WebhookEndpoint, WebhookEndpoint.user_id == Event.user_id)
    query = query.where(Event.id > after, Event.id <= last, Event.id > WebhookEndpoint.after_event)
    query = query.where(*_ALIVE).order_by(Event.id)
    rows = connection.execute(query)
    return [row for row in rows if row.events == "*" or row.type in row.events.split()]


def _deliver(connection: Connection, after: int, last: int) -> int:
    """Returns how many deliveries were made."""
    wanted = _wanted(connection, after, last)
    now, pending, rows = now_ms(), _pending(connection, {event.endpoint for event in wanted}), list[dict[str, Any]]()
    for event in wanted:
        full = pending[event.endpoint] >= MAX_PENDING
        pending[event.endpoint] += 1
        row = {"endpoint_id": event.endpoint, "user_id": event.user_id, "event_id": event.id, "type": event.type, "tries": 0}
        row |= {"status": "failed" if full else "pending", "next_attempt_at": None if full else now, "created_at": now}
        rows.append(row)
    if rows:
        connection.execute(insert(connection, Delivery).on_conflict_do_nothing(), rows)
    place = insert(connection, Consumer).values(name=_NAME, position=last)
    connection.execute(place.on_conflict_do_update(index_elements=["name"], set_={"position": last}))
    return len(rows)


def _pending(connection: Connection, endpoints: set[str]) -> Counter[str]:
    """How many deliveries are on their way to each endpoint."""
    query = select(Delivery.endpoint_id, func.count()).where(Delivery.endpoint_id.in_(endpoints), PENDING)
    return Counter({row[0]: row[1] for row in connection.execute(query.group_by(Delivery.endpoint_id))})
