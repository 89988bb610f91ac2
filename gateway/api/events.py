"""What happens, told as it happens."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from gateway.api.errors import errors
from gateway.api.requests import GatewayPart, UserId, scope
from gateway.problems import Problem

router = APIRouter(prefix="/v1", tags=["events"], dependencies=[scope("read")])

_FORM = "^[0-9]{1,18}$"


@router.get(
    "/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}, **errors("429 too_many_streams")}
)
async def events(
    request: Request,
    user: UserId,
    gateway: GatewayPart,
    last_event_id: Annotated[str | None, Header(pattern=_FORM, description="Go on after this event.")] = None,
    after: Annotated[str | None, Query(pattern=_FORM, description="The same as `Last-Event-ID`, which goes before.")] = None,
) -> Response:
    """Your events as server-sent events, from now on, or from where you were: `id`, `event` (the type), `data` (the event).

    Events are kept for 30 days. At most 5 streams of one user. A stream ends with the session whose token opened it, and with the
    access token: come back with a new one and `Last-Event-ID`. A comment comes every 15 seconds when there is nothing to tell.
    """
    token = request.headers["authorization"].split(" ", 1)[1].strip()

    def still_good() -> bool:
        try:
            return gateway.identity.tokens.user_of(token, "read") == user
        except Problem:
            return False

    begin = last_event_id or after
    return gateway.events.streams.open(user, None if begin is None else int(begin), still_good)
