"""Passkeys: made and kept by browsers and devices, in the JSON that WebAuthn gives them (`toJSON` of what a browser returns)."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Code, Name, Password, Session, shown
from gateway.api.errors import errors
from gateway.api.requests import ON_PASSWORD, DevicePart, GatewayPart, Login
from gateway.identity.throttle import Attempt, client_of
from gateway.times import iso

router = APIRouter(prefix="/v1", tags=["accounts"])

Base64Url = Annotated[str, Field(max_length=30_000, pattern=r"^[A-Za-z0-9_-]*$")]
Id = Annotated[str, Field(min_length=1, max_length=1400, pattern=r"^[A-Za-z0-9_-]*$")]


class Beginning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    password: Password
    code: Annotated[Code, Field(description="Where a second factor is on: of the app, or a recovery code.")] | None = None


class Answer(BaseModel):
    """What a browser returned. What else it says is passed over: the standard's forms grow."""

    id: Id
    raw_id: Id = Field(alias="rawId")
    type: Literal["public-key"]


class AttestationResponse(BaseModel):
    client_data: Base64Url = Field(alias="clientDataJSON")
    attestation: Base64Url = Field(alias="attestationObject")


class Registration(Answer):
    """WebAuthn's `RegistrationResponseJSON`."""

    response: AttestationResponse


class AssertionResponse(BaseModel):
    client_data: Base64Url = Field(alias="clientDataJSON")
    authenticator_data: Base64Url = Field(alias="authenticatorData")
    signature: Base64Url
    user_handle: Base64Url = Field(alias="userHandle")


class Assertion(Answer):
    """WebAuthn's `AuthenticationResponseJSON`."""

    response: AssertionResponse


class NewPasskey(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Name
    credential: Registration


class PasskeyName(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Name


class PasskeyLogin(BaseModel):
    model_config = ConfigDict(extra="forbid")
    credential: Assertion


class Party(BaseModel):
    id: str
    name: str


class PasskeyUser(BaseModel):
    id: str
    name: str
    display_name: str = Field(alias="displayName")


class Algorithm(BaseModel):
    type: Literal["public-key"]
    alg: int


class Credential(BaseModel):
    type: Literal["public-key"]
    id: str


class Selection(BaseModel):
    resident_key: Literal["required"] = Field(alias="residentKey")
    require_resident_key: Literal[True] = Field(alias="requireResidentKey")
    user_verification: Literal["required"] = Field(alias="userVerification")


class CreationOptions(BaseModel):
    """WebAuthn's `PublicKeyCredentialCreationOptionsJSON`."""

    rp: Party
    user: PasskeyUser
    challenge: str
    algorithms: list[Algorithm] = Field(alias="pubKeyCredParams")
    timeout: int
    existing: list[Credential] = Field(alias="excludeCredentials")
    selection: Selection = Field(alias="authenticatorSelection")
    attestation: Literal["none"]


class RequestOptions(BaseModel):
    """WebAuthn's `PublicKeyCredentialRequestOptionsJSON`."""

    challenge: str
    timeout: int
    domain: str = Field(alias="rpId")
    allowed: list[Credential] = Field(alias="allowCredentials")
    user_verification: Literal["required"] = Field(alias="userVerification")


class PasskeyView(BaseModel):
    id: str
    name: str
    created_at: str | None
    last_used_at: str | None


class PasskeyList(BaseModel):
    items: list[PasskeyView]


@router.post(
    "/me/passkeys/options",
    responses=errors("403 wrong_password", "409 limit_exceeded", "409 passkeys_unavailable", "429 too_many_attempts"),
)
async def begin(body: Beginning, login: Login, gateway: GatewayPart) -> CreationOptions:
    """Begin to add a passkey: what `navigator.credentials.create` takes, for five minutes. 403 `code_required`: the password is
    right, and a second factor is on."""
    await gateway.identity.throttle.check(Attempt(ON_PASSWORD, login.user))
    user = await gateway.identity.accounts.check_password(login.user, body.password)
    await gateway.identity.second_factor.demand(login.user, body.code, status=403)
    return CreationOptions(**await gateway.identity.passkeys.begin(user))


@router.post(
    "/me/passkeys",
    status_code=201,
    responses=errors(
        "409 limit_exceeded", "409 passkey_taken", "409 passkeys_unavailable", "422 passkey_refused", "422 challenge_expired"
    ),
)
async def add(body: NewPasskey, login: Login, gateway: GatewayPart) -> PasskeyView:
    """Add the passkey that a browser has made. From now on it logs in, without the password and without a second factor."""
    user = await gateway.identity.accounts.profile(login.user)
    return PasskeyView(**_view(await gateway.identity.passkeys.add(user, body.name, body.credential.model_dump(by_alias=True))))


@router.get("/me/passkeys")
async def passkeys(login: Login, gateway: GatewayPart) -> PasskeyList:
    """Your passkeys, the newest first."""
    return PasskeyList(items=[PasskeyView(**_view(dict(row._mapping))) for row in await gateway.identity.passkeys.of(login.user)])


@router.patch("/me/passkeys/{passkey_id}", responses=errors("404 passkey_not_found"))
async def rename(passkey_id: str, body: PasskeyName, login: Login, gateway: GatewayPart) -> PasskeyView:
    """Give a passkey another name."""
    return PasskeyView(**_view(dict((await gateway.identity.passkeys.rename(login.user, passkey_id, body.name))._mapping)))


@router.delete("/me/passkeys/{passkey_id}", status_code=204, responses=errors("404 passkey_not_found"))
async def remove(passkey_id: str, login: Login, gateway: GatewayPart) -> None:
    """Remove a passkey: it does not log in any more. All other sessions end, whoever they are of."""
    await gateway.identity.passkeys.remove(login.user, login.session, passkey_id)


@router.post("/auth/passkey/options", responses=errors("409 passkeys_unavailable", "429 too_many_attempts"))
async def ask(device: DevicePart, gateway: GatewayPart) -> RequestOptions:
    """Begin to log in with a passkey: what `navigator.credentials.get` takes, for five minutes."""
    await gateway.identity.throttle.check(Attempt(gateway.from_client, client_of(device.address)))
    return RequestOptions(**gateway.identity.passkeys.ask())


@router.post(
    "/auth/passkey",
    responses=errors(
        "401 passkey_unknown",
        "401 passkey_refused",
        "401 challenge_expired",
        "403 suspended",
        "409 passkeys_unavailable",
        "429 too_many_attempts",
    ),
)
async def log_in(body: PasskeyLogin, device: DevicePart, gateway: GatewayPart) -> Session:
    """Log in with a passkey, instead of password and second factor."""
    await gateway.identity.throttle.check(Attempt(gateway.from_client, client_of(device.address)))
    return shown(await gateway.identity.passkeys.log_in(body.credential.model_dump(by_alias=True), device))


def _view(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "created_at": iso(row["created_at"]), "last_used_at": iso(row["last_used_at"])}
