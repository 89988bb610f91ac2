"""Everything that moves money, and what became of it."""

import base64
import binascii
from copy import copy
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from gateway.acceptance import Accepted
from gateway.api.errors import ORDER, PAYEE, errors
from gateway.api.requests import (
    LONGEST_WAIT,
    GatewayPart,
    IdempotencyHeader,
    UserId,
    WaitSeconds,
    idempotency,
    scope,
    transaction_id,
)
from gateway.api.views import TransferView
from gateway.batches import Part
from gateway.identity.text import one_line
from gateway.languages import Unfit
from gateway.problems import VARIANT, Problem
from gateway.projection import Status
from gateway.service import Gateway
from node.protocol.limits import MAX_LEGS, MAX_MEMO_BYTES, MAX_TRANSACTION_BYTES

router = APIRouter(prefix="/v1", tags=["transfers"], dependencies=[scope("payments")])

AssetField = Annotated[str, Field(pattern="^[A-Z0-9]{1,12}$", examples=["USD"])]
AmountField = Annotated[str, Field(max_length=40, examples=["12.50"])]


class Funding(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: Annotated[str, Field(max_length=64)]
    asset: AssetField
    amount: AmountField


def _fits(memo: str) -> str:
    memo = one_line(memo)
    if len(memo.encode()) > MAX_MEMO_BYTES:
        raise Unfit("too_long", f"at most {MAX_MEMO_BYTES} bytes of UTF-8")
    return memo


PayeeField = Annotated[str, Field(min_length=1, max_length=254, description="An address, an e-mail address or a wallet id.")]
MemoField = Annotated[str, Field(max_length=MAX_MEMO_BYTES), AfterValidator(_fits)]


class NewTransfer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    from_wallet: Annotated[str, Field(max_length=64)]
    to: PayeeField
    asset: AssetField
    amount: AmountField
    memo: MemoField = ""


class NewLeg(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to: PayeeField
    asset: AssetField
    amount: AmountField


class NewBatch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    from_wallet: Annotated[str, Field(max_length=64)]
    legs: Annotated[list[NewLeg], Field(min_length=1, max_length=MAX_LEGS, description="All are paid, or none.")]
    memo: MemoField = ""


_ONE, _SEVERAL = f"{VARIANT}one", f"{VARIANT}several"


def _variant(body: Any) -> str:
    return _SEVERAL if isinstance(body, NewBatch) or (isinstance(body, dict) and "legs" in body) else _ONE


Order = Annotated[Annotated[NewTransfer, Tag(_ONE)] | Annotated[NewBatch, Tag(_SEVERAL)], Discriminator(_variant)]


class SignedTransaction(BaseModel):
    model_config = ConfigDict(extra="forbid")
    transaction: Annotated[str, Field(max_length=MAX_TRANSACTION_BYTES * 2, description="Hex or base64 of the encoding.")]


@router.post(
    "/faucet",
    status_code=202,
    responses=errors(
        *ORDER, "404 not_found", "409 no_issuer_key", "422 amount_too_small", "422 amount_too_large", "429 faucet_limit"
    ),
)
async def faucet(
    body: Funding,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> TransferView:
    """Play money, on a development network only: so much per user, asset and 24 hours (429 `faucet_limit`)."""
    if not gateway.devnet:
        raise Problem(404, "not_found", "this network has no faucet")
    accepted = await gateway.money.faucet.give(user, body.wallet_id, body.asset, body.amount, idempotency(request, body, key))
    response.status_code, view = await outcome(gateway, accepted, user, wait)
    return TransferView(**view)


@router.post("/transfers", status_code=202, responses=errors(*ORDER, *PAYEE))
async def transfer(
    body: Order,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> TransferView:
    """Pay one, or several at once with `legs`. 202 while under way, 200 when the status is final already.

    `rejected` with `insufficient_funds` or `below_smallest_balance` may come at once: the wallet's verified balance, less what it
    has under way, does not allow it, and nothing was signed. Later, `rejected` and `expired` are proven by the chain; `hint` is
    only what members say meanwhile. A payment of an asset that costs a fee (see `/v1/network`) has one leg more: `fee`.
    """
    once = idempotency(request, body, key)
    if isinstance(body, NewBatch):
        parts = [Part(leg.to, leg.asset, leg.amount) for leg in body.legs]
        accepted = await gateway.batches.pay(user, body.from_wallet, parts, body.memo, once)
    else:
        accepted = await gateway.payments.transfer(user, body.from_wallet, body.to, body.asset, body.amount, body.memo, once)
    response.status_code, view = await outcome(gateway, accepted, user, wait)
    return TransferView(**view)


@router.get("/transfers/{transfer_id}", responses=errors("404 transfer_not_found"))
async def transfer_status(transfer_id: str, user: UserId, gateway: GatewayPart, wait: WaitSeconds = 0) -> TransferView:
    """A transfer you made or received."""
    raw = transaction_id(transfer_id)
    view = await gateway.history.transfer(raw, user)
    if wait and not Status(view["status"]).is_final:
        await gateway.waiting.end(raw, min(wait, LONGEST_WAIT))
        view = await gateway.history.transfer(raw, user)
    return TransferView(**view)


@router.post(
    "/transactions",
    status_code=202,
    responses=errors(
        "409 idempotency_conflict",
        "422 malformed",
        "422 wrong_network",
        "422 unknown_asset",
        "422 bad_signature",
        "422 expired",
        "422 fee_missing",
        "422 below_smallest_balance",
        "422 limit_exceeded",
        "429 too_many_under_way",
        "503 not_ready",
    ),
)
async def hand_in(
    body: SignedTransaction,
    request: Request,
    response: Response,
    user: UserId,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> TransferView:
    """Hand in a transaction signed elsewhere. Handing it in again is the same as asking for it."""
    accepted = await gateway.payments.hand_in(user, _raw_bytes(body.transaction), idempotency(request, body, key))
    response.status_code, view = await outcome(gateway, accepted, None, wait)
    return TransferView(**view)


@router.get("/transactions/{transfer_id}", responses=errors("404 transfer_not_found"))
async def transaction(transfer_id: str, gateway: GatewayPart, wait: WaitSeconds = 0) -> TransferView:
    """A transaction this gateway sent, or that touches one of its wallets. The ledger is public, so is this."""
    raw = transaction_id(transfer_id)
    view = await gateway.history.transfer(raw, None)
    if wait and not Status(view["status"]).is_final:
        await gateway.waiting.end(raw, min(wait, LONGEST_WAIT))
        view = await gateway.history.transfer(raw, None)
    return TransferView(**view)


async def outcome(gateway: Gateway, accepted: Accepted, user: str | None, wait: float) -> tuple[int, dict[str, Any]]:
    """The answer after at most ``wait`` seconds: HTTP status and body."""
    known = accepted.tracked
    if wait and (known is None or not known.status.is_final):
        end = await gateway.waiting.end(accepted.id, min(wait, LONGEST_WAIT), fresh=known is not None)
        if known is not None and end is not None:
            known = copy(known)
            known.status, known.code, known.height, known.finalized_at = end
        else:
            known = None  # what it has come to, the database knows
    view = await gateway.history.transfer(accepted.id, user) if known is None else gateway.history.view(known)
    return 200 if Status(view["status"]).is_final else 202, view


def _raw_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, "malformed", "neither hex nor base64") from None
