"""The wallet page: its files, and what it has to know of the place it is served from. The API's documentation."""

import base64
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
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
        party = gateway.identity.passkeys.relying_party
        known = {"devnet": gateway.devnet, "shop": shop or None, "passkeys": party and party.origin}
        return _secured(JSONResponse(known))

    app.add_route("/", page)
    app.add_route("/docs", _documentation(app))
    app.add_route("/web/place.json", place)
    app.mount("/web", Files(directory=WEB))


def _documentation(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """Swagger UI, under a policy that allows the one script written into its page, by its hash, and the styles it makes."""
    files = "/static-offline-docs/"
    html = bytes(
        get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=f"{app.title}: API",
            swagger_js_url=f"{files}swagger-ui-bundle.js",
            swagger_css_url=f"{files}swagger-ui.css",
            swagger_favicon_url="/web/icon.svg",
        ).body
    )
    [script] = re.findall(rb"<script>(.*?)</script>", html, re.DOTALL)
    allowed = f"'sha256-{base64.b64encode(sha256(script).digest()).decode()}'"
    policy = {
        "Content-Security-Policy": (
            f"default-src 'self'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
            "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    }

    async def documentation(_: Request) -> Response:
        response = _secured(HTMLResponse(html))
        response.headers.update(policy)
        return response

    return documentation


def _secured(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response
