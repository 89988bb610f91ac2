"""Payment intents: what a shop wants to be paid, until it is, or will not be.

Each state is in the database before anybody is told, together with what makes it: the transfer that pays, the event. So of two
buyers who confirm at once one pays, and a crash at any instant leaves a state from which the job goes on.
"""

import json
import secrets
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from gateway.checkout.reservations import parts_of, read_parts, reserve, take, write_parts
from gateway.checkout.settling import FIRST_LOOK_MS, is_id, refuse, transfer_end
from gateway.checkout.states import RESERVED_MS, Changes, IntentStatus, intent_changes, intent_deadline
from gateway.checkout.tables import PaymentIntent
from gateway.checkout.views import View, Views
from gateway.cursors import read_cursor, write_cursor
from gateway.database import Database, insert, now_ms
from gateway.events.outbox import Outbox
from gateway.idempotency import Idempotency, claim, claimed
from gateway.identity.tables import User
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.waiting import Waiting
from gateway.wallets import Wallets
from node.protocol.codes import Code
from node.protocol.transaction import Leg

KIND = "payment_intent"
MAX_OPEN = 10_000
"""Payment intents of one shop that wait for a buyer."""
_PAID = (IntentStatus.PROCESSING, IntentStatus.REQUIRES_CAPTURE, IntentStatus.SUCCEEDED)
_CANCELABLE = (IntentStatus.REQUIRES_PAYMENT, IntentStatus.REQUIRES_CAPTURE)


class NewIntent(NamedTuple):
    """What a shop asks for. ``expires_in``: seconds."""

    wallet_id: str
    asset: str
    amount: str
    description: str
    reference: str
    metadata: dict[str, str]
    success_url: str | None
    cancel_url: str | None
    capture_method: str
    expires_in: int


class Intents:
    """Everybody's. Methods return the state that is durable, as ``user_id`` may see it."""

    def __init__(
        self, database: Database, jobs: Jobs, outbox: Outbox, waiting: Waiting, wallets: Wallets, payments: Payments, views: Views
    ) -> None:
        self._database, self._jobs, self._outbox, self._waiting = database, jobs, outbox, waiting
        self._wallets, self._payments, self._views = wallets, payments, views
        jobs.handle(KIND, self._step)

    async def create(self, user_id: str, asked: NewIntent, key: Idempotency | None) -> View:
        """Raises Problem: 404, no such wallet; 409, too many are open; 422, no such asset or amount."""
        wallet = await self._wallets.wallet(user_id, asked.wallet_id)
        now, new = now_ms(), secrets.token_bytes(16)
        row = _new_row(asked, self._payments.units(asked.asset, asked.amount), now)
        row |= {"id": new.hex(), "user_id": user_id, "wallet_id": wallet.id}

        mine = (PaymentIntent.user_id == user_id, PaymentIntent.status == IntentStatus.REQUIRES_PAYMENT)
        open_now = select(func.count()).select_from(select(PaymentIntent.id).where(*mine).limit(MAX_OPEN).subquery())
        if await self._database.read(lambda c: c.execute(open_now).scalar_one()) >= MAX_OPEN:
            raise Problem(409, "limit_exceeded", f"at most {MAX_OPEN} payment intents wait for a buyer")

        def save(connection: Connection) -> Row[Any]:
            if key is not None and (earlier := claim(connection, user_id, key, new, now)) is not None:
                return load_intent(connection, earlier.hex())
            connection.execute(insert(connection, PaymentIntent).values(**row))
            self._jobs.add(connection, KIND, row["id"], row["expires_at"])
            return load_intent(connection, row["id"])

        return self._views.intent(await self._jobs.write(save), user_id)

    async def get(self, user_id: str, intent_id: str) -> View:
        """For anybody who knows its id. Raises Problem (404)."""
        return self._views.intent(await self._row(intent_id), user_id)

    async def page(
        self, user_id: str, status: str | None, reference: str | None, cursor: str | None, limit: int
    ) -> tuple[list[View], str | None]:
        """A shop's, latest first, and the cursor of the next page. Raises Problem (422) on a bad cursor."""
        query = _intents().where(PaymentIntent.user_id == user_id).order_by(PaymentIntent.number.desc()).limit(limit + 1)
        filters = ((PaymentIntent.status, status), (PaymentIntent.reference, reference))
        for column, value in filters:
            query = query if value is None else query.where(column == value)
        if cursor is not None:
            query = query.where(PaymentIntent.number < read_cursor(cursor)[0])
        rows = await self._database.read(lambda c: c.execute(query).all())
        following = write_cursor(rows[limit - 1].number) if len(rows) > limit else None
        return [self._views.intent(row, user_id) for row in rows[:limit]], following

    async def confirm(self, user_id: str, intent_id: str, from_wallet: str, key: Idempotency | None, wait: float) -> View:
        """Pay it, or authorize that it be captured, from a wallet of the buyer's; as it is, when that wallet has paid already.

        Raises:
            Problem: 404; 409, somebody else has, it is too late, the wallet has too little, or its key is not here.
        """
        intent, wallet = await self._row(intent_id), await self._wallets.wallet(user_id, from_wallet)
        try:
            if not _paid_by(intent, wallet):
                _check_payable(intent)
                shop = await self._wallets.wallet(intent.user_id, intent.wallet_id)
                pay = self._authorize if intent.capture_method == "manual" else self._pay
                await pay(intent, wallet, shop.address, key)
        except Problem:
            row = await self._latest(intent_id)
            if not _paid_by(row, wallet):
                _check_payable(row)  # rather than what another attempt, which came to nothing, made of the balance meanwhile
                raise
        return await self._settled(user_id, intent_id, wait)

    async def capture(self, user_id: str, intent_id: str, amount: str | None, key: Idempotency | None, wait: float) -> View:
        """Take an authorized amount, or a part and let go of the rest.

        Raises:
            Problem: 404; 409, there is nothing to capture; 422, more than was authorized.
        """
        intent = await self.of_shop(user_id, intent_id)
        units = intent.amount if amount is None else self._payments.units(intent.asset, amount)
        if units > intent.amount:
            raise Problem(422, "amount_too_large", "more than was authorized")
        if not await self._done(user_id, key):
            try:
                await self._capture(intent, units, key)
            except Problem:
                if not await self._done(user_id, key):
                    raise
        return await self._settled(user_id, intent_id, wait)

    async def cancel(self, user_id: str, intent_id: str) -> View:
        """Want nothing any more; what was authorized is free again. Raises Problem: 404; 409, it is paid, or about to be."""
        await self.of_shop(user_id, intent_id)

        def save(connection: Connection) -> Row[Any]:
            row = load_intent(connection, intent_id)
            return self._change(connection, row, {"status": IntentStatus.CANCELED}) if row.status in _CANCELABLE else row

        row = await self._outbox.write(save)
        if row.status != IntentStatus.CANCELED:
            raise Problem(409, "intent_not_cancelable", f"this payment intent is {row.status}")
        return self._views.intent(row, user_id)

    async def checkout_url(self, intent_id: str) -> str:
        """Where a buyer pays it. Raises Problem (404)."""
        return self._views.checkout_url((await self._row(intent_id)).id)

    async def _pay(self, intent: Row[Any], wallet: Row[Any], payee: bytes, key: Idempotency | None) -> None:
        def also(connection: Connection, transaction_id: bytes, code: Code) -> None:
            changes = {"status": IntentStatus.PROCESSING, "transfer_id": transaction_id, "capturing": intent.amount}
            if code is not Code.OK:
                refuse(code)
            self._take(connection, intent.id, wallet, changes)
            self._jobs.add(connection, KIND, intent.id, now_ms() + FIRST_LOOK_MS)

        pairs, legs = await self._payments.draw(wallet, payee, intent.asset, intent.amount)
        await self._payments.pay(wallet.user_id, "checkout", pairs, legs, key=key, also=also)
        self._wake()

    async def _authorize(self, intent: Row[Any], wallet: Row[Any], payee: bytes, key: Idempotency | None) -> None:
        # Raises if the key is elsewhere: then what is reserved could be spent.
        _, legs = await self._payments.draw(wallet, payee, intent.asset, intent.amount)
        owed, now = self._payments.with_fees(legs), now_ms()
        parts, until = parts_of(legs, owed), now + RESERVED_MS
        changes = {"status": IntentStatus.REQUIRES_CAPTURE, "reserved": write_parts(parts), "capture_before": until}

        def save(connection: Connection) -> Row[Any]:
            if key is not None and claim(connection, wallet.user_id, key, bytes.fromhex(intent.id), now) is not None:
                return load_intent(connection, intent.id)
            if (code := self._payments.shortfall(connection, owed)) is not Code.OK:
                refuse(code)
            self._jobs.add(connection, KIND, intent.id, until)
            return self._take(connection, intent.id, wallet, changes)

        await self._outbox.write(save)

    async def _capture(self, intent: Row[Any], units: int, key: Idempotency | None) -> None:
        payer = await self._wallets.wallet(intent.payer_id, intent.payer_wallet_id) if intent.payer_id else None
        shop = await self._wallets.wallet(intent.user_id, intent.wallet_id)
        if payer is None or intent.status != IntentStatus.REQUIRES_CAPTURE:
            raise _not_capturable(intent)

        def before(connection: Connection, transaction_id: bytes) -> None:
            """What was reserved is free for the payment that takes it."""
            if key is not None:  # the shop's, though the transfer is the buyer's
                claim(connection, intent.user_id, key, transaction_id, now_ms())
            row = load_intent(connection, intent.id)
            if row.status != IntentStatus.REQUIRES_CAPTURE:
                raise _not_capturable(row)
            changes = {"status": IntentStatus.PROCESSING, "transfer_id": transaction_id, "capturing": units, "code": ""}
            self._change(connection, row, changes)

        def also(connection: Connection, _: bytes, code: Code) -> None:
            if code is not Code.OK:
                refuse(code)
            self._jobs.add(connection, KIND, intent.id, now_ms() + FIRST_LOOK_MS)

        parts = take(read_parts(intent.reserved), units)
        legs = [Leg(part.address, shop.address, intent.asset, part.units) for part in parts]
        pairs = await self._payments.signers(payer, [part.address for part in parts])
        await self._payments.pay(payer.user_id, "checkout", pairs, legs, also=also, before=before)
        self._wake()

    def _take(self, connection: Connection, intent_id: str, wallet: Row[Any], changes: Changes) -> Row[Any]:
        """A buyer's wallet pays it, or is to pay it. Raises Problem (409)."""
        row = load_intent(connection, intent_id)
        _check_payable(row)
        payer = {"payer_id": wallet.user_id, "payer_wallet_id": wallet.id, "payer_address": wallet.address}
        return self._change(connection, row, payer | {"code": ""} | changes)

    def _change(self, connection: Connection, row: Row[Any], changes: Changes) -> Row[Any]:
        """Its next state, of which the shop is told, unless it is open again."""
        connection.execute(update(PaymentIntent).where(PaymentIntent.id == row.id).values(**changes))
        changed = load_intent(connection, row.id)
        reserve(connection, row, changed)
        if changed.status != IntentStatus.REQUIRES_PAYMENT:
            self.tell(connection, changed, changed.status)
        return changed

    def tell(self, connection: Connection, intent: Row[Any], what: str) -> None:
        """Tell the shop, in the caller's write."""
        self._outbox.emit(connection, intent.user_id, f"{KIND}.{what}", self._views.intent(intent, intent.user_id))

    async def _step(self, intent_id: str) -> float | None:
        return await self._outbox.write(lambda c: self._advance(c, intent_id))

    def _advance(self, connection: Connection, intent_id: str) -> float | None:
        row, end, pause = load_intent(connection, intent_id), None, 0.0
        if row.status == IntentStatus.PROCESSING:
            end, pause = transfer_end(connection, row.transfer_id)
        if changes := intent_changes(row, end, now_ms()):
            row = self._change(connection, row, changes)
        if row.status == IntentStatus.PROCESSING:
            return pause
        deadline = intent_deadline(row)
        return None if deadline is None else max(0.0, (deadline - now_ms()) / 1000)

    async def _settled(self, user_id: str, intent_id: str, wait: float) -> View:
        """As it is after at most ``wait`` seconds, in which its transfer may end."""
        row = await self._row(intent_id)
        if wait and row.status == IntentStatus.PROCESSING:
            await self._waiting.end(row.transfer_id, wait)
            await self._step(intent_id)
            row = await self._row(intent_id)
        return self._views.intent(row, user_id)

    async def _done(self, user_id: str, key: Idempotency | None) -> bool:
        """Whether what a client asks for under a key has happened. Raises Problem (409) when something else has."""
        return key is not None and await self._database.read(lambda c: claimed(c, user_id, key)) is not None

    async def _row(self, intent_id: str) -> Row[Any]:
        return await self._database.read(lambda c: load_intent(c, intent_id))

    async def _latest(self, intent_id: str) -> Row[Any]:
        """As it is after all writes that have been asked for."""
        return await self._database.write(lambda c: load_intent(c, intent_id))

    async def of_shop(self, user_id: str, intent_id: str) -> Row[Any]:
        """A shop's own. Raises Problem (404)."""
        row = await self._row(intent_id)
        if row.user_id != user_id:
            raise _not_found()
        return row

    def _wake(self) -> None:
        self._jobs.wake()
        self._outbox.wake()


def _intents() -> Any:
    merchant = User.name.label("merchant")
    return select(PaymentIntent.__table__, merchant).join(User, User.id == PaymentIntent.user_id, isouter=True)


def load_intent(connection: Connection, intent_id: str) -> Row[Any]:
    """Raises Problem (404)."""
    row = connection.execute(_intents().where(PaymentIntent.id == intent_id)).first() if is_id(intent_id) else None
    if row is None:
        raise _not_found()
    return row


def _not_found() -> Problem:
    return Problem(404, "payment_intent_not_found", "there is no such payment intent")


def _check_payable(intent: Row[Any]) -> None:
    if intent.status != IntentStatus.REQUIRES_PAYMENT:
        raise Problem(409, "intent_not_payable", f"this payment intent is {intent.status}")
    if now_ms() >= intent.expires_at:
        raise Problem(409, "intent_not_payable", "the time to pay this is over")


def _not_capturable(intent: Row[Any]) -> Problem:
    return Problem(409, "intent_not_capturable", f"nothing is authorized: this payment intent is {intent.status}")


def _paid_by(intent: Row[Any], wallet: Row[Any]) -> bool:
    return intent.payer_wallet_id == wallet.id and intent.status in _PAID


def _new_row(asked: NewIntent, units: int, now: int) -> dict[str, Any]:
    copied = ("asset", "capture_method", "description", "reference", "success_url", "cancel_url")
    return {name: getattr(asked, name) for name in copied} | {
        "amount": units,
        "labels": json.dumps(asked.metadata),
        "status": IntentStatus.REQUIRES_PAYMENT,
        "code": "",
        "capturing": 0,
        "amount_captured": 0,
        "amount_refunded": 0,
        "reserved": "[]",
        "expires_at": now + asked.expires_in * 1000,
        "created_at": now,
    }
