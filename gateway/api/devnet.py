"""What only a development network has."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.api.auth import Email
from gateway.api.errors import errors
from gateway.api.requests import GatewayPart
from gateway.problems import Problem
from gateway.times import iso

router = APIRouter(prefix="/v1/devnet", tags=["devnet"])


class MailView(BaseModel):
    id: str
    to: str
    subject: str
    text: str
    sent_at: str | None


class MailList(BaseModel):
    items: list[MailView]


@router.get("/mails", responses=errors("404 not_found"))
async def mails(
    gateway: GatewayPart,
    to: Annotated[Email | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> MailList:
    """Mails that a gateway without a mail server would have sent, latest first. Anybody can read them."""
    if gateway.identity.mailbox is None:
        raise Problem(404, "not_found", "this gateway sends its mails")
    rows = await gateway.identity.mailbox.read(to, limit)
    return MailList(
        items=[MailView(id=str(r.id), to=r.recipient, subject=r.subject, text=r.text, sent_at=iso(r.sent_at)) for r in rows]
    )
