"""Webhooks: endpoints, and the log of what was delivered to them."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from gateway.api.errors import errors
from gateway.api.requests import GatewayPart, UserId, scope
from gateway.events.shown import EventType
from gateway.events.targets import MAX_URL
from gateway.times import iso

router = APIRouter(prefix="/v1", tags=["webhooks"], dependencies=[scope("webhooks")])

_ID = re.compile("[0-9]{1,18}")
Wanted = Annotated[
    list[EventType | Literal["*"]],
    Field(min_length=1, max_length=50, description="The types of events wanted; `*` for all.", examples=[["*"]]),
]
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL, examples=["https://shop.example/webhooks"])]


class NewEndpoint(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: Url
    events: Wanted


class EndpointChange(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: Url | None = None
    events: Wanted | None = None
    enabled: StrictBool | None = None


class Endpoint(BaseModel):
    id: str
    url: str
    events: list[str]
    enabled: bool
    disabled_reason: Literal["by_owner", "failing"] | None
    failing_since: str | None
    created_at: str | None


class EndpointWithSecret(Endpoint):
    secret: str


class Secret(BaseModel):
    secret: str


class Endpoints(BaseModel):
    items: list[Endpoint]
    next_cursor: str | None = None


class DeliveryAttempt(BaseModel):
    at: str | None
    status_code: int | None
    error: str | None
    ms: int


class DeliveryView(BaseModel):
    id: str
    event_id: str
    type: str
    status: Literal["pending", "succeeded", "failed"]
    attempts: list[DeliveryAttempt]
    next_attempt_at: str | None
    created_at: str | None


class Deliveries(BaseModel):
    items: list[DeliveryView]
    next_cursor: str | None


@router.post(
    "/webhook-endpoints",
    status_code=201,
    responses=errors("409 limit_exceeded", "422 invalid_url", "422 address_refused", "422 name_not_found"),
)
async def create(body: NewEndpoint, user: UserId, gateway: GatewayPart) -> EndpointWithSecret:
    """Have your events sent to a URL from now on: a POST of the event, signed (`Shardpay-Signature`), for each.

    Each arrives at least once, in no particular order: `id` tells which you have had. Answer 2xx within 10 seconds; anything
    else, redirects included, is a failure, and is tried again for three days.
    """
    row, secret = await gateway.events.webhooks.create(user, body.url, _types(body.events))
    return EndpointWithSecret(**_view(row), secret=secret)


@router.get("/webhook-endpoints")
async def endpoints(user: UserId, gateway: GatewayPart) -> Endpoints:
    """Your endpoints, oldest first."""
    return Endpoints(items=[Endpoint(**_view(row)) for row in await gateway.events.webhooks.endpoints(user)])


@router.get("/webhook-endpoints/{endpoint_id}", responses=errors("404 webhook_endpoint_not_found"))
async def endpoint(endpoint_id: str, user: UserId, gateway: GatewayPart) -> Endpoint:
    """One of your endpoints."""
    return Endpoint(**_view(await gateway.events.webhooks.endpoint(user, endpoint_id)))


@router.patch(
    "/webhook-endpoints/{endpoint_id}",
    responses=errors("404 webhook_endpoint_not_found", "422 invalid_url", "422 address_refused", "422 name_not_found"),
)
async def change(endpoint_id: str, body: EndpointChange, user: UserId, gateway: GatewayPart) -> Endpoint:
    """Change it. What is on its way to a disabled endpoint fails; one that is enabled again gets the events from then on."""
    wanted = None if body.events is None else _types(body.events)
    return Endpoint(**_view(await gateway.events.webhooks.change(user, endpoint_id, body.url, wanted, body.enabled)))


@router.delete("/webhook-endpoints/{endpoint_id}", status_code=204, responses=errors("404 webhook_endpoint_not_found"))
async def remove(endpoint_id: str, user: UserId, gateway: GatewayPart) -> None:
    """Send nothing there any more, and forget what was."""
    await gateway.events.webhooks.delete(user, endpoint_id)


@router.post("/webhook-endpoints/{endpoint_id}/rotate-secret", responses=errors("404 webhook_endpoint_not_found"))
async def rotate(endpoint_id: str, user: UserId, gateway: GatewayPart) -> Secret:
    """A new secret. For 24 hours the one before signs, too: the header has a `v1` of each."""
    return Secret(secret=await gateway.events.webhooks.rotate(user, endpoint_id))


@router.get("/webhook-endpoints/{endpoint_id}/deliveries", responses=errors("404 webhook_endpoint_not_found"))
async def deliveries(
    endpoint_id: str,
    user: UserId,
    gateway: GatewayPart,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Deliveries:
    """What was, is being, or could not be delivered in the last 30 days, of the latest event first."""
    await gateway.events.webhooks.endpoint(user, endpoint_id)
    found = await gateway.events.deliveries.of(endpoint_id, None if cursor is None else int(cursor), limit + 1)
    following = str(found[limit - 1][0].event_id) if len(found) > limit else None
    return Deliveries(items=[_delivery(row, attempts) for row, attempts in found[:limit]], next_cursor=following)


@router.post(
    "/webhook-deliveries/{delivery_id}/replay",
    status_code=202,
    response_class=Response,
    responses=errors("404 webhook_delivery_not_found", "409 limit_exceeded", "409 webhook_endpoint_disabled"),
)
async def replay(delivery_id: str, user: UserId, gateway: GatewayPart) -> None:
    """Deliver it once more, now, whatever became of it."""
    await gateway.events.deliveries.replay(user, int(delivery_id) if _ID.fullmatch(delivery_id) else -1)


def _types(wanted: list[Any]) -> list[str]:
    return ["*"] if "*" in wanted else list(dict.fromkeys(wanted))


def _view(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "events": row.events.split(),
        "enabled": not row.disabled,
        "disabled_reason": row.disabled or None,
        "failing_since": iso(row.failing_since),
        "created_at": iso(row.created_at),
    }


def _delivery(row: Any, attempts: Any) -> DeliveryView:
    tried = [DeliveryAttempt(at=iso(a.at), status_code=a.status_code, error=a.error or None, ms=a.ms) for a in attempts]
    return DeliveryView(
        id=str(row.id),
        event_id=str(row.event_id),
        type=row.type,
        status=row.status,
        attempts=tried,
        next_attempt_at=iso(row.next_attempt_at),
        created_at=iso(row.created_at),
    )
