"""For those who run it: health, readiness, metrics."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.api.requests import GatewayPart

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
    """Prometheus metrics."""
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE_LATEST)
