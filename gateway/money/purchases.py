"""Buying coins by card: the card is charged, then the coins are minted; when they cannot be, the card gets its money back.

    processing ──► requires_action ──► processing        the cardholder confirms; beyond the general limits, so do administrators
        │ └──► declined | failed                         nothing was taken
        ▼ captured
    minting ──► completed ──► refunded | disputed
        └──► failed                                      the card has its money back

A row is written before the processor is called. Whatever stops in between, the job asks the processor where the charge with the
purchase's id stands, and goes on from there.
"""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, case, func, select, update

from gateway.admin.limits import Approval, approval, ask, limits_of
from gateway.database import Database, now_ms
from gateway.idempotency import Idempotency, claim
from gateway.jobs import Jobs
from gateway.money.cards import Card, CardProcessor, Charge, ChargeState, ProcessorUnavailable, brand_of
from gateway.money.coins import LOOK_AGAIN, Coins
from gateway.money.limits import DAY_MS, Limits, Today, check_purchase, is_beyond
from gateway.money.records import Records
from gateway.money.tables import Purchase, StatusChange
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.projection import Status
from gateway.wallets import Wallets

log = structlog.get_logger()
MAX_MINTS = 3
"""A payment that expired was never taken in, so the next may be: after so many the card gets its money back."""
CONFIRM_WITHIN_MS = 15 * 60 * 1000
_CALL_SECONDS = 15.0
_LOST_AFTER_MS = 30_000
"""After the call: whoever made it is gone, and the job goes on."""
_DISPUTES_EVERY = 2.0


class Turn(NamedTuple):
    """What follows from how a charge stands: the purchase's next status (None: wait), why, and what its cardholder shall do."""

    status: str | None
    code: str = ""
    hint: str = ""


def turn_of(charge: Charge) -> Turn:
    """Of a purchase that is processing."""
    match charge.state:
        case ChargeState.ACTION:
            return Turn("requires_action", hint=charge.hint)
        case ChargeState.DECLINED:
            return Turn("declined", charge.code or "card_declined")
        case ChargeState.CANCELED:
            return Turn("failed", "not_authorized")
        case ChargeState.CAPTURED:
            return Turn("minting")
        case ChargeState.DISPUTED:  # before a coin was minted
            return Turn("failed", "disputed")
    return Turn(None)


def pause(age_ms: int) -> float:
    """Seconds until another company is asked again about something so old: from one second to five minutes."""
    return min(max(age_ms / 10_000, 1.0), 300.0)


class Purchases:
    """``processor`` is None where cards are not taken."""

    def __init__(
        self,
        database: Database,
        records: Records,
        coins: Coins,
        jobs: Jobs,
        payments: Payments,
        wallets: Wallets,
        processor: CardProcessor | None,
        limits: Limits,
    ) -> None:
        self._database, self._records, self._coins, self._jobs = database, records, coins, jobs
        self._payments, self._wallets, self._processor, self._limits = payments, wallets, processor, limits
        jobs.handle("purchase", self.step)
        jobs.handle("disputes", self._learn_of_disputes)

    def require(self) -> CardProcessor:
        """The processor. Raises Problem (409) where there is none."""
        if self._processor is None:
            raise Problem(409, "no_card_processor", "this gateway takes no cards")
        return self._processor

    async def watch(self) -> None:
        """Look for disputes from now on."""
        if self._processor is not None:
            await self._jobs.write(lambda c: self._jobs.add(c, "disputes", "cards"))

    async def begin(self, user_id: str, wallet_id: str, asset: str, amount: str, card: Card, key: Idempotency | None) -> str:
        """Buy coins for a wallet; the id of the purchase. The card's number goes to the processor, and is kept nowhere."""
        processor, units = self.require(), self._payments.units(asset, amount)
        self._payments.issuer(asset)
        wallet = await self._wallets.wallet(user_id, wallet_id)
        now, purchase_id = now_ms(), uuid.uuid4().hex
        row = {"id": purchase_id, "user_id": user_id, "wallet_id": wallet_id, "asset": asset, "units": units, "mints": 0}
        row |= {"status": "processing", "brand": brand_of(card.number), "last4": card.number[-4:], "hint": "", "code": ""}
        row |= {"address": wallet.address, "transfer_id": None, "refunded": 0, "created_at": now}

        def save(connection: Connection) -> str:
            if key is not None and (earlier := claim(connection, user_id, key, bytes.fromhex(purchase_id), now)) is not None:
                return earlier.hex()
            today, kind = _today(connection, user_id, asset, now - DAY_MS), self._payments.assets[asset]
            limits, set_by = limits_of(connection, user_id, self._limits)
            check_purchase(kind, units, today, limits)
            self._records.add(connection, Purchase, row, now + _LOST_AFTER_MS)
            if set_by is not None and is_beyond(kind, units, today, self._limits):
                ask(connection, purchase_id, set_by)
            return purchase_id

        made = await self._database.write(save)
        if made == purchase_id:
            await self._take(made, await _answer(processor.authorize(purchase_id, card, asset, units)))
        return made

    async def confirm(self, user_id: str, purchase_id: str, code: str) -> None:
        """Give the cardholder's code. Once is enough: after that nothing changes.

        Raises:
            Problem: 404; 409, there was nothing to confirm.
        """
        processor = self.require()
        view = await self._records.view(Purchase, user_id, purchase_id)

        def save(connection: Connection) -> bool:
            if not self._records.move(connection, Purchase, purchase_id, "requires_action", "processing", hint=""):
                return False
            self._records.wake_at(connection, Purchase, purchase_id, now_ms() + _LOST_AFTER_MS)
            return True

        if await self._records.write(save, purchase_id):
            await self._take(purchase_id, await _answer(processor.confirm(purchase_id, code)))
        elif not any(line["status"] == "requires_action" for line in view["history"]):
            raise Problem(409, "nothing_to_confirm", "this purchase needs no confirmation")

    async def step(self, purchase_id: str) -> float | None:
        """The job: one step, from where the purchase stands."""
        purchase = await self._records.row(Purchase, purchase_id)
        match purchase.status:
            case "processing":
                return await self._charge(purchase)
            case "requires_action":
                return await self._await_confirmation(purchase)
            case "minting":
                return await self._mint(purchase)
            case "completed":
                await self._check_undisputed(purchase)
        return None

    async def _charge(self, purchase: Row[Any]) -> float | None:
        charge = (await self.require().states([purchase.id]))[purchase.id]
        if charge.state is ChargeState.UNKNOWN:  # what was asked was lost, and shall not arrive late
            charge = await self.require().cancel(purchase.id)
        approved = await self._database.read(lambda c: approval(c, purchase.id))
        if approved is Approval.REFUSED and charge.state in (ChargeState.AUTHORIZED, ChargeState.CANCELED):
            await self._reject(purchase)
            return None
        if charge.state is ChargeState.AUTHORIZED:
            if approved is Approval.WAITING:
                return pause(now_ms() - purchase.created_at)
            charge = await self.require().capture(purchase.id)
        if turn_of(charge).status is None:
            return pause(now_ms() - purchase.created_at)
        await self._take(purchase.id, charge)
        return 0.0

    async def _reject(self, purchase: Row[Any]) -> None:
        """Nothing is taken from the card."""
        await self.require().cancel(purchase.id)
        ended = {"code": "not_approved"}
        await self._records.write(
            lambda c: self._records.move(c, Purchase, purchase.id, "processing", "failed", **ended), purchase.id
        )

    async def _await_confirmation(self, purchase: Row[Any]) -> float | None:
        query = select(func.max(StatusChange.at)).where(StatusChange.subject == purchase.id)
        asked_at = await self._database.read(lambda c: c.execute(query).scalar_one())
        if (left := asked_at + CONFIRM_WITHIN_MS - now_ms()) > 0:
            return left / 1000
        await self.require().cancel(purchase.id)
        ended = {"code": "not_confirmed", "hint": ""}
        await self._records.write(
            lambda c: self._records.move(c, Purchase, purchase.id, "requires_action", "failed", **ended), purchase.id
        )
        return None

    async def _mint(self, purchase: Row[Any]) -> float | None:
        if purchase.transfer_id is None:
            await self._coins.mint_purchase(purchase)
            return 0.0
        end = await self._coins.end(purchase.transfer_id)
        if end is None:
            return LOOK_AGAIN
        if end.is_good:
            await self._finish(purchase, "completed")
            return None
        if end.status is Status.EXPIRED and purchase.mints < MAX_MINTS:
            mine = (Purchase.id == purchase.id, Purchase.transfer_id == purchase.transfer_id)
            await self._database.write(lambda c: c.execute(update(Purchase).where(*mine).values(transfer_id=None)) and None)
            return 0.0
        if not await self.require().refund(purchase.id, purchase.id, purchase.units):
            log.error("a card took no refund of what could not be minted", purchase=purchase.id)
        await self._finish(purchase, "failed", code=end.code or end.status.value)
        return None

    async def _finish(self, purchase: Row[Any], status: str, **values: Any) -> None:
        await self._records.write(
            lambda c: self._records.move(c, Purchase, purchase.id, "minting", status, **values), purchase.id
        )

    async def _take(self, purchase_id: str, charge: Charge) -> None:
        """What follows from how a charge stands; the job does what it asks for."""
        turn = turn_of(charge)

        def save(connection: Connection) -> None:
            if turn.status is None:
                self._records.wake_at(connection, Purchase, purchase_id)
            else:
                change = {"code": turn.code, "hint": turn.hint}
                self._records.move(connection, Purchase, purchase_id, "processing", turn.status, **change)

        await self._records.write(save, purchase_id)

    async def _learn_of_disputes(self, _: str) -> float | None:
        """Cardholders take money back from completed purchases. The processor is asked for a day more than is known: its clock is
        its own."""
        if self._processor is None:
            return None
        newest = select(func.max(StatusChange.at)).where(StatusChange.kind == "purchase", StatusChange.status == "disputed")
        since = (await self._database.read(lambda c: c.execute(newest).scalar()) or 0) - DAY_MS
        disputed = await self._processor.disputes(since)
        query = select(Purchase.id).where(Purchase.id.in_(disputed), Purchase.status == "completed")
        for one in await self._database.read(lambda c: list(c.execute(query).scalars())):
            await self._dispute(one)
        return _DISPUTES_EVERY

    async def _check_undisputed(self, purchase: Row[Any]) -> None:
        """It may have been disputed before it was completed: if that is long ago, no look for disputes goes back so far."""
        if (await self.require().states([purchase.id]))[purchase.id].state is ChargeState.DISPUTED:
            await self._dispute(purchase.id)

    async def _dispute(self, purchase_id: str) -> None:
        await self._records.write(lambda c: self._records.move(c, Purchase, purchase_id, "completed", "disputed"), purchase_id)


async def _answer(call: Awaitable[Charge]) -> Charge:
    """A processor's; pending when there is none: then nobody knows what it did, and the job asks."""
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            return await call
    except (ProcessorUnavailable, TimeoutError):
        return Charge(ChargeState.PENDING)


def _today(connection: Connection, user_id: str, asset: str, since: int) -> Today:
    lost = Purchase.status.in_(("declined", "failed"))
    counts = (func.count(), func.sum(case((lost, 1), else_=0)))
    bought = func.sum(case((~lost & (Purchase.asset == asset), Purchase.units), else_=0))
    row = connection.execute(select(*counts, bought).where(Purchase.user_id == user_id, Purchase.created_at > since)).one()
    return Today(*(int(value or 0) for value in row))
