"""The shop as its visitors see it: three products, a basket in the address line, orders; and where webhooks arrive."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import httpx
import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from demo.shop.orders import PAID, REFUNDED, REFUNDING, WAITING, Order
from demo.shop.till import ASSET, Till, Untrue

WEB = Path(__file__).parent / "web"
CATALOGUE = {"coffee": ("Coffee, 250 g", 1290), "mug": ("Mug", 1400), "filters": ("Paper filters, 100", 450)}
MOST = 9
STATUS = {
    WAITING: "Waiting for the payment …",
    PAID: "✓ Paid, proven by {paid_in}",
    REFUNDING: "The refund is under way …",
    REFUNDED: "↩ Refunded",
}
log = structlog.get_logger()
router = APIRouter()


def make_app(till: Till, gateway: str) -> FastAPI:
    """``gateway``: where the shop sends its buyers to pay."""
    app = FastAPI(title="example shop", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.till = till
    app.state.policy = (
        f"default-src 'none'; style-src 'self'; form-action 'self' {gateway}; base-uri 'none'; frame-ancestors 'none'"
    )
    app.mount("/web", StaticFiles(directory=WEB))
    app.include_router(router)
    app.add_exception_handler(httpx.HTTPError, _unreachable)
    return app


@router.get("/")
def catalogue(request: Request) -> Response:
    items = "".join(
        f'<li><label for="{name}">{escape(words)} <b>{_money(cents)}</b></label>'
        f'<input id="{name}" name="{name}" type="number" min="0" max="{MOST}" value="0"></li>'
        for name, (words, cents) in CATALOGUE.items()
    )
    return _page(request, "Corner Shop", f'<form action="/basket"><ul>{items}</ul><button>To the basket</button></form>')


@router.get("/basket")
def basket(request: Request) -> Response:
    goods, cents = _basket(request.query_params)
    if not cents:
        return _page(request, "Basket", '<p>Nothing in it yet.</p><p><a href="/">Back</a></p>')
    pay = f'<form method="post" action="{escape(f"/orders?{request.query_params}")}"><button>Pay with shardpay</button></form>'
    return _page(request, "Basket", f"<p>{escape(goods)}</p><p>Total <b>{_money(cents)}</b></p>{pay}")


@router.post("/orders")
def order(request: Request) -> Response:
    goods, cents = _basket(request.query_params)
    till: Till = request.app.state.till
    return RedirectResponse(till.order(goods, _amount(cents)) if cents else "/", 303)


@router.get("/orders/{order_id}")
def ordered(order_id: str, request: Request) -> Response:
    found: Order | None = request.app.state.till.orders.get(order_id)
    if found is None:
        return RedirectResponse("/", 303)
    status = STATUS[found.status].format(paid_in=found.paid_in)
    lines = f'<p>{escape(found.goods)}</p><p>Total <b>{found.amount} {ASSET}</b></p><p class="status" role="status">{status}</p>'
    refund = f'<form method="post" action="/orders/{found.id}/refund"><button>Refund (as the shop)</button></form>'
    under_way = found.status in (WAITING, REFUNDING)
    return _page(request, "Your order", lines + (refund if found.status == PAID else ""), refresh=under_way)


@router.post("/orders/{order_id}/refund")
def refund(order_id: str, request: Request) -> Response:
    till: Till = request.app.state.till
    if (found := till.orders.get(order_id)) is not None and found.status == PAID:
        till.refund(found)
    return RedirectResponse(f"/orders/{order_id}", 303)


@router.post("/webhook")
async def webhook(request: Request) -> Response:
    """204: taken in, or known already. 400: not believed. 503: the proof cannot be had now, so that it comes again."""
    body, signature = await request.body(), request.headers.get("Shardpay-Signature", "")
    try:
        await run_in_threadpool(request.app.state.till.hear, body, signature)
    except Untrue as error:
        log.warning("webhook not believed", why=str(error))
        return Response(status_code=400)
    return Response(status_code=204)


@router.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


def _unreachable(_: Request, error: Exception) -> Response:
    log.warning("the gateway did not do it", error=repr(error))
    return Response("The payment service does not answer as it should. Please try again.", 503, media_type="text/plain")


def _page(request: Request, title: str, body: str, refresh: bool = False) -> HTMLResponse:
    policy = request.app.state.policy
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    again = '<meta http-equiv="refresh" content="1">' if refresh else ""
    text = (WEB / "page.html").read_text().format(title=escape(title), refresh=again, body=body)
    return HTMLResponse(text, headers=headers)


def _basket(asked: Mapping[str, str]) -> tuple[str, int]:
    """What is in it, in words, and what that costs."""
    counts = {name: min(int(asked[name][:2]), MOST) for name in CATALOGUE if asked.get(name, "").isdecimal()}
    goods = ", ".join(f"{count} × {CATALOGUE[name][0]}" for name, count in counts.items() if count)
    return goods, sum(count * CATALOGUE[name][1] for name, count in counts.items())


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _money(cents: int) -> str:
    return f"{_amount(cents)} {ASSET}"
