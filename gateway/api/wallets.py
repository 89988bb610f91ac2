"""Wallets: their keys, balances and history."""

import asyncio
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StrictBool, StringConstraints, model_validator

from gateway.admin import audit
from gateway.api.errors import errors
from gateway.api.reads import Lines
from gateway.api.requests import ON_PASSWORD, GatewayPart, Login, UserId, scope
from gateway.identity.text import one_line
from gateway.identity.throttle import Attempt, Limit
from gateway.keystore import MAX_PEM, encrypt_key, open_key, proves_ownership
from gateway.languages import Unfit
from gateway.problems import Problem
from gateway.reads.lines import Wanted
from gateway.service import Gateway
from gateway.times import iso
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.keys import public_key_from

router = APIRouter(prefix="/v1/wallets", tags=["wallets"], dependencies=[scope("payments")])

_KEYS_BROUGHT = Limit("key", 10, 60.0)
"""By one user: it takes a second to find out that a passphrase is another."""
Label = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100), AfterValidator(one_line)]
Passphrase = Annotated[SecretStr, Field(min_length=12, max_length=200)]


class NewWallet(BaseModel):
    """Of a new key, or of a key that is kept elsewhere, or of one that is brought along."""

    model_config = ConfigDict(extra="forbid")
    label: Label = ""
    public_key: Annotated[
        str | None, Field(max_length=1000, description="SEC 1 hex or PEM: a key whose private half you keep.")
    ] = None
    signature: Annotated[
        str | None, Field(pattern="^[0-9a-f]{128}$", description="By that key, of what proves to own it: see gateway/README.md.")
    ] = None
    encrypted_key: Annotated[str | None, Field(max_length=MAX_PEM, description="A private key in encrypted PKCS #8 PEM.")] = None
    passphrase: Passphrase | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.public_key is None) != (self.signature is None):
            raise Unfit("together", "public_key and signature come together")
        if (self.encrypted_key is None) != (self.passphrase is None):
            raise Unfit("together", "encrypted_key and passphrase come together")
        if self.public_key is not None and self.encrypted_key is not None:
            raise Unfit("together", "a key is either kept elsewhere or brought along")
        return self


class Changes(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Label | None = None
    archived: StrictBool | None = None


class Export(BaseModel):
    model_config = ConfigDict(extra="forbid")
    password: Annotated[SecretStr, Field(max_length=200, description="Of the account.")]
    passphrase: Annotated[Passphrase, Field(description="To encrypt the key under.")]


class ExportedKey(BaseModel):
    address: str
    encrypted_key: str


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
    archived: bool
    created_at: str | None


class WalletList(BaseModel):
    items: list[WalletView]


class WalletWithBalances(WalletView):
    balances: dict[str, Amounts]
    epoch: int
    height: int


@router.post(
    "",
    status_code=201,
    responses=errors(
        "409 key_taken", "409 limit_exceeded", "422 bad_signature", "422 invalid_key", "429 too_many_attempts", "503 not_ready"
    ),
)
async def create(body: NewWallet, user: UserId, gateway: GatewayPart) -> WalletView:
    """Create a wallet: one key pair, any number of assets."""
    network_id, pair, public = gateway.epochs.require().network_id, None, None
    try:
        if body.public_key is not None and body.signature is not None:
            public = public_key_from(body.public_key)
            if not proves_ownership(public, bytes.fromhex(body.signature), network_id, user):
                raise Problem(422, "bad_signature", "the signature does not prove that you have this key")
        if body.encrypted_key is not None and body.passphrase is not None:
            await gateway.wallets.check_room(user)
            await gateway.identity.throttle.check(Attempt(_KEYS_BROUGHT, user))
            pair = await open_key(body.encrypted_key, body.passphrase.get_secret_value())
    except ValueError as error:
        raise Problem(422, "invalid_key", str(error)) from None
    made = await gateway.wallets.create(user, body.label, public, pair)
    await gateway.receiving.claim(user, (await gateway.identity.accounts.profile(user)).email)
    return WalletView(**_view(made, gateway))


@router.get("", responses=errors("503 not_ready"))
async def wallets(user: UserId, gateway: GatewayPart) -> WalletList:
    """Your wallets, oldest first."""
    return WalletList(items=[WalletView(**_view(row, gateway)) for row in await gateway.wallets.wallets(user)])


@router.get("/{wallet_id}", responses=errors("404 wallet_not_found", "503 not_ready", "503 no_agreement"))
async def wallet(wallet_id: str, user: UserId, gateway: GatewayPart) -> WalletWithBalances:
    """A wallet with its balances, as of the block at ``height`` of its shard in ``epoch``."""
    row = await gateway.wallets.latest(user, wallet_id)
    rows, home, height = await gateway.wallets.balances(row)
    balances = {}
    for line in rows:
        if (asset := gateway.payments.assets.get(line.asset)) is None:
            continue  # an asset that only a captured committee knows
        amounts = (format_amount(units, asset.decimals) for units in (int(line.available), int(line.held)))
        balances[line.asset] = Amounts(**dict(zip(("available", "held"), amounts, strict=True)), frozen=bool(line.frozen))
    return WalletWithBalances(**_view(row, gateway), balances=balances, epoch=home.epoch, height=height)


@router.patch("/{wallet_id}", responses=errors("404 wallet_not_found", "503 not_ready"))
async def change(wallet_id: str, body: Changes, user: UserId, gateway: GatewayPart) -> WalletView:
    """Rename a wallet, put it aside or take it up again. One that is put aside still receives and pays."""
    return WalletView(**_view(await gateway.wallets.change(user, wallet_id, body.label, body.archived), gateway))


@router.post(
    "/{wallet_id}/export",
    responses=errors("403 wrong_password", "404 wallet_not_found", "409 key_not_held", "429 too_many_attempts"),
)
async def export(wallet_id: str, body: Export, login: Login, gateway: GatewayPart) -> ExportedKey:
    """Take a wallet's private key along, encrypted. It stays here, too; what came by e-mail is on other addresses of the wallet,
    whose keys stay here alone."""
    await gateway.identity.throttle.check(Attempt(ON_PASSWORD, login.user))
    await gateway.identity.accounts.check_password(login.user, body.password.get_secret_value())
    row = await gateway.wallets.wallet(login.user, wallet_id)
    pair = gateway.wallets.signer(row)
    pem = await asyncio.to_thread(encrypt_key, pair, body.passphrase.get_secret_value())
    await gateway.database.write(lambda c: audit.record(c, login.user, "key.exported", login.user, wallet=row.id))
    return ExportedKey(address=encode_address(row.address), encrypted_key=pem)


@router.get("/{wallet_id}/transfers", responses=errors("404 wallet_not_found", "422 invalid_cursor"))
async def history(
    wallet_id: str,
    user: UserId,
    gateway: GatewayPart,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Lines:
    """What was sent and received, latest first. `/v1/transfers` has filters."""
    await gateway.wallets.wallet(user, wallet_id)
    return Lines.model_validate((await gateway.reads.lines.page(Wanted(user, wallet_id), cursor, limit))._asdict())


def _view(row: Any, gateway: Gateway) -> dict[str, Any]:
    return {
        "id": row.id,
        "label": row.label,
        "address": encode_address(row.address),
        "shard": gateway.epochs.require().shards.shard_of(row.address),
        "public_key": row.public_key.hex(),
        "custodial": row.sealed_key is not None,
        "archived": row.archived,
        "created_at": iso(row.created_at),
    }
