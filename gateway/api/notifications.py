"""Of what a user is told by mail."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from gateway.api.requests import GatewayPart, Login
from gateway.plans.notification_texts import TYPES, NotificationType
from gateway.plans.notifications import Choice

router = APIRouter(prefix="/v1/me/notifications", tags=["accounts"])


class Notifications(BaseModel):
    """`events`: of which you get a mail. `amounts`: whether it says of how much; mails are read by many on their way."""

    model_config = ConfigDict(extra="forbid")
    events: Annotated[list[NotificationType], Field(max_length=len(TYPES))]
    amounts: StrictBool


@router.get("")
async def notifications(login: Login, gateway: GatewayPart) -> Notifications:
    """What you have chosen. At first: all but `transfer.received`, without amounts."""
    return Notifications.model_validate((await gateway.plans.notifications.choice(login.user))._asdict())


@router.put("")
async def choose(body: Notifications, login: Login, gateway: GatewayPart) -> Notifications:
    """Choose, of all types anew. Mails go to a verified address only, ten an hour at most."""
    chosen = await gateway.plans.notifications.choose(login.user, Choice(body.events, body.amounts))
    return Notifications.model_validate(chosen._asdict())
