"""Checkout: what shops, and people among themselves, want to be paid."""

import io
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import segno
from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.api.errors import ORDER, errors
from gateway.api.requests import LONGEST_WAIT, WHOLE, GatewayPart, IdempotencyHeader, UserId, WaitSeconds, idempotency, scope
from gateway.api.transfers import AmountField, AssetField
from gateway.checkout.intents import NewIntent
from gateway.checkout.states import IntentStatus
from gateway.identity.text import one_line
from gateway.languages import Unfit

router = APIRouter(prefix="/v1/payment-intents", tags=["checkout"], dependencies=[scope("checkout")])

MAX_METADATA = 20
LONGEST_EXPIRY = 30 * 24 * 3600


def _link(url: str) -> str:
    """A link that a browser may be sent to: nothing that runs as a script of the page, no name or password in it."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https") or "@" in parts.netloc or not url.isprintable():
        raise Unfit("link", "an http or https URL")
    return url


Link = Annotated[str, Field(max_length=2000, examples=["https://shop.example/thanks"]), AfterValidator(_link)]
Key = Annotated[str, Field(min_length=1, max_length=40)]
Value = Annotated[str, Field(max_length=500)]
Reference = Annotated[str, Field(max_length=200), AfterValidator(one_line)]
Id = Annotated[str, Field(max_length=64)]


class NewPaymentIntent(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: Annotated[Id, Field(description="Where it is to be paid.")]
    asset: AssetField
    amount: AmountField
    description: Annotated[str, Field(max_length=500, description="What the buyer reads."), AfterValidator(one_line)] = ""
    reference: Annotated[Reference, Field(description="The shop's own name for it; no buyer sees it.")] = ""
    metadata: Annotated[dict[Key, Value], Field(max_length=MAX_METADATA, description="The shop's own; no buyer sees it.")] = {}
    success_url: Link | None = None
    cancel_url: Link | None = None
    capture_method: Annotated[
        Literal["automatic", "manual"], Field(description="`manual`: confirming reserves the amount, `/capture` takes it.")
    ] = "automatic"
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_EXPIRY, description="Seconds in which it can be paid."), WHOLE] = 3600


class Confirmation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    from_wallet: Id


class Capture(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: AmountField | None = None


class PaymentIntentView(BaseModel):
    id: str
    status: IntentStatus
    code: Annotated[str | None, Field(description="Why its last payment failed, or it was canceled.")]
    asset: str
    amount: str
    amount_captured: str
    amount_refunded: str
    wallet_id: str
    merchant: str
    description: str
    reference: Annotated[str | None, Field(description="For the shop alone.")]
    metadata: Annotated[dict[str, str] | None, Field(description="For the shop alone.")]
    success_url: str | None
    cancel_url: str | None
    capture_method: Literal["automatic", "manual"]
    transfer_id: Annotated[str | None, Field(description="For shop and payer alone.")]
    checkout_url: str
    expires_at: str | None
    capture_before: Annotated[str | None, Field(description="When what is authorized is let go of.")]
    created_at: str | None


class PaymentIntentPage(BaseModel):
    items: list[PaymentIntentView]
    next_cursor: str | None


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: IntentStatus | None = None
    reference: Reference | None = None
    cursor: Annotated[str | None, Field(max_length=100)] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


@router.post(
    "",
    status_code=201,
    responses=errors(
        "404 wallet_not_found", "409 idempotency_conflict", "409 limit_exceeded", "422 unknown_asset", "422 invalid_amount"
    ),
)
async def create(
    body: NewPaymentIntent, request: Request, user: UserId, gateway: GatewayPart, key: IdempotencyHeader = None
) -> PaymentIntentView:
    """Ask for a payment. Its `checkout_url` goes to the buyer; without URLs it is a payment request between people."""
    asked = NewIntent(**{name: getattr(body, name) for name in NewIntent._fields})
    return _shown(await gateway.checkout.intents.create(user, asked, idempotency(request, body, key)))


@router.get("", responses=errors("422 invalid_cursor"))
async def page(user: UserId, gateway: GatewayPart, filtered: Annotated[Filter, Query()]) -> PaymentIntentPage:
    """Yours, latest first."""
    items, following = await gateway.checkout.intents.page(
        user, filtered.status, filtered.reference, filtered.cursor, filtered.limit
    )
    return PaymentIntentPage(items=[_shown(item) for item in items], next_cursor=following)


@router.get("/{intent_id}", responses=errors("404 payment_intent_not_found"))
async def payment_intent(intent_id: str, user: UserId, gateway: GatewayPart) -> PaymentIntentView:
    """One: yours, or one whose id you were given."""
    return _shown(await gateway.checkout.intents.get(user, intent_id))


@router.post(
    "/{intent_id}/confirm",
    status_code=202,
    dependencies=[scope("payments")],
    responses=errors(
        *ORDER,
        "404 payment_intent_not_found",
        "409 key_not_held",
        "409 insufficient_funds",
        "409 below_smallest_balance",
        "409 intent_not_payable",
    ),
)
async def confirm(
    intent_id: str,
    body: Confirmation,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> PaymentIntentView:
    """Pay it from a wallet of yours. 202 while the payment is under way, 200 after.

    Of several buyers who confirm, one pays; the others get 409 `intent_not_payable`, and nothing of theirs has moved. From the
    wallet that pays, confirming again changes nothing. Should the payment fail, `code` says why, and it can be paid again, with
    another `Idempotency-Key`.
    """
    view = await gateway.checkout.intents.confirm(
        user, intent_id, body.from_wallet, idempotency(request, body, key), min(wait, LONGEST_WAIT)
    )
    return _answer(response, view)


@router.post(
    "/{intent_id}/capture",
    status_code=202,
    responses=errors(
        *ORDER, "404 payment_intent_not_found", "409 key_not_held", "409 intent_not_capturable", "422 amount_too_large"
    ),
)
async def capture(
    intent_id: str,
    body: Capture,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> PaymentIntentView:
    """Take what a buyer has authorized, or a part of it once: the rest is free again."""
    view = await gateway.checkout.intents.capture(
        user, intent_id, body.amount, idempotency(request, body, key), min(wait, LONGEST_WAIT)
    )
    return _answer(response, view)


@router.post("/{intent_id}/cancel", responses=errors("404 payment_intent_not_found", "409 intent_not_cancelable"))
async def cancel(intent_id: str, user: UserId, gateway: GatewayPart) -> PaymentIntentView:
    """Want nothing any more. What a buyer has authorized is free again; what is paid, or under way, cannot be canceled."""
    return _shown(await gateway.checkout.intents.cancel(user, intent_id))


@router.get(
    "/{intent_id}/qr.svg",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}}}, **errors("404 payment_intent_not_found")},
)
async def qr_code(intent_id: str, gateway: GatewayPart) -> Response:
    """Its `checkout_url` as a QR code."""
    return Response(_qr_code(await gateway.checkout.intents.checkout_url(intent_id)), media_type="image/svg+xml")


@lru_cache(maxsize=1000)
def _qr_code(text: str) -> bytes:
    """An SVG picture, black on white; takes some ms."""
    picture = io.BytesIO()
    segno.make(text, error="m", micro=False).save(picture, kind="svg", scale=6, dark="#000", light="#fff")
    return picture.getvalue()


def _shown(view: dict[str, Any]) -> PaymentIntentView:
    return PaymentIntentView(**view)


def _answer(response: Response, view: dict[str, Any]) -> PaymentIntentView:
    response.status_code = 202 if view["status"] == IntentStatus.PROCESSING else 200
    return _shown(view)
