"""Signing up, sessions, the user's profile."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gateway.accounts import Tokens
from gateway.api.requests import GatewayPart, UserId
from gateway.history import iso

router = APIRouter(prefix="/v1", tags=["accounts"])

Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=254, pattern=r"^[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+$"),
    AfterValidator(str.lower),
]
Password = Annotated[str, Field(min_length=8, max_length=200)]


class SignUp(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: Email
    password: Password
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class Login(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: Email
    password: Annotated[str, Field(max_length=200)]


class RefreshRequest(BaseModel):
    refresh_token: Annotated[str, Field(max_length=200)]


class Session(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int
    refresh_token: str


class Profile(BaseModel):
    id: str
    email: str
    name: str
    created_at: str | None


@router.post("/auth/register", status_code=201)
async def register(request: Request, body: SignUp, gateway: GatewayPart) -> Profile:
    """Create a user."""
    gateway.logins.check(_attempt(request, body.email))
    user = await gateway.accounts.register(body.email, body.password, body.name)
    return await me(user, gateway)


@router.post("/auth/login")
async def login(request: Request, body: Login, gateway: GatewayPart) -> Session:
    """Log in. The access token is short-lived; trade the refresh token for new ones."""
    gateway.logins.check(_attempt(request, body.email))
    return _session(await gateway.accounts.login(body.email, body.password))


@router.post("/auth/refresh")
async def refresh(body: RefreshRequest, gateway: GatewayPart) -> Session:
    """Trade a refresh token for a new pair. Each is good once; using one twice ends the session."""
    return _session(await gateway.accounts.refresh(body.refresh_token))


@router.post("/auth/logout", status_code=204)
async def logout(body: RefreshRequest, gateway: GatewayPart) -> None:
    """End the session. Its access token stays good for the minutes it has left."""
    for user in await gateway.accounts.logout(body.refresh_token):
        gateway.wallets.keyring.forget(user)


@router.get("/me")
async def me(user: UserId, gateway: GatewayPart) -> Profile:
    """Who is logged in."""
    row = await gateway.accounts.profile(user)
    return Profile(id=row.id, email=row.email, name=row.name, created_at=iso(row.created_at))


def _attempt(request: Request, email: str) -> str:
    return f"{request.client.host if request.client else ''} {email}"


def _session(tokens: Tokens) -> Session:
    return Session(access_token=tokens.access, expires_in=tokens.expires_in, refresh_token=tokens.refresh)
