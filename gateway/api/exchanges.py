"""Exchanges between two users: so much of one asset for so much of another."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.errors import ORDER, errors
from gateway.api.requests import LONGEST_WAIT, WHOLE, GatewayPart, IdempotencyHeader, UserId, WaitSeconds, idempotency, scope
from gateway.api.transfers import AmountField, AssetField
from gateway.checkout.exchanges import NewOffer
from gateway.checkout.states import ExchangeStatus

router = APIRouter(prefix="/v1/exchanges", tags=["exchanges"], dependencies=[scope("payments")])

LONGEST_EXPIRY = 30 * 24 * 3600
Id = Annotated[str, Field(max_length=64)]


class Coins(BaseModel):
    model_config = ConfigDict(extra="forbid")
    asset: AssetField
    amount: AmountField


class NewExchange(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: Id
    give: Coins
    want: Coins
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_EXPIRY, description="Seconds in which it can be accepted."), WHOLE] = 3600


class Acceptance(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: Id


class ExchangeView(BaseModel):
    id: str
    status: ExchangeStatus
    code: Annotated[str | None, Field(description="Why it failed.")]
    give: Annotated[Coins, Field(description="What who offers gives.")]
    want: Coins
    wallet_id: str
    mine: Annotated[bool, Field(description="Whether you offer it.")]
    transfer_id: Annotated[str | None, Field(description="For the two alone.")]
    expires_at: str | None
    created_at: str | None


class ExchangePage(BaseModel):
    items: list[ExchangeView]
    next_cursor: str | None


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    cursor: Annotated[str | None, Field(max_length=100)] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


@router.post(
    "",
    status_code=201,
    responses=errors(*ORDER, "409 key_not_held", "409 limit_exceeded", "422 same_asset", "422 amount_too_large"),
)
async def offer(
    body: NewExchange, request: Request, user: UserId, gateway: GatewayPart, key: IdempotencyHeader = None
) -> ExchangeView:
    """Offer to exchange, to whom you give its id. Nothing is reserved: what you offer you can still spend."""
    give, want = body.give, body.want
    asked = NewOffer(body.wallet_id, give.asset, give.amount, want.asset, want.amount, body.expires_in)
    return ExchangeView(**await gateway.checkout.exchanges.offer(user, asked, idempotency(request, body, key)))


@router.get("", responses=errors("422 invalid_cursor"))
async def page(user: UserId, gateway: GatewayPart, filtered: Annotated[Filter, Query()]) -> ExchangePage:
    """Those you offered, and those you accepted, latest first."""
    items, following = await gateway.checkout.exchanges.page(user, filtered.cursor, filtered.limit)
    return ExchangePage(items=[ExchangeView(**item) for item in items], next_cursor=following)


@router.get("/{exchange_id}", responses=errors("404 exchange_not_found"))
async def exchange(exchange_id: str, user: UserId, gateway: GatewayPart) -> ExchangeView:
    """One: yours, or one whose id you were given."""
    return ExchangeView(**await gateway.checkout.exchanges.get(user, exchange_id))


@router.post(
    "/{exchange_id}/accept",
    status_code=202,
    responses=errors(
        *ORDER,
        "404 exchange_not_found",
        "409 key_not_held",
        "409 insufficient_funds",
        "409 below_smallest_balance",
        "409 offer_not_covered",
        "409 offer_not_open",
    ),
)
async def accept(
    exchange_id: str,
    body: Acceptance,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> ExchangeView:
    """Settle it from and to a wallet of yours: both sides move in one transaction, or neither. 202 while that is under way.

    409 `insufficient_funds`: you have too little; `offer_not_covered`: the other has; `offer_not_open`: somebody was faster, or
    it is over. Then nothing has moved, and the offer is as it was.
    """
    view = await gateway.checkout.exchanges.accept(
        user, exchange_id, body.wallet_id, idempotency(request, body, key), min(wait, LONGEST_WAIT)
    )
    return _answer(response, view)


@router.post("/{exchange_id}/cancel", responses=errors("404 exchange_not_found", "409 offer_not_open"))
async def cancel(exchange_id: str, user: UserId, gateway: GatewayPart) -> ExchangeView:
    """Take your offer back."""
    return ExchangeView(**await gateway.checkout.exchanges.cancel(user, exchange_id))


def _answer(response: Response, view: dict[str, Any]) -> ExchangeView:
    response.status_code = 202 if view["status"] == ExchangeStatus.PROCESSING else 200
    return ExchangeView(**view)
