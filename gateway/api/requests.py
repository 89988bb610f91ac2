"""What endpoints share: who asks, how long to wait, and under which idempotency key."""

from hashlib import sha256
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, BeforeValidator

from gateway.idempotency import Idempotency
from gateway.identity.sessions import Device
from gateway.identity.throttle import Limit
from gateway.identity.tokens import Caller, Scope
from gateway.languages import Unfit
from gateway.problems import Problem
from gateway.service import Gateway
from node.protocol.address import decode_address

bearer = HTTPBearer(auto_error=False, description="The access token of a login, or an API key.")


async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    if request.method != "GET":
        gateway.database.check_room()
    return gateway


class Declared:
    """A scope as a dependency."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> None:
        request.state.scopes = (self.scope, "read") if request.method == "GET" else (self.scope,)


def scope(name: Scope) -> Any:
    """For a router's ``dependencies``: who uses it with an API key needs this scope; to read, "read" is enough."""
    return Depends(Declared(name))


async def _caller(request: Request, credentials: HTTPAuthorizationCredentials | None, *scopes: str) -> Caller:
    if credentials is None:
        raise Problem(401, "not_authenticated", "log in and send the access token: Authorization: Bearer ...")
    gateway: Gateway = request.app.state.gateway
    return await gateway.identity.notices.caller(credentials.credentials, *scopes)


async def login(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Caller:
    return await _caller(request, credentials)


async def _user(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    return (await _caller(request, credentials, *getattr(request.state, "scopes", ()))).user


async def verified(user: Annotated[str, Depends(_user)], gateway: Annotated[Gateway, Depends(_gateway)]) -> str:
    if (await gateway.identity.accounts.profile(user)).verified_at is None:
        raise Problem(403, "email_not_verified", "first follow the link in the mail you got, or ask for another one")
    return user


async def _device(request: Request) -> Device:
    return Device(request.headers.get("user-agent", ""), request.client.host if request.client else "")


def _whole(value: Any) -> Any:
    """JSON's 5 and 5.0 are one number; "5" and true are none."""
    if isinstance(value, str | bool):
        raise Unfit("form", "a whole number")
    return value


WHOLE = BeforeValidator(_whole)
"""Marks an integer in a body; after its limits, which the description would lose else."""
GatewayPart = Annotated[Gateway, Depends(_gateway)]
Login = Annotated[Caller, Depends(login)]
"""Who is logged in; never an API key."""
UserId = Annotated[str, Depends(_user)]
"""Who is logged in, or sends an API key with the router's scope."""
VerifiedUser = Annotated[str, Depends(verified)]
"""A ``UserId`` whose e-mail address is verified."""
DevicePart = Annotated[Device, Depends(_device)]
WaitSeconds = Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds to wait for a final status; 30 at most.")]
IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Makes repeating a request safe: the same key with the same body gives the same transfer.",
    ),
]
LONGEST_WAIT = 30.0
ON_PASSWORD = Limit("password", 10, 60.0)
"""Of one who is logged in and must know it."""


def idempotency(request: Request, body: BaseModel, key: str | None) -> Idempotency | None:
    """The client's key with the fingerprint of this request, whose answer says whether it was used before."""
    if key is None:
        return None
    once = Idempotency(key, fingerprinted(request.url.path, body.model_dump(mode="json", by_alias=True)))
    request.state.idempotency = once
    return once


def fingerprinted(path: str, fields: dict[str, Any]) -> bytes:
    """What stands for a request: SHA-256 of where it went and what it asked for."""
    return sha256(msgspec.json.encode([path, fields], order="sorted")).digest()


def account_address(text: str) -> bytes:
    """The 20 bytes of an address. Raises Problem (422)."""
    try:
        return decode_address(text)
    except ValueError as error:
        raise Problem(422, "invalid_address", str(error)) from None


def transaction_id(text: str) -> bytes:
    """A transfer's id from its hex form. Raises Problem (404): nothing has an id of another form."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise Problem(404, "transfer_not_found", "there is no such transfer")
    return raw
