"""The wallet page: its files, and what it has to know of the place it is served from."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.service import Gateway

WEB = Path(__file__).parent.parent / "web"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Files(StaticFiles):
    """The page's own files, which a browser asks about each time, so that all are of one version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        return _secured(await super().get_response(path, scope))


def install(app: FastAPI, shop: str) -> None:
    """Serve the page at ``/``, and its files below ``/web``. ``shop``: URL of an example shop, or empty."""

    async def page(_: Request) -> Response:
        return _secured(FileResponse(WEB / "index.html"))

    async def place(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        party = gateway.passkeys.relying_party
        known = {"devnet": gateway.devnet, "shop": shop or None, "passkeys": party and party.origin}
        return _secured(JSONResponse(known))

    app.add_route("/", page)
    app.add_route("/web/place.json", place)
    app.mount("/web", Files(directory=WEB))


def _secured(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response
