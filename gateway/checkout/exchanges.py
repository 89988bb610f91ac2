"""Exchanges: one user's coins for another's, whichever shards they are in: both legs in one transaction, or neither.

An offer reserves nothing: it may be made to several people and costs its maker nothing while nobody takes it. Who accepts when
the maker cannot pay any more is told so, and nothing has moved.
"""

import secrets
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, or_, select, update

from gateway.checkout.settling import FIRST_LOOK_MS, is_id, refuse, transfer_end
from gateway.checkout.states import Changes, ExchangeStatus, exchange_changes
from gateway.checkout.tables import Exchange
from gateway.checkout.views import View, Views
from gateway.cursors import read_cursor, write_cursor
from gateway.database import Database, insert, now_ms
from gateway.events.outbox import Outbox
from gateway.idempotency import Idempotency, claim
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.waiting import Waiting
from gateway.wallets import Wallets
from node.protocol.codes import Code

KIND = "exchange"
MAX_OPEN = 1_000
"""Offers of one user that nobody has accepted yet."""
_TAKEN = (ExchangeStatus.PROCESSING, ExchangeStatus.SETTLED, ExchangeStatus.FAILED)
_TOLD = (ExchangeStatus.SETTLED, ExchangeStatus.FAILED)


class NewOffer(NamedTuple):
    """What a user offers. Amounts as text; ``expires_in``: seconds."""

    wallet_id: str
    give_asset: str
    give_amount: str
    want_asset: str
    want_amount: str
    expires_in: int


class Exchanges:
    """Everybody's. Methods return the state that is durable, as ``user_id`` may see it."""

    def __init__(
        self, database: Database, jobs: Jobs, outbox: Outbox, waiting: Waiting, wallets: Wallets, payments: Payments, views: Views
    ) -> None:
        self._database, self._jobs, self._outbox, self._waiting = database, jobs, outbox, waiting
        self._wallets, self._payments, self._views = wallets, payments, views
        jobs.handle(KIND, self._step)

    async def offer(self, user_id: str, asked: NewOffer, key: Idempotency | None) -> View:
        """Raises Problem: 404, no such wallet; 409, its key is not here, or too many offers; 422, no such assets or amounts."""
        wallet = await self._wallets.wallet(user_id, asked.wallet_id)
        self._wallets.signer(wallet)
        if asked.give_asset == asked.want_asset:
            raise Problem(422, "same_asset", "an exchange is of two assets")
        now, new = now_ms(), secrets.token_bytes(16)
        row: dict[str, Any] = {"id": new.hex(), "user_id": user_id, "wallet_id": wallet.id, "created_at": now, "code": ""}
        row |= {"give_asset": asked.give_asset, "give_amount": self._payments.units(asked.give_asset, asked.give_amount)}
        row |= {"want_asset": asked.want_asset, "want_amount": self._payments.units(asked.want_asset, asked.want_amount)}
        row |= {"status": ExchangeStatus.OFFERED, "expires_at": now + asked.expires_in * 1000}

        mine = (Exchange.user_id == user_id, Exchange.status == ExchangeStatus.OFFERED)
        open_now = select(func.count()).select_from(select(Exchange.id).where(*mine).limit(MAX_OPEN).subquery())
        if await self._database.read(lambda c: c.execute(open_now).scalar_one()) >= MAX_OPEN:
            raise Problem(409, "limit_exceeded", f"at most {MAX_OPEN} offers wait to be accepted")

        def save(connection: Connection) -> Row[Any]:
            if key is not None and (earlier := claim(connection, user_id, key, new, now)) is not None:
                return _load(connection, earlier.hex())
            connection.execute(insert(connection, Exchange).values(**row))
            self._jobs.add(connection, KIND, row["id"], row["expires_at"])
            return _load(connection, row["id"])

        return self._views.exchange(await self._jobs.write(save), user_id)

    async def get(self, user_id: str, exchange_id: str) -> View:
        """For anybody who knows its id. Raises Problem (404)."""
        return self._views.exchange(await self._row(exchange_id), user_id)

    async def page(self, user_id: str, cursor: str | None, limit: int) -> tuple[list[View], str | None]:
        """A user's offers, and those accepted, latest first, and the cursor of the next page."""
        mine = or_(Exchange.user_id == user_id, Exchange.taker_id == user_id)
        query = select(Exchange.__table__).where(mine).order_by(Exchange.number.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(Exchange.number < read_cursor(cursor)[0])
        rows = await self._database.read(lambda c: c.execute(query).all())
        following = write_cursor(rows[limit - 1].number) if len(rows) > limit else None
        return [self._views.exchange(row, user_id) for row in rows[:limit]], following

    async def accept(self, user_id: str, exchange_id: str, wallet_id: str, key: Idempotency | None, wait: float) -> View:
        """Settle it with a wallet of the taker's; as it is, when that wallet has accepted already.

        Raises:
            Problem: 404; 409, somebody else has, it is too late, one of the two has too little, or the taker's key is not here.
        """
        row, wallet = await self._row(exchange_id), await self._wallets.wallet(user_id, wallet_id)
        try:
            if not _taken_by(row, wallet):
                _check_open(row)
                await self._pay(row, wallet, key)
        except Problem:
            row = await self._database.write(lambda c: _load(c, exchange_id))  # as it is after all writes asked for
            if not _taken_by(row, wallet):
                _check_open(row)
                raise
        row = await self._row(exchange_id)
        if wait and row.status == ExchangeStatus.PROCESSING:
            await self._waiting.end(row.transfer_id, wait)
            await self._step(exchange_id)
        return await self.get(user_id, exchange_id)

    async def cancel(self, user_id: str, exchange_id: str) -> View:
        """Take an offer back. Raises Problem: 404; 409, it is not open."""

        if (await self._row(exchange_id)).user_id != user_id:
            raise _not_found()

        def save(connection: Connection) -> Row[Any]:
            row = _load(connection, exchange_id)
            offered = row.status == ExchangeStatus.OFFERED
            return self._change(connection, row, {"status": ExchangeStatus.CANCELED}) if offered else row

        row = await self._database.write(save)
        if row.status != ExchangeStatus.CANCELED:
            raise Problem(409, "offer_not_open", f"this exchange is {row.status}")
        return self._views.exchange(row, user_id)

    async def _pay(self, row: Row[Any], taker: Row[Any], key: Idempotency | None) -> None:
        maker = await self._wallets.wallet(row.user_id, row.wallet_id)
        gives = await self._payments.draw(maker, taker.address, row.give_asset, row.give_amount)
        wants = await self._payments.draw(taker, maker.address, row.want_asset, row.want_amount)
        due = [self._payments.with_fees(legs) for _, legs in (wants, gives)]
        wanted, given = await self._database.read(lambda c: [self._payments.shortfall(c, legs) for legs in due])
        if wanted is not Code.OK:
            refuse(wanted)
        if given is not Code.OK:
            raise Problem(409, "offer_not_covered", "who made this offer has too little for it now")

        def also(connection: Connection, transaction_id: bytes, code: Code) -> None:
            if code is not Code.OK:
                refuse(code)
            found = _load(connection, row.id)
            _check_open(found)
            changes = {"status": ExchangeStatus.PROCESSING, "transfer_id": transaction_id}
            self._change(connection, found, changes | {"taker_id": taker.user_id, "taker_wallet_id": taker.id})
            self._jobs.add(connection, KIND, row.id, now_ms() + FIRST_LOOK_MS)

        await self._payments.pay(taker.user_id, "exchange", (*gives[0], *wants[0]), (*gives[1], *wants[1]), key=key, also=also)
        self._jobs.wake()

    def _change(self, connection: Connection, row: Row[Any], changes: Changes) -> Row[Any]:
        """Its next state, of which both are told when it is an end that both have to know."""
        connection.execute(update(Exchange).where(Exchange.id == row.id).values(**changes))
        changed = _load(connection, row.id)
        for user in {changed.user_id, changed.taker_id} if changed.status in _TOLD else ():
            self._outbox.emit(connection, user, f"{KIND}.{changed.status}", self._views.exchange(changed, user))
        return changed

    async def _step(self, exchange_id: str) -> float | None:
        return await self._outbox.write(lambda c: self._advance(c, exchange_id))

    def _advance(self, connection: Connection, exchange_id: str) -> float | None:
        row, end, pause = _load(connection, exchange_id), None, 0.0
        if row.status == ExchangeStatus.PROCESSING:
            end, pause = transfer_end(connection, row.transfer_id)
        if changes := exchange_changes(row.status, end, row.expires_at, now_ms()):
            row = self._change(connection, row, changes)
        if row.status == ExchangeStatus.PROCESSING:
            return pause
        return max(0.0, (row.expires_at - now_ms()) / 1000) if row.status == ExchangeStatus.OFFERED else None

    async def _row(self, exchange_id: str) -> Row[Any]:
        return await self._database.read(lambda c: _load(c, exchange_id))


def _load(connection: Connection, exchange_id: str) -> Row[Any]:
    """Raises Problem (404)."""
    query = select(Exchange.__table__).where(Exchange.id == exchange_id)
    row = connection.execute(query).first() if is_id(exchange_id) else None
    if row is None:
        raise _not_found()
    return row


def _not_found() -> Problem:
    return Problem(404, "exchange_not_found", "there is no such exchange")


def _check_open(row: Row[Any]) -> None:
    if row.status != ExchangeStatus.OFFERED:
        raise Problem(409, "offer_not_open", f"this exchange is {row.status}")
    if now_ms() >= row.expires_at:
        raise Problem(409, "offer_not_open", "the time to accept this is over")


def _taken_by(row: Row[Any], wallet: Row[Any]) -> bool:
    return row.taker_wallet_id == wallet.id and row.status in _TAKEN
