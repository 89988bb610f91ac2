"""Wallets: their keys, balances and history."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.api.requests import GatewayPart, UserId
from gateway.history import iso
from gateway.problems import Problem
from gateway.service import Gateway
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.keys import public_key_from

router = APIRouter(prefix="/v1/wallets", tags=["wallets"])


class NewWallet(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] = ""
    public_key: Annotated[
        str | None, Field(max_length=1000, description="SEC 1 hex or PEM: a key whose private half you keep.")
    ] = None


class Amounts(BaseModel):
    available: str
    held: str
    frozen: bool = False


class WalletView(BaseModel):
    id: str
    label: str
    address: str
    shard: int
    public_key: str
    custodial: bool
    created_at: str | None


class WalletWithBalances(WalletView):
    balances: dict[str, Amounts]
    height: int


class Page(BaseModel):
    items: list[dict[str, Any]]
    next_cursor: str | None


@router.post("", status_code=201)
async def create(body: NewWallet, user: UserId, gateway: GatewayPart) -> WalletView:
    """Create a wallet: one key pair, any number of assets."""
    gateway.epochs.require()
    key = None
    if body.public_key is not None:
        try:
            key = public_key_from(body.public_key)
        except ValueError as error:
            raise Problem(422, "invalid_public_key", str(error)) from None
    made = await gateway.wallets.create(user, body.label, key)
    await gateway.receiving.claim(user, (await gateway.accounts.profile(user)).email)
    return WalletView(**_view(made, gateway))


@router.get("")
async def wallets(user: UserId, gateway: GatewayPart) -> dict[str, list[WalletView]]:
    """Your wallets, oldest first."""
    return {"items": [WalletView(**_view(row, gateway)) for row in await gateway.wallets.wallets(user)]}


@router.get("/{wallet_id}")
async def wallet(wallet_id: str, user: UserId, gateway: GatewayPart) -> WalletWithBalances:
    """A wallet with its balances, as of the block at ``height`` of its shard."""
    row = await gateway.wallets.wallet(user, wallet_id)
    rows, height = await gateway.wallets.balances(row)
    balances = {}
    for line in rows:
        if (asset := gateway.payments.assets.get(line.asset)) is None:
            continue  # an asset that only a captured committee knows
        amounts = (format_amount(units, asset.decimals) for units in (int(line.available), int(line.held)))
        balances[line.asset] = Amounts(**dict(zip(("available", "held"), amounts, strict=True)), frozen=bool(line.frozen))
    return WalletWithBalances(**_view(row, gateway), balances=balances, height=height)


@router.get("/{wallet_id}/transfers")
async def history(
    wallet_id: str,
    user: UserId,
    gateway: GatewayPart,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    """What was sent and received, latest first."""
    await gateway.wallets.wallet(user, wallet_id)
    items, next_cursor = await gateway.history.page(wallet_id, cursor, limit)
    return Page(items=items, next_cursor=next_cursor)


def _view(row: Any, gateway: Gateway) -> dict[str, Any]:
    return {
        "id": row.id,
        "label": row.label,
        "address": encode_address(row.address),
        "shard": gateway.epochs.require().shards.shard_of(row.address),
        "public_key": row.public_key.hex(),
        "custodial": row.sealed_key is not None,
        "created_at": iso(row.created_at),
    }
