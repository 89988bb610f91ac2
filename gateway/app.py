"""The HTTP application: routers, problem documents, and the gateway's life around it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import Mount, Route

from gateway import problems
from gateway.api import (
    admin,
    api_keys,
    auth,
    description,
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
from gateway.api.shortcut import Shortcut
from gateway.api.wellformed import WELL_FORMED
from gateway.gatekeeper import Gatekeeper
from gateway.metrics import Metrics
from gateway.reporter import Reporter
from gateway.service import Gateway

log = structlog.get_logger()
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


def create_app(make_gateway: Callable[[], Gateway], on_crash: Callable[[], None], shop: str = "") -> Gatekeeper:
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
        docs_url=None,  # pages.install: with a policy
        redoc_url=None,
        dependencies=WELL_FORMED,
        redirect_slashes=False,  # a redirect is built from whatever Host the client names
    )
    for part in _PARTS:
        app.include_router(part.router)
    pages.install(app, shop)
    problems.install(app)
    routers = [part.router for part in _PARTS]
    description.install(app, routers)
    app.state.routes = [route for router in routers for route in router.routes]
    app.state.routes += [route for route in app.routes if isinstance(route, Route | Mount)]
    return Gatekeeper(Shortcut(app), app.state)


def _collect_less() -> None:
    """What is here now stays, and is not looked through for garbage again; the rest is more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
