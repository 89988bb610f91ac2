"""Payment files: payroll and the like, as CSV."""

from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.api.errors import errors
from gateway.api.lists import Cursor, Limit, Page
from gateway.api.requests import GatewayPart, IdempotencyHeader, UserId, fingerprinted, scope
from gateway.idempotency import Idempotency
from gateway.identity.text import one_line
from gateway.plans.states import FileStatus, LineStatus

router = APIRouter(prefix="/v1/payment-files", tags=["payment files"], dependencies=[scope("payments")])

_EXAMPLE = "to,asset,amount,memo,reference\r\nbob@example.org,USD,1200.00,November,Bob Example 4711\r\n"


class LineCounts(BaseModel):
    total: int
    waiting: Annotated[int, Field(description="Not handed in; these a cancellation keeps from being paid.")]
    processing: int
    paid: int
    failed: int
    canceled: int


class TotalView(BaseModel):
    amount: str
    fees: Annotated[str, Field(description="At least: a payment taken from several addresses costs one for each.")]


class PaymentFileView(BaseModel):
    """`totals`: by asset; `failures`: how many lines failed, by code."""

    model_config = ConfigDict(extra="forbid")
    id: str
    name: str
    status: FileStatus
    wallet_id: str
    lines: LineCounts
    totals: dict[str, TotalView]
    failures: dict[str, int]
    created_at: str | None
    confirmed_at: str | None
    finished_at: str | None


class PaymentLineView(BaseModel):
    """`line`: its number in the file."""

    line: int
    to: str
    asset: str
    amount: str
    memo: str
    reference: str
    status: LineStatus
    code: str | None
    transfer_id: str | None


Name = Annotated[str, Query(max_length=100, description="What you call it."), AfterValidator(one_line)]
Csv = Annotated[
    bytes, Body(media_type="text/csv", min_length=1, description="UTF-8; its first line names the columns.", examples=[_EXAMPLE])
]


@router.post(
    "",
    status_code=201,
    responses=errors(
        "404 wallet_not_found",
        "409 idempotency_conflict",
        "409 key_not_held",
        "409 limit_exceeded",
        "409 insufficient_funds",
        "422 invalid_payment_file",
        "422 unknown_asset",
        "422 invalid_amount",
        "429 limit_exceeded",
        "503 not_ready",
    ),
)
async def check(
    content: Csv,
    request: Request,
    user: UserId,
    gateway: GatewayPart,
    wallet_id: Annotated[str, Query(max_length=64)],
    name: Name = "",
    key: IdempotencyHeader = None,
) -> PaymentFileView:
    """Have a file checked, all of it; nothing is paid before you confirm it.

    Columns: `to`, `asset`, `amount`; `memo` (everybody reads it on the ledger) and `reference` (stays here) if you want. 422
    `invalid_payment_file` names each line with a fault in `errors`, and nothing is kept.
    """
    asked = {"wallet_id": wallet_id, "name": name, "content": sha256(content).hexdigest()}
    once = None if key is None else Idempotency(key, fingerprinted(request.url.path, asked))
    return PaymentFileView(**await gateway.plans.files.check(user, wallet_id, name, content, once))


@router.get("", responses=errors("422 invalid_cursor"))
async def page(user: UserId, gateway: GatewayPart, cursor: Cursor = None, limit: Limit = 20) -> Page[PaymentFileView]:
    """Yours, latest first."""
    items, following = await gateway.plans.files.page(user, cursor, limit)
    return Page(items=[PaymentFileView(**item) for item in items], next_cursor=following)


@router.get("/{file_id}", responses=errors("404 payment_file_not_found"))
async def payment_file(file_id: str, user: UserId, gateway: GatewayPart) -> PaymentFileView:
    """How far it is."""
    return PaymentFileView(**await gateway.plans.files.get(user, file_id))


@router.get("/{file_id}/lines", responses=errors("404 payment_file_not_found", "422 invalid_cursor"))
async def lines(
    file_id: str,
    user: UserId,
    gateway: GatewayPart,
    status: LineStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[PaymentLineView]:
    """Its lines, in the order of the file."""
    items, following = await gateway.plans.files.lines(user, file_id, status, cursor, limit)
    return Page(items=[PaymentLineView(**item) for item in items], next_cursor=following)


@router.get(
    "/{file_id}/result.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **errors("404 payment_file_not_found")},
)
async def result(file_id: str, user: UserId, gateway: GatewayPart) -> Response:
    """Its lines with what has become of them so far, as CSV."""
    text = await gateway.plans.files.result(user, file_id)
    headers = {"Content-Disposition": f'attachment; filename="payment-file-{file_id}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8; header=present", headers=headers)


@router.post(
    "/{file_id}/confirm",
    status_code=202,
    responses=errors(
        "404 payment_file_not_found", "409 payment_file_not_open", "409 insufficient_funds", "409 key_not_held", "503 not_ready"
    ),
)
async def confirm(file_id: str, response: Response, user: UserId, gateway: GatewayPart) -> PaymentFileView:
    """Have it paid: each line is a payment of its own, and one that fails does not stop the others. Once, however often you ask:
    202 when it begins, 200 when it did before.

    409 `insufficient_funds`: the wallet holds less than all of it, and nothing begins.
    """
    view, begins = await gateway.plans.files.confirm(user, file_id)
    response.status_code = 202 if begins else 200
    return PaymentFileView(**view)


@router.post("/{file_id}/cancel", responses=errors("404 payment_file_not_found", "409 payment_file_not_open"))
async def cancel(file_id: str, user: UserId, gateway: GatewayPart) -> PaymentFileView:
    """Stop it: what is not handed in is never paid, what is under way ends as it ends."""
    return PaymentFileView(**await gateway.plans.files.cancel(user, file_id))
