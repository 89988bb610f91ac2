"""For those who run it: health, readiness, metrics."""

from ipaddress import ip_address
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.api.requests import GatewayPart
from gateway.events.targets import PRIVATE
from gateway.problems import Problem

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    ready: bool
    missing: Annotated[list[str], Field(examples=[["shard 1 has no quorum"]])]


@router.get("/healthz")
async def healthz() -> Health:
    """The process is alive."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "What is missing."}})
async def readyz(gateway: GatewayPart, response: Response) -> Readiness:
    """200 when payments can be made and followed; else 503 with what is missing."""
    missing = gateway.missing()
    try:
        await gateway.database.read(lambda c: c.execute(text("SELECT 1")).scalar())
    except SQLAlchemyError:
        missing.append("database not reachable")
    response.status_code = 503 if missing else 200
    return Readiness(ready=not missing, missing=missing)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Prometheus metrics, for who asks from this machine or a private network, and through no proxy: their counts would tell a
    stranger what becomes of a request of his."""
    if not _comes_from_inside(request):
        raise Problem(404, "not_found", "there is nothing here")
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _comes_from_inside(request: Request) -> bool:
    if request.client is None or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    return any(address in network for network in PRIVATE)
