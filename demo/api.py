"""The dashboard's HTTP side: one page, its files, and the picture of the network as JSON and as a stream."""

from pathlib import Path

import msgspec
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.collector import Collector
from demo.stream import MAX_STREAMS, Board, EventStream

WEB = Path(__file__).parent / "web"
SECURITY_HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class Secured:
    """Adds the security headers to every response. Plain ASGI, so that a stream's back pressure reaches the stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, secured)


def make_app(collector: Collector, board: Board) -> FastAPI:
    app = FastAPI(title="shardpay dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Secured)

    @app.get("/")
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/healthz")
    async def health() -> Response:
        status = {"status": "ok", "broker": "connected" if collector.connected else "lost"}
        return Response(msgspec.json.encode(status), media_type="application/json")

    @app.get("/api/snapshot")
    async def snapshot() -> Response:
        return Response(board.snapshot, media_type="application/json", headers={"cache-control": "no-store"})

    @app.get("/api/stream")
    async def stream() -> Response:
        if board.streams >= MAX_STREAMS:
            problem = {"title": "Too many watch at once", "status": 503, "code": "limit_exceeded"}
            return Response(msgspec.json.encode(problem), 503, {"retry-after": "10"}, "application/problem+json")
        return EventStream(board)

    app.mount("/static", StaticFiles(directory=WEB), name="static")
    return app
