"""Purchases, payouts and refunds in the database: made, moved from status to status, shown, listed and waited for."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, select, update

from gateway.cursors import read_cursor, write_cursor
from gateway.database import Database, insert, now_ms
from gateway.events.outbox import Outbox
from gateway.jobs import Jobs
from gateway.money.tables import Payout, Purchase, Refund, StatusChange
from gateway.problems import Problem
from gateway.times import iso
from node.protocol.amounts import format_amount
from node.protocol.genesis import Asset

T = TypeVar("T")
Model = type[Purchase] | type[Payout] | type[Refund]
View = dict[str, Any]
Amount = Callable[[str, int], str]
"""Units of an asset as a decimal string."""
KINDS: dict[Model, str] = {Purchase: "purchase", Payout: "payout", Refund: "refund"}
"""What each is called in events, jobs and problems."""
UNTOLD = {"processing", "minting"}
"""Statuses that are no event."""
PASSING = (*UNTOLD, "requires_action", "sent")
"""Statuses after which there is another one."""
MAX_WAITERS = 1_000
_ID = re.compile("[0-9a-f]{32}")


class Records:
    """All that is written goes through ``write``, ``add`` and ``move``, so that histories, jobs and events keep up with it."""

    def __init__(self, database: Database, jobs: Jobs, outbox: Outbox, assets: Mapping[str, Asset]) -> None:
        self._database, self._jobs, self._outbox, self._assets = database, jobs, outbox, assets
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def write(self, change: Callable[[Connection], T], record_id: str) -> T:
        """Apply a change of one record, durably."""
        result = await self._database.write(change)
        self.tell(record_id)
        return result

    def tell(self, record_id: str) -> None:
        """A record has changed: for whoever wrote it in a write of its own."""
        self._jobs.wake()
        self._outbox.wake()
        for future in self._waiting.pop(record_id, ()):
            _release(future)

    def look(self) -> None:
        """Another process may have changed some."""
        for waiting in self._waiting.values():
            for future in waiting:
                _release(future)

    def add(self, connection: Connection, model: Model, row: Mapping[str, Any], due_at: int | None = None) -> None:
        """Make a record, whose job is due at ``due_at`` (ms), now by default."""
        connection.execute(insert(connection, model).values(**row))
        self._entered(connection, model, row["id"])
        self._jobs.add(connection, KINDS[model], row["id"], due_at)

    def move(self, connection: Connection, model: Model, record_id: str, old: str, new: str, **values: Any) -> bool:
        """To another status, if it has the old one still; its job is due now."""
        statement = update(model).where(model.id == record_id, model.status == old).values(status=new, **values)
        if not connection.execute(statement).rowcount:
            return False
        self._entered(connection, model, record_id)
        self._jobs.add(connection, KINDS[model], record_id)
        return True

    def wake_at(self, connection: Connection, model: Model, record_id: str, due_at: int | None = None) -> None:
        """Have a record's job done at ``due_at`` (ms), now by default."""
        self._jobs.add(connection, KINDS[model], record_id, due_at)

    async def row(self, model: Model, record_id: str) -> Row[Any]:
        """One that is known to exist."""
        return await self._database.read(lambda c: _row(c, model, record_id))

    async def made_by(self, model: type[Payout] | type[Refund], transfer_id: bytes) -> str:
        """The id of what was made together with a payment."""
        query = select(model.id).where(model.transfer_id == transfer_id)
        return await self._database.read(lambda c: c.execute(query).scalar_one())

    async def view(self, model: Model, user_id: str, record_id: str) -> View:
        """A user's own. Raises Problem (404)."""
        missing = Problem(404, f"{KINDS[model]}_not_found", f"you have no such {KINDS[model]}")
        if not _ID.fullmatch(record_id):  # nothing has such an id, and not every database takes every text
            raise missing
        query = select(model.__table__).where(model.id == record_id, model.user_id == user_id)

        def look(connection: Connection) -> View | None:
            rows = self._views(connection, model, connection.execute(query).all())
            return rows[0] if rows else None

        if (found := await self._database.read(look)) is None:
            raise missing
        return found

    async def page(self, model: Model, user_id: str, cursor: str | None, limit: int) -> tuple[list[View], str | None]:
        """A user's, latest first, and the cursor of the next page. Raises Problem (422) on a bad cursor."""
        query = select(model.__table__).where(model.user_id == user_id).order_by(model.number.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(model.number < read_cursor(cursor)[0])

        def look(connection: Connection) -> tuple[list[View], str | None]:
            rows = connection.execute(query).all()
            more = write_cursor(rows[limit - 1].number) if len(rows) > limit else None
            return self._views(connection, model, rows[:limit]), more

        return await self._database.read(look)

    async def settled(self, model: Model, user_id: str, record_id: str, seconds: float) -> View:
        """As ``view``, once its status is not one of those that pass by themselves, or after ``seconds``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            changed: asyncio.Future[None] = loop.create_future()  # before looking: no change is missed
            waiting = self._waiting.setdefault(record_id, set())
            waiting.add(changed)
            timer = loop.call_at(deadline, _release, changed)
            try:
                view = await self.view(model, user_id, record_id)
                if view["status"] not in UNTOLD or loop.time() >= deadline or len(self._waiting) > MAX_WAITERS:
                    return view
                await changed
            finally:
                timer.cancel()
                waiting.discard(changed)
                if not waiting and self._waiting.get(record_id) is waiting:
                    del self._waiting[record_id]

    def _entered(self, connection: Connection, model: Model, record_id: str) -> None:
        """A record has a new status: into its history, and its owner is told."""
        row, kind = _row(connection, model, record_id), KINDS[model]
        line = {"kind": kind, "subject": record_id, "status": row.status, "at": now_ms()}
        connection.execute(insert(connection, StatusChange).values(**line))
        if row.status not in UNTOLD:
            (view,) = self._views(connection, model, [row])
            self._outbox.emit(connection, row.user_id, f"{kind}.{row.status}", view)

    def _views(self, connection: Connection, model: Model, rows: Sequence[Row[Any]]) -> list[View]:
        histories: dict[str, list[View]] = {row.id: [] for row in rows}
        query = select(StatusChange.subject, StatusChange.status, StatusChange.at).order_by(StatusChange.number)
        for subject, status, at in connection.execute(query.where(StatusChange.subject.in_(histories))):
            histories[subject].append({"status": status, "at": iso(at)})
        show = _SHOW[model]
        return [self._common(row) | show(row, self._amount, histories[row.id]) for row in rows]

    def _common(self, row: Row[Any]) -> View:
        shown = {"id": row.id, "status": row.status, "asset": row.asset, "amount": self._amount(row.asset, row.units)}
        return {**shown, "transfer_id": _hex(row.transfer_id), "created_at": iso(row.created_at)}

    def _amount(self, asset: str, units: int) -> str:
        return format_amount(units, self._assets[asset].decimals)


def under_way(connection: Connection, user_id: str) -> bool:
    """Whether a user's money is on its way in, out or back."""
    return any(
        connection.execute(select(model.id).where(model.user_id == user_id, model.status.in_(PASSING)).limit(1)).first()
        for model in KINDS
    )


def forget(connection: Connection, user_id: str) -> None:
    """Erase whose bank accounts a user paid to."""
    connection.execute(update(Payout).where(Payout.user_id == user_id).values(name="", iban=""))


def _purchase(row: Row[Any], amount: Amount, history: list[View]) -> View:
    waits = row.status == "requires_action"
    return {
        "wallet_id": row.wallet_id,
        "card": {"brand": row.brand, "last4": row.last4},
        "decline_code": row.code or None,
        "next_action": {"type": "confirm", "hint": row.hint} if waits else None,
        "amount_refunded": amount(row.asset, row.refunded),
        "history": history,
    }


def _payout(row: Row[Any], _: Amount, history: list[View]) -> View:
    whom = {"wallet_id": row.wallet_id, "iban": row.iban, "name": row.name}
    return {**whom, "return_transfer_id": _hex(row.return_transfer_id), "code": row.code or None, "history": history}


def _refund(row: Row[Any], _: Amount, __: list[View]) -> View:
    return {"purchase_id": row.purchase_id, "payment_intent_id": row.payment_intent_id, "code": row.code or None}


_SHOW: dict[Model, Callable[[Row[Any], Amount, list[View]], View]] = {
    Purchase: _purchase,
    Payout: _payout,
    Refund: _refund,
}


def _row(connection: Connection, model: Model, record_id: str) -> Row[Any]:
    return connection.execute(select(model.__table__).where(model.id == record_id)).one()


def _hex(transfer_id: bytes | None) -> str | None:
    return None if transfer_id is None else transfer_id.hex()


def _release(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
