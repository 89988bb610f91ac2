"""For those who run it: health, readiness, metrics."""

from ipaddress import ip_address

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.api.requests import GatewayPart
from gateway.events.targets import PRIVATE
from gateway.problems import Problem

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(gateway: GatewayPart) -> JSONResponse:
    """200 when payments can be made and followed; else 503 with what is missing."""
    missing = gateway.missing()
    try:
        await gateway.database.read(lambda c: c.execute(text("SELECT 1")).scalar())
    except SQLAlchemyError:
        missing.append("database not reachable")
    return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)


@router.get("/metrics")
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
