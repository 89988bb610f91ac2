"""Signing up and logging in."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gateway.api.errors import errors
from gateway.api.requests import DevicePart, GatewayPart
from gateway.identity.sessions import Device, Issued
from gateway.identity.text import MAX_EMAIL, any_text, email_address, one_line
from gateway.identity.throttle import Attempt, Limit, client_of
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.times import iso

router = APIRouter(prefix="/v1/auth", tags=["accounts"])
FROM_CLIENT_ON_ACCOUNT = Limit("client and account", 10, 60.0)
PASSWORDS_ON_ACCOUNT = Limit("account", 60, 600.0)
"""Wrong ones, by all clients."""
MAILS_TO_ACCOUNT = Limit("mails", 5, 600.0)

Email = Annotated[
    str,
    Field(max_length=MAX_EMAIL, json_schema_extra={"format": "email"}, examples=["ann@example.org"]),
    AfterValidator(email_address),
]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(one_line),
    Field(min_length=1, max_length=100, examples=["Ann"]),
]
Language = Literal["en", "de", "es", "zh"]
Password = Annotated[str, Field(max_length=200), AfterValidator(any_text)]
NewPassword = Annotated[str, Field(min_length=8, max_length=200), AfterValidator(any_text)]


Code = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, max_length=40), AfterValidator(any_text)]


class SignUp(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: Email
    password: NewPassword
    name: Name
    language: Language = "en"


class Credentials(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: Email
    password: Password
    code: Annotated[Code, Field(description="Where a second factor is on: of the app, or a recovery code.")] | None = None


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: Email


class LinkToken(BaseModel):
    model_config = ConfigDict(extra="forbid")
    token: Annotated[str, Field(max_length=200)]


class Reset(LinkToken):
    password: NewPassword


class VerificationSent(BaseModel):
    status: Literal["verification_sent"] = "verification_sent"


class MailSent(BaseModel):
    status: Literal["sent_if_known"] = "sent_if_known"


class RefreshRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    refresh_token: Annotated[str, Field(max_length=200)]


class Session(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int
    refresh_token: str


class Profile(BaseModel):
    id: str
    email: str
    email_verified: bool
    second_factor: bool
    name: str
    language: Language
    default_wallet: str | None
    created_at: str | None


@router.post(
    "/register",
    status_code=201,
    responses={
        202: {"model": VerificationSent, "description": "Look at your mails"},
        **errors("409 email_taken", "422 weak_password", "429 too_many_attempts"),
    },
)
async def register(response: Response, body: SignUp, device: DevicePart, gateway: GatewayPart) -> Profile | VerificationSent:
    """Create a user, who gets a mail with a link. Where the address must be verified before the first login, the answer is 202,
    and the same if it has an account already: then the mail says so."""
    await _count(gateway, device, body.email)
    password_hash = await gateway.identity.passwords.hashed(body.password, body.email, body.name)
    await gateway.identity.throttle.check(Attempt(MAILS_TO_ACCOUNT, body.email))
    user = await gateway.identity.accounts.register(body.email, password_hash, body.name, body.language)
    if gateway.identity.accounts.must_verify:
        response.status_code = 202
        return VerificationSent()
    return await profile(user, gateway)


@router.post("/verify", status_code=204, responses=errors("422 invalid_link"))
async def verify(body: LinkToken, device: DevicePart, gateway: GatewayPart) -> None:
    """Verify an e-mail address with the token of the mail's link, which is good once, for 24 hours. What was paid to it
    before is yours from now on."""
    await gateway.identity.throttle.check(Attempt(gateway.from_client, client_of(device.address)))
    proof = await gateway.identity.verification.verify(body.token)
    await gateway.receiving.claim(proof.user_id, proof.email)


@router.post("/verification", status_code=202, responses=errors("429 too_many_attempts"))
async def ask_verification(body: Address, device: DevicePart, gateway: GatewayPart) -> MailSent:
    """Send the verification mail again, if somebody with this address needs it."""
    await _count(gateway, device, body.email, MAILS_TO_ACCOUNT)
    await gateway.identity.verification.ask(body.email)
    return MailSent()


@router.post("/password/forgot", status_code=202, responses=errors("429 too_many_attempts"))
async def forgot(body: Address, device: DevicePart, gateway: GatewayPart) -> MailSent:
    """Send a mail to choose a new password with, if somebody has this address."""
    await _count(gateway, device, body.email, MAILS_TO_ACCOUNT)
    await gateway.identity.verification.forgot(body.email)
    return MailSent()


@router.post("/password/reset", status_code=204, responses=errors("422 invalid_link", "422 weak_password"))
async def reset(body: Reset, device: DevicePart, gateway: GatewayPart) -> None:
    """Set a new password with the token of the mail's link, which is good once, for an hour. All sessions end."""
    await gateway.identity.throttle.check(Attempt(gateway.from_client, client_of(device.address)))
    proof = await gateway.identity.verification.reset(body.token, body.password)
    await gateway.receiving.claim(proof.user_id, proof.email)


@router.post(
    "/login",
    responses=errors("401 wrong_credentials", "401 code_required", "401 wrong_code", "403 suspended", "429 too_many_attempts"),
)
async def login(body: Credentials, device: DevicePart, gateway: GatewayPart) -> Session:
    """Log in. The access token is short-lived; trade the refresh token for new ones. 401 `code_required`: the password is right,
    and a second factor is on."""
    await _count(gateway, device, body.email, PASSWORDS_ON_ACCOUNT)
    try:
        issued = await gateway.identity.accounts.login(body.email, body.password, body.code, device)
    except Problem as problem:
        if problem.code == "code_required":  # the password was right
            await gateway.identity.throttle.forgive(Attempt(PASSWORDS_ON_ACCOUNT, body.email))
        raise
    await gateway.identity.throttle.forgive(Attempt(PASSWORDS_ON_ACCOUNT, body.email))
    return shown(issued)


@router.post("/refresh", responses=errors("401 invalid_token", "401 session_ended"))
async def refresh(body: RefreshRequest, device: DevicePart, gateway: GatewayPart) -> Session:
    """Trade a refresh token for a new pair. Each is good once; using one twice ends the session."""
    return shown(await gateway.identity.sessions.refresh(body.refresh_token, device))


@router.post("/logout", status_code=204)
async def logout(body: RefreshRequest, gateway: GatewayPart) -> None:
    """End the session, and its access tokens with it."""
    await gateway.identity.sessions.log_out(body.refresh_token)


async def profile(user: str, gateway: GatewayPart) -> Profile:
    """What a user is told of himself."""
    row = await gateway.identity.accounts.profile(user)
    return Profile(
        id=row.id,
        email=row.email,
        email_verified=row.verified_at is not None,
        second_factor=await gateway.identity.second_factor.is_on(user),
        name=row.name,
        language=row.language,
        default_wallet=row.default_wallet,
        created_at=iso(row.created_at),
    )


async def _count(gateway: Gateway, device: Device, email: str, *limits: Limit) -> None:
    """Count an attempt on an account, known or not, against the limits of client and account, and these. Raises Problem (429)."""
    client = client_of(device.address)
    attempts = [Attempt(FROM_CLIENT_ON_ACCOUNT, f"{client} {email}"), Attempt(gateway.from_client, client)]
    await gateway.identity.throttle.check(*attempts, *(Attempt(limit, email) for limit in limits))


def shown(issued: Issued) -> Session:
    return Session(access_token=issued.access, expires_in=issued.expires_in, refresh_token=issued.refresh)
