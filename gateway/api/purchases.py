"""Buying coins by card."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field
from stdnum import luhn

from gateway.api.errors import ORDER, errors
from gateway.api.lists import Cursor, Limit, Page
from gateway.api.requests import (
    LONGEST_WAIT,
    WHOLE,
    GatewayPart,
    IdempotencyHeader,
    UserId,
    VerifiedUser,
    WaitSeconds,
    idempotency,
    scope,
)
from gateway.api.transfers import AmountField, AssetField
from gateway.money.cards import Card
from gateway.money.records import UNTOLD
from gateway.money.tables import Purchase
from gateway.problems import Problem

router = APIRouter(prefix="/v1/purchases", tags=["money in and out"], dependencies=[scope("payments")])


class CardFields(BaseModel):
    """Goes to the processor and is kept nowhere; what stands for it in an idempotency key's fingerprint is ``last4``."""

    model_config = ConfigDict(extra="forbid")
    number: Annotated[SecretStr, Field(max_length=30, examples=["4242 4242 4242 4242"])]
    exp_month: Annotated[int, Field(ge=1, le=12), WHOLE]
    exp_year: Annotated[int, Field(ge=2000, le=2100, examples=[2030]), WHOLE]
    cvc: Annotated[SecretStr, Field(max_length=4, examples=["123"])]

    @computed_field  # type: ignore[prop-decorator]  # pydantic goes beyond what mypy knows of properties
    @property
    def last4(self) -> str:
        return self.digits[-4:]

    @property
    def digits(self) -> str:
        return self.number.get_secret_value().replace(" ", "").replace("-", "")

    def checked(self) -> Card:
        """Raises Problem (422)."""
        cvc = self.cvc.get_secret_value()
        if not (12 <= len(self.digits) <= 19 and self.digits.isascii() and self.digits.isdigit() and luhn.is_valid(self.digits)):
            raise Problem(422, "invalid_card_number", "this is not the number of a card")
        if not (len(cvc) >= 3 and cvc.isascii() and cvc.isdigit()):
            raise Problem(422, "invalid_cvc", "the security code has three or four digits")
        return Card(self.digits, self.exp_month, self.exp_year, cvc)


class NewPurchase(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: Annotated[str, Field(max_length=64)]
    asset: AssetField
    amount: AmountField
    card: CardFields


class Confirmation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    code: Annotated[str, Field(min_length=1, max_length=20)]


class StatusLine(BaseModel):
    status: str
    at: str


class CardView(BaseModel):
    brand: str
    last4: str


class NextAction(BaseModel):
    type: Literal["confirm"]
    hint: str


class PurchaseView(BaseModel):
    id: str
    status: Literal["processing", "requires_action", "minting", "completed", "declined", "failed", "disputed", "refunded"]
    asset: str
    amount: str
    wallet_id: str
    card: CardView
    transfer_id: str | None
    decline_code: str | None
    next_action: NextAction | None
    amount_refunded: str
    history: list[StatusLine]
    created_at: str


@router.post(
    "",
    status_code=202,
    responses=errors(
        *ORDER,
        "409 no_card_processor",
        "409 no_issuer_key",
        "422 amount_too_large",
        "422 amount_too_small",
        "422 invalid_card_number",
        "422 invalid_cvc",
        "429 purchase_limit",
        "429 too_many_declined",
    ),
)
async def buy(
    body: NewPurchase,
    request: Request,
    response: Response,
    user: VerifiedUser,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> PurchaseView:
    """Buy coins one to one with a debit card. 202 while under way, 200 when nothing happens any more without you.

    The card is charged first, then the coins are minted into the wallet; if that cannot be, the card gets its money back and the
    purchase is `failed`. `requires_action`: confirm it within 15 minutes. On a development network a test processor stands in for
    the card's company: 4242 4242 4242 4242 approves, 4000 0000 0000 0002 declines; gateway/money/README.md lists the others.
    """
    card = body.card.checked()
    bought = await gateway.money.purchases.begin(
        user, body.wallet_id, body.asset, body.amount, card, idempotency(request, body, key)
    )
    return await _outcome(gateway, response, user, bought, wait)


@router.get("", responses=errors("422 invalid_cursor"))
async def purchases(user: UserId, gateway: GatewayPart, cursor: Cursor = None, limit: Limit = 20) -> Page[PurchaseView]:
    """Your purchases, latest first."""
    items, more = await gateway.money.records.page(Purchase, user, cursor, limit)
    return Page(items=[PurchaseView(**item) for item in items], next_cursor=more)


@router.get("/{purchase_id}", responses=errors("404 purchase_not_found"))
async def purchase(purchase_id: str, user: UserId, gateway: GatewayPart, wait: WaitSeconds = 0) -> PurchaseView:
    """A purchase of yours."""
    return PurchaseView(**await gateway.money.records.settled(Purchase, user, purchase_id, min(wait, LONGEST_WAIT)))


@router.post("/{purchase_id}/confirm", status_code=202, responses=errors("404 purchase_not_found", "409 nothing_to_confirm"))
async def confirm(
    purchase_id: str, body: Confirmation, response: Response, user: VerifiedUser, gateway: GatewayPart, wait: WaitSeconds = 0
) -> PurchaseView:
    """Give the code that `next_action` asks for. A wrong one declines the purchase; giving it again changes nothing."""
    await gateway.money.purchases.confirm(user, purchase_id, body.code)
    return await _outcome(gateway, response, user, purchase_id, wait)


async def _outcome(gateway: GatewayPart, response: Response, user: str, purchase_id: str, wait: float) -> PurchaseView:
    view = await gateway.money.records.settled(Purchase, user, purchase_id, min(wait, LONGEST_WAIT))
    response.status_code = 202 if view["status"] in UNTOLD else 200
    return PurchaseView(**view)
