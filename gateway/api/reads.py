"""Looking back: histories, balances at a time, statements. Each answer says up to which block it is true."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from gateway.api.errors import errors
from gateway.api.requests import GatewayPart, UserId, account_address, scope
from gateway.api.views import Line
from gateway.problems import Problem
from gateway.projection import Status
from gateway.reads.lines import Wanted
from gateway.reads.pdf import as_pdf
from gateway.reads.sheets import as_csv, as_html, where
from gateway.reads.statement import Statement
from gateway.service import Gateway
from gateway.times import iso, read_time
from node.protocol.amounts import format_amount

router = APIRouter(prefix="/v1", tags=["history"], dependencies=[scope("payments")])

_one_pdf = asyncio.Semaphore(1)
"""They are made one after the other: each keeps the processor busy."""
AssetFilter = Annotated[str | None, Query(pattern="^[A-Z0-9]{1,12}$")]
From = Annotated[str | None, Query(alias="from", max_length=40, description="Not before: a time (ISO 8601; UTC), or a day.")]
To = Annotated[str | None, Query(alias="to", max_length=40, description="Before: a time, or the beginning of a day.")]


class Lines(BaseModel):
    """`heights`: of each shard of this `epoch`, the block up to which this is true. A filtered page may hold fewer lines than
    asked for, even none, and have a next one."""

    items: list[Line]
    next_cursor: str | None
    epoch: int
    heights: dict[str, int]


class HeldAmounts(BaseModel):
    """`changed_at`: the time of the last block that changed it; null: it was there before the wallet."""

    available: str
    held: str
    changed_at: str | None


class BalanceThen(BaseModel):
    """What the wallet held on all its addresses. `heights`: of the shards that keep them in this `epoch`, the blocks up to which
    this is true."""

    wallet_id: str
    at: str | None
    epoch: int
    heights: dict[str, int]
    balances: dict[str, HeldAmounts]


@router.get(
    "/transfers", responses=errors("404 wallet_not_found", "422 invalid_address", "422 invalid_cursor", "422 invalid_time")
)
async def transfers(
    user: UserId,
    gateway: GatewayPart,
    wallet_id: Annotated[str | None, Query(max_length=64)] = None,
    status: Status | None = None,
    asset: AssetFilter = None,
    direction: Literal["sent", "received"] | None = None,
    counterparty: Annotated[str | None, Query(max_length=100, description="An address.")] = None,
    text: Annotated[str | None, Query(min_length=1, max_length=140, description="In the memo, in any case of letters.")] = None,
    since: From = None,
    until: To = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Lines:
    """What was sent and received in all your wallets, latest first. `from` and `to` are about `at`."""
    if wallet_id is not None:
        await gateway.wallets.wallet(user, wallet_id)
    other = None if counterparty is None else account_address(counterparty)
    wanted = Wanted(user, wallet_id, status, asset, direction, other, text, _time(since), _time(until))
    return Lines.model_validate((await gateway.reads.lines.page(wanted, cursor, limit))._asdict())


@router.get(
    "/wallets/{wallet_id}/balance",
    responses=errors("404 wallet_not_found", "409 not_reached", "409 not_known", "422 invalid_time", "503 not_ready"),
)
async def balance(
    wallet_id: str,
    user: UserId,
    gateway: GatewayPart,
    at: Annotated[str | None, Query(max_length=40, description="A time (ISO 8601; UTC), or the beginning of a day; now.")] = None,
) -> BalanceThen:
    """What a wallet held at a time, by the time of blocks.

    409 `not_reached`: no block has come that far yet, so try again in a second. 409 `not_known`: the wallet was not here then.
    """
    wallet, time = await gateway.wallets.wallet(user, wallet_id), _time(at)
    found, seen = await gateway.reads.balances.at(wallet, time)
    balances = {}
    for code, held in found.items():
        if (asset := gateway.payments.assets.get(code)) is not None:
            available, reserved = (format_amount(units, asset.decimals) for units in (held.available, held.held))
            balances[code] = HeldAmounts(available=available, held=reserved, changed_at=iso(held.time or None))
    return BalanceThen(
        wallet_id=wallet_id,
        at=iso(seen.time if time is None else time),
        epoch=seen.epoch,
        heights={str(shard): height for shard, height in seen.heights.items()},
        balances=balances,
    )


@router.get(
    "/statements/{wallet_id}.csv",
    response_class=Response,
    responses={
        200: {"content": {"text/csv": {}}},
        **errors("404 wallet_not_found", "422 unknown_asset", "422 invalid_time", "422 too_many_lines", "503 not_ready"),
    },
)
async def statement_csv(
    wallet_id: str, user: UserId, gateway: GatewayPart, asset: AssetFilter = None, since: From = None, until: To = None
) -> Response:
    """A wallet's statement as CSV: what it held, all that moved it, what it held then, by the time of blocks."""
    made = await _statement(gateway, user, wallet_id, asset, since, until)
    return Response(as_csv(made), media_type="text/csv; charset=utf-8; header=present", headers=_headers(made, "csv"))


@router.get(
    "/statements/{wallet_id}.html",
    response_class=Response,
    responses={
        200: {"content": {"text/html": {}}},
        **errors("404 wallet_not_found", "422 unknown_asset", "422 invalid_time", "422 too_many_lines", "503 not_ready"),
    },
)
async def statement_html(
    wallet_id: str, user: UserId, gateway: GatewayPart, asset: AssetFilter = None, since: From = None, until: To = None
) -> Response:
    """The same as a page to print."""
    made = await _statement(gateway, user, wallet_id, asset, since, until)
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
    return Response(as_html(made), media_type="text/html; charset=utf-8", headers=_headers(made, "html") | policy)


@router.get(
    "/statements/{wallet_id}.pdf",
    response_class=Response,
    responses={
        200: {"content": {"application/pdf": {}}},
        **errors(
            "404 wallet_not_found",
            "422 unknown_asset",
            "422 invalid_time",
            "422 too_many_lines",
            "503 not_ready",
            "503 overloaded",
        ),
    },
)
async def statement_pdf(
    wallet_id: str, user: UserId, gateway: GatewayPart, asset: AssetFilter = None, since: From = None, until: To = None
) -> Response:
    """The same as PDF, of 1000 lines at most. Chinese needs a Chinese font in your reader; letters that few fonts have are
    replaced."""
    made = await _statement(gateway, user, wallet_id, asset, since, until)
    async with _one_pdf:
        document = await asyncio.to_thread(as_pdf, made)
    return Response(document, media_type="application/pdf", headers=_headers(made, "pdf"))


async def _statement(
    gateway: Gateway, user: str, wallet_id: str, asset: str | None, since: str | None, until: str | None
) -> Statement:
    wallet = await gateway.wallets.wallet(user, wallet_id)
    if asset is not None and asset not in gateway.payments.assets:
        raise Problem(422, "unknown_asset", f"this network has no {asset}")
    begin, end = _time(since), _time(until)
    if begin is not None and end is not None and begin >= end:
        raise Problem(422, "invalid_time", "the end is not after the beginning")
    return await gateway.reads.statements.of(wallet, asset, begin, end)


def _time(text: str | None) -> int | None:
    """In ms. Raises Problem (422)."""
    try:
        return None if text is None else read_time(text)
    except ValueError as error:
        raise Problem(422, "invalid_time", str(error)) from None


def _headers(made: Statement, ending: str) -> dict[str, Any]:
    """The blocks up to which it is true, too: a table has no place for them."""
    name = f'attachment; filename="statement-{made.wallet.id}.{ending}"'
    return {"Content-Disposition": name, "Shardpay-True-At": where(made), "X-Content-Type-Options": "nosniff"}
