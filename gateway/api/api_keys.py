"""API keys, for programs."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Name
from gateway.api.errors import errors
from gateway.api.requests import GatewayPart, Login, VerifiedUser
from gateway.identity.tokens import Scope
from gateway.times import iso

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"])


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Name
    scopes: Annotated[
        list[Scope], Field(min_length=1, max_length=20, description="What it may do. `read`: read whatever the others change.")
    ]


class KeyView(BaseModel):
    id: str
    name: str
    scopes: list[Scope]
    created_at: str | None


class KeyShown(KeyView):
    key: str


class KeyList(BaseModel):
    items: list[KeyView]


@router.post("", status_code=201, responses=errors("403 suspended", "409 limit_exceeded"))
async def create(body: NewKey, user: VerifiedUser, gateway: GatewayPart) -> KeyShown:
    """Make a key to send as `Authorization: Bearer spk_...`. It is shown this once."""
    row, key = await gateway.identity.api_keys.create(user, body.name, sorted(set(body.scopes)))
    return KeyShown(**_view(row), key=key)


@router.get("")
async def keys(login: Login, gateway: GatewayPart) -> KeyList:
    """Your keys, the newest first."""
    return KeyList(items=[KeyView(**_view(dict(row._mapping))) for row in await gateway.identity.api_keys.of(login.user)])


@router.delete("/{key_id}", status_code=204, responses=errors("404 api_key_not_found"))
async def revoke(key_id: str, login: Login, gateway: GatewayPart) -> None:
    """End a key: it is refused from now on."""
    await gateway.identity.api_keys.revoke(login.user, key_id)


def _view(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "scopes": row["scopes"].split(), "created_at": iso(row["created_at"])}
