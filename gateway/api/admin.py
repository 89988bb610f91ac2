"""What the people who run this gateway may do."""

import json
import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.admin.audit import MAX_REASON, checked_reason
from gateway.admin.desk import Found
from gateway.admin.limits import MOST
from gateway.api.auth import Email
from gateway.api.errors import ORDER, errors
from gateway.api.lists import Cursor, Limit, Page
from gateway.api.requests import WHOLE, GatewayPart, IdempotencyHeader, Login, WaitSeconds, account_address, idempotency
from gateway.api.transfers import AssetField, outcome
from gateway.idempotency import Idempotency
from gateway.identity.tables import User
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.times import iso
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.transaction import Action

router = APIRouter(
    prefix="/v1/admin", tags=["administration"], responses=errors("403 not_administrator", "403 second_factor_needed")
)

Reason = Annotated[
    str,
    AfterValidator(checked_reason),
    Field(min_length=1, max_length=MAX_REASON, description="Why; for the audit log.", examples=["Request 4711 of the court"]),
]
WholeUnits = Annotated[int, Field(ge=0, le=MOST), WHOLE]
_ID = re.compile("[0-9a-f]{32}")


class Because(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Reason


class NewLimits(Because):
    purchase: Annotated[WholeUnits | None, Field(description="At once, in whole units of any asset; null: as everybody's.")]
    purchases_per_day: Annotated[WholeUnits | None, Field(description="Of an asset, in any 24 hours; null: as everybody's.")]


class NewFreeze(Because):
    asset: AssetField
    addresses: Annotated[list[str], Field(min_length=1, max_length=16, description="All, or none, in one transaction.")]


class OwnLimits(BaseModel):
    purchase: int | None
    purchases_per_day: int | None


class AddressView(BaseModel):
    wallet_id: str
    address: str


class UserView(BaseModel):
    id: str
    email: str
    name: str
    created_at: str | None
    email_verified: bool
    second_factor: bool
    administrator: bool
    suspended_at: str | None
    limits: OwnLimits
    addresses: list[AddressView]


class FreezeView(BaseModel):
    id: str
    kind: Literal["freeze", "unfreeze"]
    status: str
    code: str | None


class MintView(BaseModel):
    purchase_id: str
    user_id: str
    asset: str
    amount: str
    raised_by: str
    created_at: str | None


class MintList(BaseModel):
    items: list[MintView]


class Decision(BaseModel):
    purchase_id: str
    approved: bool


class Entry(BaseModel):
    number: int
    at: str | None
    actor: str
    action: str
    subject: str
    reason: str
    details: dict[str, Any]
    hash: str


async def _user_id(user_id: str) -> str:
    if not _ID.fullmatch(user_id):  # nobody has such an id, and not every database takes every text
        raise Problem(404, "user_not_found", "there is no such user")
    return user_id


async def _purchase_id(purchase_id: str) -> str:
    if not _ID.fullmatch(purchase_id):
        raise Problem(404, "purchase_not_found", "no such purchase needs an approval")
    return purchase_id


async def _administrator(login: Login, gateway: GatewayPart) -> str:
    await gateway.administration.require(login)
    return login.user


Administrator = Annotated[str, Depends(_administrator)]
"""The id of who is logged in, and is an administrator who has a second factor."""
UserPath = Annotated[str, Depends(_user_id)]
PurchasePath = Annotated[str, Depends(_purchase_id)]


@router.get("/users", responses=errors("404 user_not_found"))
async def find_user(email: Annotated[Email, Query()], administrator: Administrator, gateway: GatewayPart) -> UserView:
    """Who has an e-mail address."""
    return _user_view(await gateway.administration.user(User.email == email))


@router.get("/users/{user_id}", responses=errors("404 user_not_found"))
async def user(administrator: Administrator, user_id: UserPath, gateway: GatewayPart) -> UserView:
    """A user, with the addresses of his wallets: what they hold is told by `/v1/accounts`."""
    return await _user(gateway, user_id)


@router.post("/users/{user_id}/suspend", responses=errors("404 user_not_found", "409 already_decided"))
async def suspend(administrator: Administrator, user_id: UserPath, body: Because, gateway: GatewayPart) -> UserView:
    """End a user's sessions, revoke his API keys, withdraw his open exchanges, and let him log in no more. What is under way goes
    on, and what others pay him arrives: to stop that, freeze his addresses."""
    await gateway.administration.suspend(administrator, user_id, body.reason)
    return await _user(gateway, user_id)


@router.post("/users/{user_id}/reinstate", responses=errors("404 user_not_found", "409 already_decided"))
async def reinstate(administrator: Administrator, user_id: UserPath, body: Because, gateway: GatewayPart) -> UserView:
    """Let a suspended user log in again. His API keys stay revoked."""
    await gateway.administration.reinstate(administrator, user_id, body.reason)
    return await _user(gateway, user_id)


@router.put(
    "/users/{user_id}/limits",
    responses=errors("404 user_not_found", "403 not_administrator", "403 second_factor_needed", "403 four_eyes"),
)
async def set_limits(administrator: Administrator, user_id: UserPath, body: NewLimits, gateway: GatewayPart) -> UserView:
    """Set how much a user may buy. Purchases beyond everybody's limits then wait for another administrator's approval."""
    await gateway.administration.set_limits(administrator, user_id, body.purchase, body.purchases_per_day, body.reason)
    return await _user(gateway, user_id)


@router.post("/freeze", status_code=202, responses=errors(*ORDER, "409 no_issuer_key", "422 invalid_address"))
async def freeze(
    body: NewFreeze,
    request: Request,
    response: Response,
    administrator: Administrator,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> FreezeView:
    """Have the asset's issuer freeze accounts on the ledger: they neither pay nor receive that asset. What is held already for a
    payment under way is not stopped. Everybody can see it."""
    order = (Action.FREEZE, administrator, body, idempotency(request, body, key))
    response.status_code, view = await _set_frozen(gateway, *order, wait)
    return view


@router.post("/unfreeze", status_code=202, responses=errors(*ORDER, "409 no_issuer_key", "422 invalid_address"))
async def unfreeze(
    body: NewFreeze,
    request: Request,
    response: Response,
    administrator: Administrator,
    gateway: GatewayPart,
    wait: WaitSeconds = 0,
    key: IdempotencyHeader = None,
) -> FreezeView:
    """Undo that."""
    order = (Action.UNFREEZE, administrator, body, idempotency(request, body, key))
    response.status_code, view = await _set_frozen(gateway, *order, wait)
    return view


@router.get("/mints")
async def mints(administrator: Administrator, gateway: GatewayPart, limit: Limit = 20) -> MintList:
    """Purchases beyond everybody's limits, which wait for a second administrator: the oldest first. After six days without a
    decision they fail. Nothing has been taken from their cards."""
    return MintList(items=[_mint_view(row, gateway) for row in await gateway.administration.mints(limit)])


@router.post(
    "/mints/{purchase_id}/approve",
    responses=errors(
        "404 purchase_not_found", "409 already_decided", "403 not_administrator", "403 second_factor_needed", "403 four_eyes"
    ),
)
async def approve(administrator: Administrator, purchase_id: PurchasePath, body: Because, gateway: GatewayPart) -> Decision:
    """Charge the card and mint the coins. Not for one's own purchases, nor by who raised the limit (403 `four_eyes`)."""
    return await _decide(gateway, administrator, purchase_id, True, body.reason)


@router.post(
    "/mints/{purchase_id}/reject",
    responses=errors(
        "404 purchase_not_found", "409 already_decided", "403 not_administrator", "403 second_factor_needed", "403 four_eyes"
    ),
)
async def reject(administrator: Administrator, purchase_id: PurchasePath, body: Because, gateway: GatewayPart) -> Decision:
    """Let the purchase fail (`not_approved`)."""
    return await _decide(gateway, administrator, purchase_id, False, body.reason)


@router.get("/audit-log")
async def audit_log(
    administrator: Administrator,
    gateway: GatewayPart,
    subject: Annotated[
        str | None, Query(max_length=64, pattern="^[0-9a-z]+$", description="A user's id, or a transfer's.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[Entry]:
    """What was done, the latest first. `python -m gateway audit-log verify` checks that it is what it was."""
    rows, after = await gateway.administration.log(subject, cursor, limit)
    return Page[Entry](items=[_entry(row) for row in rows], next_cursor=after)


async def _set_frozen(
    gateway: Gateway, action: Action, administrator: str, body: NewFreeze, key: Idempotency | None, wait: float
) -> tuple[int, FreezeView]:
    addresses = [account_address(text) for text in body.addresses]
    if len(set(addresses)) < len(addresses):
        raise Problem(422, "invalid_address", "an address is there twice")
    accepted = await gateway.administration.freeze(administrator, action, body.asset, addresses, body.reason, key)
    status, view = await outcome(gateway, accepted, administrator, wait)
    return status, FreezeView(**{name: view[name] for name in ("id", "kind", "status", "code")})


async def _user(gateway: Gateway, user_id: str) -> UserView:
    return _user_view(await gateway.administration.user(User.id == user_id))


def _user_view(found: Found) -> UserView:
    row, own = found.user, found.limits
    return UserView(
        id=row.id,
        email=row.email,
        name=row.name,
        created_at=iso(row.created_at),
        email_verified=row.verified_at is not None,
        second_factor=found.second_factor,
        administrator=found.administrator,
        suspended_at=iso(row.suspended_at),
        limits=OwnLimits(purchase=own and own.purchase, purchases_per_day=own and own.purchases_per_day),
        addresses=[AddressView(wallet_id=wallet, address=encode_address(address)) for wallet, address in found.addresses],
    )


def _mint_view(row: Any, gateway: Gateway) -> MintView:
    return MintView(
        purchase_id=row.id,
        user_id=row.user_id,
        asset=row.asset,
        amount=format_amount(row.units, gateway.payments.assets[row.asset].decimals),
        raised_by=row.raised_by,
        created_at=iso(row.created_at),
    )


async def _decide(gateway: Gateway, administrator: str, purchase_id: str, approved: bool, reason: str) -> Decision:
    await gateway.administration.decide(administrator, purchase_id, approved, reason)
    return Decision(purchase_id=purchase_id, approved=approved)


def _entry(row: Any) -> Entry:
    values = {name: getattr(row, name) for name in ("number", "actor", "action", "subject", "reason")}
    return Entry(**values, at=iso(row.at), details=json.loads(row.details), hash=row.hash.hex())
