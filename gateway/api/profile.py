"""The user's own account: profile, password, sessions."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Language, Name, NewPassword, Password, Profile, profile
from gateway.api.errors import errors
from gateway.api.requests import ON_PASSWORD, GatewayPart, Login
from gateway.identity.throttle import Attempt
from gateway.times import iso

router = APIRouter(prefix="/v1", tags=["accounts"])


class ProfileChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    name: Name | None = None
    language: Language | None = None
    default_wallet: Annotated[str, Field(max_length=64, description="Paid when somebody pays your e-mail address.")] | None = None


class PasswordChange(BaseModel):
    model_config = ConfigDict(extra="forbid")
    current: Password
    new: NewPassword


class Closure(BaseModel):
    model_config = ConfigDict(extra="forbid")
    password: Password


class SessionView(BaseModel):
    id: str
    created_at: str | None
    last_used_at: str | None
    user_agent: str
    address: str
    current: bool


class SessionList(BaseModel):
    items: list[SessionView]


@router.get("/me")
async def me(login: Login, gateway: GatewayPart) -> Profile:
    """Who is logged in."""
    return await profile(login.user, gateway)


@router.patch("/me", responses=errors("404 wallet_not_found"))
async def change(body: ProfileChange, login: Login, gateway: GatewayPart) -> Profile:
    """Change name, language or default wallet."""
    await gateway.identity.accounts.change(login.user, body.model_dump(exclude_none=True))
    return await profile(login.user, gateway)


@router.put("/me/password", status_code=204, responses=errors("403 wrong_password", "422 weak_password", "429 too_many_attempts"))
async def change_password(body: PasswordChange, login: Login, gateway: GatewayPart) -> None:
    """Change the password. All other sessions end."""
    await gateway.identity.throttle.check(Attempt(ON_PASSWORD, login.user))
    await gateway.identity.accounts.change_password(login.user, login.session, body.current, body.new)


@router.delete(
    "/me",
    status_code=204,
    responses=errors("403 wrong_password", "409 wallets_not_empty", "409 under_way", "429 too_many_attempts"),
)
async def close(body: Closure, login: Login, gateway: GatewayPart) -> None:
    """Close the account and erase your data. What the ledger says of your wallets stays, without your name. Not possible while a
    wallet whose key is here holds money, or a payment is under way."""
    await gateway.identity.throttle.check(Attempt(ON_PASSWORD, login.user))
    await gateway.identity.closing.close(login.user, body.password)


@router.get("/sessions")
async def sessions(login: Login, gateway: GatewayPart) -> SessionList:
    """Where you are logged in, the session used last first; `last_used_at` is its login's or latest refresh's."""
    items = [
        SessionView(
            id=row.id,
            created_at=iso(row.created_at),
            last_used_at=iso(row.last_used_at),
            user_agent=row.user_agent,
            address=row.address,
            current=row.id == login.session,
        )
        for row in await gateway.identity.sessions.of(login.user)
    ]
    return SessionList(items=items)


@router.delete("/sessions/{session_id}", status_code=204, responses=errors("404 session_not_found"))
async def revoke(session_id: str, login: Login, gateway: GatewayPart) -> None:
    """End a session: its tokens are refused from now on."""
    await gateway.identity.sessions.revoke(login.user, session_id)
