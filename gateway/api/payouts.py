"""Paying out to bank accounts."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gateway.api.errors import ORDER, errors
from gateway.api.lists import Cursor, Limit, Page
from gateway.api.purchases import StatusLine
from gateway.api.requests import (
    LONGEST_WAIT,
    GatewayPart,
    IdempotencyHeader,
    UserId,
    VerifiedUser,
    WaitSeconds,
    idempotency,
    scope,
)
from gateway.api.transfers import AmountField, AssetField
from gateway.identity.text import one_line
from gateway.money.banks import compact_iban, masked_iban
from gateway.money.records import UNTOLD
from gateway.money.tables import Payout

router = APIRouter(prefix="/v1/payouts", tags=["money in and out"], dependencies=[scope("payments")])


class NewPayout(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: Annotated[str, Field(max_length=64)]
    asset: AssetField
    amount: AmountField
    iban: Annotated[str, Field(max_length=50, examples=["DE89 3704 0044 0532 0130 00"])]
    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=70),
        AfterValidator(one_line),
        Field(description="Whose account it is."),
    ]


class PayoutView(BaseModel):
    id: str
    status: Literal["processing", "sent", "paid", "failed", "returned"]
    asset: str
    amount: str
    wallet_id: str
    iban: str
    name: str
    transfer_id: str
    return_transfer_id: str | None
    code: str | None
    history: list[StatusLine]
    created_at: str


@router.post(
    "",
    status_code=202,
    responses=errors(
        *ORDER,
        "409 key_not_held",
        "409 no_bank",
        "409 no_issuer_key",
        "422 amount_too_large",
        "422 amount_too_small",
        "422 invalid_iban",
        "429 payout_limit",
    ),
)
async def pay_out(
    body: NewPayout,
    request: Request,
    response: Response,
    user: VerifiedUser,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> PayoutView:
    """Cash out to a bank account. 202 until the bank has it or it has failed, then 200.

    The coins are burned first, then the bank is told. What the wallet cannot pay is `failed` at once (`insufficient_funds`). If
    the bank returns the money, the coins are minted again (`return_transfer_id`) and the payout is `returned`.
    """
    account = compact_iban(body.iban)
    asked = body.model_copy(update={"iban": masked_iban(account)})  # no fingerprint of an account number is kept
    made = await gateway.money.payouts.begin(
        user, body.wallet_id, body.asset, body.amount, account, body.name, idempotency(request, asked, key)
    )
    view = await gateway.money.records.settled(Payout, user, made, min(wait, LONGEST_WAIT))
    response.status_code = 202 if view["status"] in UNTOLD else 200
    return PayoutView(**view)


@router.get("", responses=errors("422 invalid_cursor"))
async def payouts(user: UserId, gateway: GatewayPart, cursor: Cursor = None, limit: Limit = 20) -> Page[PayoutView]:
    """Your payouts, latest first."""
    items, more = await gateway.money.records.page(Payout, user, cursor, limit)
    return Page(items=[PayoutView(**item) for item in items], next_cursor=more)


@router.get("/{payout_id}", responses=errors("404 payout_not_found"))
async def payout(payout_id: str, user: UserId, gateway: GatewayPart, wait: WaitSeconds = 0) -> PayoutView:
    """A payout of yours."""
    return PayoutView(**await gateway.money.records.settled(Payout, user, payout_id, min(wait, LONGEST_WAIT)))
