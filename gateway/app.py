"""The HTTP application: routers, problem documents, the size limit, and the gateway's life around it."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problems
from gateway.api import (
    admin,
    api_keys,
    auth,
    devnet,
    events,
    exchanges,
    explorer,
    notifications,
    operations,
    pages,
    passkeys,
    payment_files,
    payment_intents,
    payouts,
    profile,
    proofs,
    purchases,
    reads,
    refunds,
    scheduled_payments,
    second_factor,
    transfers,
    wallets,
    webhooks,
)
from gateway.api.requests import known_parameters
from gateway.api.shortcut import Shortcut
from gateway.metrics import Metrics
from gateway.reporter import Reporter
from gateway.service import Gateway

log = structlog.get_logger()
MAX_BODY_BYTES = 64 << 10
MAX_FILE_BYTES = 256 << 10
_FILES = ("POST", "/v1/payment-files")
"""Where the body is a file."""
_PARTS = (
    auth,
    profile,
    notifications,
    second_factor,
    passkeys,
    api_keys,
    wallets,
    transfers,
    payment_files,
    scheduled_payments,
    purchases,
    payouts,
    refunds,
    payment_intents,
    exchanges,
    reads,
    proofs,
    events,
    webhooks,
    explorer,
    operations,
    admin,
    devnet,
)
"""In the order in which the documentation shows them."""
_PRIVATE = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


def create_app(make_gateway: Callable[[], Gateway], on_crash: Callable[[], None], shop: str = "") -> Shortcut:
    """The application. ``make_gateway`` is called in the event loop; ``on_crash`` when the gateway cannot go on.
    ``shop``: URL of an example shop, for the wallet page."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway = make_gateway()
        app.state.gateway, app.state.metrics = gateway, Metrics(gateway)
        started = asyncio.Event()
        reporter = Reporter(gateway, gateway.name)
        task = asyncio.create_task(gateway.run(started))
        starting = asyncio.create_task(started.wait())
        await asyncio.wait({task, starting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            starting.cancel()
            task.result()
        _collect_less()
        reporting = asyncio.create_task(reporter.run())
        for work in (task, reporting):
            work.add_done_callback(crashed)
        try:
            yield
        finally:
            reporting.cancel()
            await reporter.notable("gateway stopping")
            task.cancel()
            await asyncio.wait({task, reporting})

    def crashed(task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            log.critical("gateway failed", exc_info=task.exception())
            on_crash()

    app: FastAPI = FastAPIOffline(
        title="shardpay gateway",
        version="1",
        description="Wallets and payments over HTTP. Amounts are decimal strings; errors are problem documents (RFC 9457).",
        lifespan=lifespan,
        dependencies=[Depends(known_parameters)],
    )
    for part in _PARTS:
        app.include_router(part.router)
    pages.install(app, shop)
    problems.install(app)
    app.add_middleware(Gatekeeper)
    return Shortcut(app)


def _collect_less() -> None:
    """What is here now stays, and is not looked through for garbage again; the rest is more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class Gatekeeper:
    """Refuses bodies that are too large, however they are announced, counts every answer, and lets nobody keep what is told to
    one person."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, size = time.monotonic(), 0
        most = MAX_FILE_BYTES if (scope["method"], scope["path"]) == _FILES else MAX_BODY_BYTES

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise HTTPException(413, _too_large(most))  # the one kind of exception FastAPI lets through while it reads
            return message

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["app"].state.metrics.request(scope["method"], message["status"], begun)
                if scope["path"].startswith("/v1/"):
                    message["headers"] = [*message["headers"], *_PRIVATE]
            await send(message)

        if _announced_size(scope) > most:
            answer = problems.document(413, "too_large", _too_large(most))
            await answer(scope, receive, counted)
            return
        await self._app(scope, limited, counted)


def _too_large(most: int) -> str:
    return f"a body has at most {most} bytes here"


def _announced_size(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
