"""A second factor for logging in."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from gateway.api.auth import Code, Password
from gateway.api.errors import errors
from gateway.api.requests import ON_PASSWORD, GatewayPart, Login
from gateway.identity.throttle import Attempt

router = APIRouter(prefix="/v1/me/totp", tags=["accounts"])


class Beginning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    password: Password


class Confirmation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    code: Code


class Secret(BaseModel):
    secret: str
    uri: str


class RecoveryCodes(BaseModel):
    recovery_codes: list[str]


@router.post("", responses=errors("403 wrong_password", "409 second_factor_on", "429 too_many_attempts"))
async def begin(body: Beginning, login: Login, gateway: GatewayPart) -> Secret:
    """Make a secret for an authenticator app: `uri` is what its camera reads as a QR code. It counts once it is confirmed."""
    await gateway.identity.throttle.check(Attempt(ON_PASSWORD, login.user))
    user = await gateway.identity.accounts.check_password(login.user, body.password)
    secret, uri = await gateway.identity.second_factor.begin(login.user, user.email)
    return Secret(secret=secret, uri=uri)


@router.post("/confirm", responses=errors("403 wrong_code", "409 second_factor_not_begun", "429 too_many_attempts"))
async def confirm(body: Confirmation, login: Login, gateway: GatewayPart) -> RecoveryCodes:
    """Turn the second factor on with a code of the app. The recovery codes are shown this once; each is good once."""
    return RecoveryCodes(recovery_codes=await gateway.identity.second_factor.confirm(login.user, body.code))


@router.delete("", status_code=204, responses=errors("403 wrong_code", "409 second_factor_off", "429 too_many_attempts"))
async def remove(body: Confirmation, login: Login, gateway: GatewayPart) -> None:
    """Turn it off, with a code of the app or a recovery code."""
    await gateway.identity.second_factor.remove(login.user, body.code)
