"""The test processor: stands in for a card processor on development networks, and knows numbers that go wrong."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from gateway.database import Database, insert, now_ms
from gateway.money.cards import Card, Charge, ChargeState, ProcessorUnavailable
from gateway.money.tables import TestCardRefund, TestCharge

_PAGE = 500
_SLOW_MS = 2_000
_DISPUTED_AFTER_MS = 500
CONFIRMATION = "123456"
_HINT = f"This is the test processor: confirm with the code {CONFIRMATION}; any other one is refused."


class _Behaviour(StrEnum):
    APPROVE = "approve"
    DECLINE = "card_declined"
    NO_FUNDS = "insufficient_funds"
    CONFIRM = "confirm"
    SLOW = "slow"
    LOSE_ANSWER = "lose_answer"
    DISPUTE = "dispute"
    REFUSE_REFUNDS = "refuse_refunds"
    EXPIRED = "expired_card"


TEST_CARDS = {
    "4000000000000002": _Behaviour.DECLINE,
    "4000000000009995": _Behaviour.NO_FUNDS,
    "4000000000003220": _Behaviour.CONFIRM,
    "4000000000000077": _Behaviour.SLOW,
    "4000000000000119": _Behaviour.LOSE_ANSWER,
    "4000000000000259": _Behaviour.DISPUTE,
    "4000000000005126": _Behaviour.REFUSE_REFUNDS,
}
"""What these numbers do. All others approve, 4242 4242 4242 4242 among them; a card past its month is declined (expired_card).

SLOW: the answer is PENDING for 2 s. LOSE_ANSWER: approved, but the connection breaks before it says so. DISPUTE: approved, and
disputed half a second after the money was taken. REFUSE_REFUNDS: approved, and takes nothing back."""

_FIRST_STATE = {
    _Behaviour.DECLINE: ChargeState.DECLINED,
    _Behaviour.NO_FUNDS: ChargeState.DECLINED,
    _Behaviour.EXPIRED: ChargeState.DECLINED,
    _Behaviour.CONFIRM: ChargeState.ACTION,
    _Behaviour.SLOW: ChargeState.PENDING,
}


class TestProcessor:
    """Stands in for a card processor; its books are tables of its own, written apart from what the gateway makes of them."""

    __test__ = False  # for pytest

    def __init__(self, database: Database) -> None:
        self._database = database

    async def authorize(self, charge_id: str, card: Card, asset: str, units: int) -> Charge:
        now = now_ms()
        behaviour = TEST_CARDS.get(card.number, _Behaviour.APPROVE)
        if (card.year, card.month) < _month_of(now):
            behaviour = _Behaviour.EXPIRED
        state = _FIRST_STATE.get(behaviour, ChargeState.AUTHORIZED)
        row = {"id": charge_id, "asset": asset, "units": units, "state": state.value, "behaviour": behaviour.value}
        row |= {
            "code": behaviour.value if state is ChargeState.DECLINED else "",
            "settles_at": now + _SLOW_MS,
            "disputed_at": None,
        }

        def save(connection: Connection) -> Charge:
            connection.execute(insert(connection, TestCharge).values(**row).on_conflict_do_nothing())
            return _charge(connection, charge_id)

        charge = await self._database.write(save)
        if behaviour is _Behaviour.LOSE_ANSWER:
            raise ProcessorUnavailable("the connection broke")
        return charge

    async def confirm(self, charge_id: str, code: str) -> Charge:
        good = code == CONFIRMATION
        new = {"state": ChargeState.AUTHORIZED.value if good else ChargeState.DECLINED.value}
        return await self._change(charge_id, (ChargeState.ACTION,), **new, code="" if good else "authentication_failed")

    async def capture(self, charge_id: str) -> Charge:
        # A pending one that has settled meanwhile counts as authorized, so both are looked at.
        def change(connection: Connection) -> Charge:
            found = _row(connection, charge_id)
            if found is not None and _state(found, now_ms()) is ChargeState.AUTHORIZED:
                late = now_ms() + _DISPUTED_AFTER_MS if found.behaviour == _Behaviour.DISPUTE else None
                new = {"state": ChargeState.CAPTURED.value, "disputed_at": late}
                connection.execute(update(TestCharge).where(TestCharge.id == charge_id).values(**new))
            return _charge(connection, charge_id)

        return await self._database.write(change)

    async def cancel(self, charge_id: str) -> Charge:
        row = {"id": charge_id, "asset": "", "units": 0, "state": ChargeState.CANCELED.value, "code": "", "behaviour": ""}
        row |= {"settles_at": 0, "disputed_at": None}
        await self._database.write(lambda c: c.execute(insert(c, TestCharge).values(**row).on_conflict_do_nothing()) and None)
        open_states = (ChargeState.PENDING, ChargeState.ACTION, ChargeState.AUTHORIZED)
        return await self._change(charge_id, open_states, state=ChargeState.CANCELED.value)

    async def refund(self, refund_id: str, charge_id: str, units: int) -> bool:
        def save(connection: Connection) -> bool:
            known = connection.execute(select(TestCardRefund.units).where(TestCardRefund.id == refund_id)).scalar()
            if known is not None:
                return True
            charge, found = _charge(connection, charge_id), _row(connection, charge_id)
            refusing = found is not None and found.behaviour == _Behaviour.REFUSE_REFUNDS
            if charge.state is not ChargeState.CAPTURED or refusing or charge.refunded + units > charge.units:
                return False
            row = {"id": refund_id, "charge_id": charge_id, "units": units}
            connection.execute(insert(connection, TestCardRefund).values(**row))
            return True

        return await self._database.write(save)

    async def states(self, charge_ids: Iterable[str]) -> Mapping[str, Charge]:
        asked = list(charge_ids)
        return await self._database.read(lambda c: {one: _charge(c, one) for one in asked})

    async def disputes(self, since: int) -> Sequence[str]:
        query = select(TestCharge.id).where(TestCharge.disputed_at >= since, TestCharge.disputed_at <= now_ms())
        return await self._database.read(lambda c: list(c.execute(query).scalars()))

    async def statement(self, after: str) -> Sequence[tuple[str, Charge]]:
        query = select(TestCharge.id).where(TestCharge.id > after).order_by(TestCharge.id).limit(_PAGE)
        return await self._database.read(lambda c: [(one, _charge(c, one)) for one in c.execute(query).scalars().all()])

    async def _change(self, charge_id: str, old: Sequence[ChargeState], **new: str) -> Charge:
        where = (TestCharge.id == charge_id, TestCharge.state.in_([state.value for state in old]))

        def change(connection: Connection) -> Charge:
            connection.execute(update(TestCharge).where(*where).values(**new))
            return _charge(connection, charge_id)

        return await self._database.write(change)


def _month_of(now: int) -> tuple[int, int]:
    today = datetime.fromtimestamp(now / 1000, UTC)
    return today.year, today.month


def _row(connection: Connection, charge_id: str) -> Row[Any] | None:
    return connection.execute(select(TestCharge.__table__).where(TestCharge.id == charge_id)).first()


def _charge(connection: Connection, charge_id: str) -> Charge:
    if (row := _row(connection, charge_id)) is None:
        return Charge(ChargeState.UNKNOWN)
    back = select(func.coalesce(func.sum(TestCardRefund.units), 0)).where(TestCardRefund.charge_id == charge_id)
    state = _state(row, now_ms())
    hint = _HINT if state is ChargeState.ACTION else ""
    return Charge(state, row.asset, row.units, int(connection.execute(back).scalar_one()), row.code, hint)


def _state(row: Row[Any], now: int) -> ChargeState:
    """As of ``now``."""
    state = ChargeState(row.state)
    if state is ChargeState.PENDING and now >= row.settles_at:
        return ChargeState.AUTHORIZED
    if state is ChargeState.CAPTURED and row.disputed_at is not None and now >= row.disputed_at:
        return ChargeState.DISPUTED
    return state
