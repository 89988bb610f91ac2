"""Notifications by mail, out of the outbox: of what a user has chosen, at most so many an hour, to a verified address only.

A job reads the events in their order; the mails it orders, and how far it has read, are one transaction. A mail is ordered once
for an event, and sent by a job of its own until the server takes it, for an hour; after a crash it may come twice.
"""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, delete, func, or_, select, update

from gateway.database import Database, Posting, Transfer, insert, now_ms
from gateway.events.outbox import Event
from gateway.events.tables import Consumer
from gateway.identity.mailer import Mail, Mailer, Undeliverable
from gateway.identity.tables import User
from gateway.jobs import Jobs
from gateway.plans.notification_texts import TYPES, NotificationType, written
from gateway.plans.tables import Notification, NotificationChoice
from node.protocol.amounts import format_amount
from node.protocol.genesis import Asset
from node.protocol.transaction import decode_transaction

log = structlog.get_logger()
MAX_PER_HOUR = 10
"""Mails to one user."""
_FIRST_CHOICE: tuple[NotificationType, ...] = tuple(kind for kind in TYPES if kind != "transfer.received")
_READ, _SEND, _NAME = "notifications", "notification", "notifications"
_EVERY = 1.0
_HOUR_MS = 3600 * 1000
_KEPT_MS = 24 * _HOUR_MS
_MAX_READ = 500
_SKIPPED = 200
"""Events that nobody wants to be told of, after which that is written down."""


class Choice(NamedTuple):
    """Of what somebody is told by mail, and whether of how much, too."""

    events: list[NotificationType]
    amounts: bool


class Notifications:
    """Everybody's."""

    def __init__(self, database: Database, jobs: Jobs, mailer: Mailer, public_url: str, assets: Mapping[str, Asset]) -> None:
        self._database, self._jobs, self._mailer, self._assets = database, jobs, mailer, assets
        self._link = f"{public_url.rstrip('/')}/#/"
        jobs.handle(_READ, self._read)
        jobs.handle(_SEND, self._send)

    async def keep(self) -> None:
        """Read the events from now on, or from where the reading ended."""

        def begin(connection: Connection) -> None:
            last = connection.execute(select(func.max(Event.id))).scalar() or 0
            connection.execute(insert(connection, Consumer).values(name=_NAME, position=last).on_conflict_do_nothing())
            self._jobs.add(connection, _READ, "all")

        await self._jobs.write(begin)

    async def choice(self, user_id: str) -> Choice:
        """What somebody has chosen, or is told as long as nothing was chosen."""
        query = select(NotificationChoice.events, NotificationChoice.amounts).where(NotificationChoice.user_id == user_id)
        row = await self._database.read(lambda c: c.execute(query).first())
        chosen = _FIRST_CHOICE if row is None else row.events.split()
        return Choice([kind for kind in TYPES if kind in chosen], row is not None and row.amounts)

    async def choose(self, user_id: str, choice: Choice) -> Choice:
        """Tell somebody of this from now on."""
        values = {"events": " ".join(kind for kind in TYPES if kind in choice.events), "amounts": choice.amounts}

        def save(connection: Connection) -> None:
            row = insert(connection, NotificationChoice).values(user_id=user_id, **values)
            connection.execute(row.on_conflict_do_update(index_elements=["user_id"], set_=values))

        await self._database.write(save)
        return await self.choice(user_id)

    async def _read(self, _: str) -> float:
        """The job: the next events. Returns when to look again."""
        first, last, wanted = await self._database.read(_look)
        if wanted or last - first >= _SKIPPED:
            await self._jobs.write(lambda c: self._order(c, first, last, wanted))
        return 0.0 if len(wanted) == _MAX_READ else _EVERY

    def _order(self, connection: Connection, first: int, last: int, wanted: Sequence[Row[Any]]) -> None:
        place = update(Consumer).where(Consumer.name == _NAME, Consumer.position == first).values(position=last)
        if not connection.execute(place).rowcount:
            return  # somebody else has
        now = now_ms()
        connection.execute(delete(Notification).where(Notification.created_at < now - _KEPT_MS))
        for event in wanted:
            recent = select(func.count()).where(Notification.user_id == event.user_id, Notification.created_at > now - _HOUR_MS)
            before = connection.execute(recent).scalar_one()
            if before < MAX_PER_HOUR:
                row = {"event_id": event.id, "id": uuid.uuid4().hex, "user_id": event.user_id, "created_at": now}
                connection.execute(insert(connection, Notification).values(**row, is_last=before == MAX_PER_HOUR - 1, done=False))
                self._jobs.add(connection, _SEND, str(event.id))

    async def _send(self, event_id: str) -> None:
        """The job of one mail."""
        found = await self._database.read(lambda c: self._mail(c, int(event_id)))
        if found is None:
            return
        mail, given_up = found
        try:
            await self._mailer.send(mail)
        except Exception as error:
            if not isinstance(error, Undeliverable) and now_ms() < given_up:
                raise
            log.warning("a notification could not be sent", error=type(error).__name__)
        done = update(Notification).where(Notification.event_id == int(event_id)).values(done=True)
        await self._database.write(lambda c: c.execute(done) and None)

    def _mail(self, connection: Connection, event_id: int) -> tuple[Mail, int] | None:
        """A mail that is to be sent, and when to give it up; None when it was, or there is nobody to get it any more."""
        ordered = (
            Notification.id,
            Notification.is_last,
            Notification.created_at,
            NotificationChoice.amounts,
            User.email,
            User.language,
        )
        query: Any = select(*ordered, Event.type, Event.user_id, Event.subject, Event.data)
        query = query.join(Event, Event.id == Notification.event_id).join(User, User.id == Notification.user_id)
        query = query.outerjoin(NotificationChoice, NotificationChoice.user_id == Notification.user_id)
        query = query.where(Notification.event_id == event_id, Notification.done.is_(False), User.verified_at.is_not(None))
        row: Row[Any] | None = connection.execute(query).first()
        if row is None:
            return None
        amount = self._amount(connection, row) if row.amounts else ""
        texts = written(row.type, row.language, amount, row.is_last, self._link)
        return Mail(row.id, row.email, *texts), row.created_at + _HOUR_MS

    def _amount(self, connection: Connection, event: Row[Any]) -> str:
        """What an event is about, such as "1.00 USD, 2.00 EUR"."""
        if not event.data:
            return self._received(connection, event)
        data = json.loads(event.data)
        totals = data.get("totals") or {data["asset"]: data}
        return ", ".join(f"{total['amount']} {asset}" for asset, total in totals.items())

    def _received(self, connection: Connection, event: Row[Any]) -> str:
        mine = (Posting.transaction_id == bytes.fromhex(event.subject), Posting.user_id == event.user_id)
        query = select(Posting.leg, Transfer.payload).join(Transfer, Transfer.transaction_id == Posting.transaction_id)
        units = Counter[str]()
        for row in connection.execute(query.where(*mine, Posting.direction == "received")):
            leg = decode_transaction(row.payload).order.legs[row.leg]
            units[leg.asset] += leg.amount
        assets = [asset for asset in units if asset in self._assets]
        return ", ".join(f"{format_amount(units[asset], self._assets[asset].decimals)} {asset}" for asset in sorted(assets))


def _look(connection: Connection) -> tuple[int, int, Sequence[Row[Any]]]:
    """How far the events are read, how far they will be, and those in between that somebody wants to be told of."""
    first = connection.execute(select(Consumer.position).where(Consumer.name == _NAME)).scalar_one()
    last = connection.execute(select(func.max(Event.id))).scalar() or first
    chosen = or_(
        NotificationChoice.events.contains(Event.type), NotificationChoice.user_id.is_(None) & Event.type.in_(_FIRST_CHOICE)
    )
    query: Any = select(Event.id, Event.user_id).join(User, User.id == Event.user_id)
    query = query.outerjoin(NotificationChoice, NotificationChoice.user_id == Event.user_id)
    query = query.where(Event.id > first, Event.id <= last, Event.type.in_(TYPES), chosen, User.verified_at.is_not(None))
    wanted = connection.execute(query.order_by(Event.id).limit(_MAX_READ)).all()
    return first, wanted[-1].id if len(wanted) == _MAX_READ else last, wanted
