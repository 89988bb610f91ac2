"""Giving money back: coins to the card they were bought with, a payment to the buyer who made it."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.api.errors import ORDER, errors
from gateway.api.lists import Cursor, Limit, Page
from gateway.api.requests import LONGEST_WAIT, GatewayPart, IdempotencyHeader, UserId, WaitSeconds, idempotency, scope
from gateway.api.transfers import AmountField
from gateway.languages import Unfit
from gateway.money.records import UNTOLD
from gateway.money.tables import Refund

router = APIRouter(prefix="/v1/refunds", tags=["money in and out"], dependencies=[scope("checkout")])


class NewRefund(BaseModel):
    """Of a purchase or of a payment intent; of all that is left when no amount is given."""

    model_config = ConfigDict(extra="forbid")
    purchase_id: Annotated[str | None, Field(max_length=64)] = None
    payment_intent_id: Annotated[str | None, Field(max_length=64)] = None
    amount: AmountField | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.purchase_id is None) == (self.payment_intent_id is None):
            raise Unfit("together", "purchase_id or payment_intent_id, and not both")
        return self


class RefundView(BaseModel):
    id: str
    status: Literal["processing", "succeeded", "failed"]
    purchase_id: str | None
    payment_intent_id: str | None
    asset: str
    amount: str
    transfer_id: str
    code: str | None
    created_at: str


@router.post(
    "",
    status_code=202,
    responses=errors(
        *ORDER,
        "404 purchase_not_found",
        "404 payment_intent_not_found",
        "409 key_not_held",
        "409 no_issuer_key",
        "409 amount_too_large",
        "409 not_refundable",
        "409 refund_limit",
    ),
)
async def refund(
    body: NewRefund,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> RefundView:
    """Refund a purchase of yours (the coins are burned, then the card gets its money) or a payment intent of your shop (your
    wallet pays the buyer back), in whole or in part. 202 while under way, 200 when final."""
    if body.purchase_id is not None:
        field, source = "purchase_id", body.purchase_id
    else:
        field, source = "payment_intent_id", str(body.payment_intent_id)
    made = await gateway.money.refunds.begin(user, field, source, body.amount, idempotency(request, body, key))
    view = await gateway.money.records.settled(Refund, user, made, min(wait, LONGEST_WAIT))
    response.status_code = 202 if view["status"] in UNTOLD else 200
    return RefundView(**view)


@router.get("", responses=errors("422 invalid_cursor"))
async def refunds(user: UserId, gateway: GatewayPart, cursor: Cursor = None, limit: Limit = 20) -> Page[RefundView]:
    """Refunds you made, latest first."""
    items, more = await gateway.money.records.page(Refund, user, cursor, limit)
    return Page(items=[RefundView(**item) for item in items], next_cursor=more)


@router.get("/{refund_id}", responses=errors("404 refund_not_found"))
async def refund_status(refund_id: str, user: UserId, gateway: GatewayPart, wait: WaitSeconds = 0) -> RefundView:
    """A refund you made."""
    return RefundView(**await gateway.money.records.settled(Refund, user, refund_id, min(wait, LONGEST_WAIT)))
