"""Scheduled payments: once at a time, weekly or monthly."""

from datetime import date, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.api.errors import ORDER, PAYEE, errors
from gateway.api.lists import Cursor, Limit, Page
from gateway.api.requests import WHOLE, GatewayPart, IdempotencyHeader, UserId, idempotency, scope
from gateway.api.transfers import AmountField, AssetField, MemoField, PayeeField
from gateway.identity.text import one_line
from gateway.plans.calendar import Rule
from gateway.plans.scheduled import NewSchedule
from gateway.plans.states import RunStatus, ScheduleStatus
from gateway.problems import Problem

router = APIRouter(prefix="/v1/scheduled-payments", tags=["scheduled payments"], dependencies=[scope("payments")])

Reference = Annotated[str, Field(max_length=140, description="Yours; it stays here."), AfterValidator(one_line)]
Repeat = Literal["once", "weekly", "monthly"]


class NewScheduledPayment(BaseModel):
    """`starts_at`, `until`: by the clock and calendar of `time_zone`, without an offset."""

    model_config = ConfigDict(extra="forbid")
    from_wallet: Annotated[str, Field(max_length=64)]
    to: PayeeField
    asset: AssetField
    amount: AmountField
    memo: MemoField = ""
    reference: Reference = ""
    starts_at: Annotated[
        str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$", examples=["2027-01-31T09:00"], description="The first time.")
    ]
    time_zone: Annotated[str, Field(max_length=40, examples=["Europe/Berlin"], description="Of the IANA's list.")] = "UTC"
    repeat: Repeat = "once"
    interval: Annotated[int, Field(ge=1, le=52, description="Every so many weeks or months."), WHOLE] = 1
    count: Annotated[int | None, Field(ge=1, le=1000, description="So many times in all."), WHOLE] = None
    until: Annotated[
        str | None, Field(pattern=r"^\d{4}-\d\d-\d\d$", examples=["2027-12-31"], description="The last day it may be due.")
    ] = None


class RunView(BaseModel):
    """`retrying`: it is tried again every hour, for 24 hours from `due_at` on. `code`: why it was not paid."""

    due_at: str | None
    status: RunStatus
    code: str | None
    transfer_id: Annotated[str | None, Field(description="Of the last payment that was made for it.")]
    attempts: int
    updated_at: str | None


class ScheduledPaymentView(BaseModel):
    id: str
    status: ScheduleStatus
    from_wallet: str
    to: str
    asset: str
    amount: str
    memo: str
    reference: str
    starts_at: str
    time_zone: str
    repeat: Repeat
    interval: int
    count: int | None
    until: str | None
    next_run_at: Annotated[str | None, Field(description="In UTC; while a run is tried, its time.")]
    last_run: RunView | None
    created_at: str | None


@router.post(
    "", status_code=201, responses=errors(*ORDER, *PAYEE, "409 limit_exceeded", "422 unknown_time_zone", "422 invalid_time")
)
async def plan(
    body: NewScheduledPayment, request: Request, user: UserId, gateway: GatewayPart, key: IdempotencyHeader = None
) -> ScheduledPaymentView:
    """Have something paid at a time, or every week or month from then on.

    Of the 29th to the 31st, a shorter month takes its last day. A run that cannot be paid is tried again every hour for 24 hours;
    then it has failed (`scheduled_payment.failed`), and the next one comes.
    """
    rule = Rule(_time(body.starts_at), body.time_zone, body.repeat, body.interval, body.count, _day(body.until))
    asked = NewSchedule(body.from_wallet, body.to, body.asset, body.amount, body.memo, body.reference, rule)
    return ScheduledPaymentView(**await gateway.plans.schedules.plan(user, asked, idempotency(request, body, key)))


@router.get("", responses=errors("422 invalid_cursor"))
async def page(
    user: UserId, gateway: GatewayPart, status: ScheduleStatus | None = None, cursor: Cursor = None, limit: Limit = 20
) -> Page[ScheduledPaymentView]:
    """Yours, latest first."""
    items, following = await gateway.plans.schedules.page(user, status, cursor, limit)
    return Page(items=[ScheduledPaymentView(**item) for item in items], next_cursor=following)


@router.get("/{scheduled_id}", responses=errors("404 scheduled_payment_not_found"))
async def scheduled(scheduled_id: str, user: UserId, gateway: GatewayPart) -> ScheduledPaymentView:
    """One, with its next and its latest run."""
    return ScheduledPaymentView(**await gateway.plans.schedules.get(user, scheduled_id))


@router.get("/{scheduled_id}/runs", responses=errors("404 scheduled_payment_not_found", "422 invalid_cursor"))
async def runs(scheduled_id: str, user: UserId, gateway: GatewayPart, cursor: Cursor = None, limit: Limit = 20) -> Page[RunView]:
    """What became of it at each of its times, latest first."""
    items, following = await gateway.plans.schedules.runs(user, scheduled_id, cursor, limit)
    return Page(items=[RunView(**item) for item in items], next_cursor=following)


@router.post("/{scheduled_id}/pause", responses=errors("404 scheduled_payment_not_found", "409 scheduled_payment_over"))
async def pause(scheduled_id: str, user: UserId, gateway: GatewayPart) -> ScheduledPaymentView:
    """Pay nothing until it is resumed; times that pass meanwhile are passed over."""
    return ScheduledPaymentView(**await gateway.plans.schedules.pause(user, scheduled_id))


@router.post("/{scheduled_id}/resume", responses=errors("404 scheduled_payment_not_found", "409 scheduled_payment_over"))
async def resume(scheduled_id: str, user: UserId, gateway: GatewayPart) -> ScheduledPaymentView:
    """Go on with the first time that is to come."""
    return ScheduledPaymentView(**await gateway.plans.schedules.resume(user, scheduled_id))


@router.delete("/{scheduled_id}", responses=errors("404 scheduled_payment_not_found", "409 scheduled_payment_over"))
async def cancel(scheduled_id: str, user: UserId, gateway: GatewayPart) -> ScheduledPaymentView:
    """Pay nothing more. It stays here to be read; a payment under way ends as it ends."""
    return ScheduledPaymentView(**await gateway.plans.schedules.cancel(user, scheduled_id))


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Problem(422, "invalid_time", "there is no such time", pointer="/body/starts_at") from None


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise Problem(422, "invalid_time", "there is no such day", pointer="/body/until") from None
