"""``POST /v1/transfers`` as it nearly always comes, without the layers in which requests are looked at one by one.

Only what is plainly well-formed is answered here. Everything else goes on to the endpoint of the same name, whose word on what is
wrong with a request is the only one, and from which the API's description is made.
"""

import re
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI
from msgspec import Meta, Struct
from starlette.types import Message, Receive, Scope, Send

from gateway import problems
from gateway.api.requests import fingerprinted
from gateway.api.transfers import outcome
from gateway.idempotency import Idempotency
from gateway.problems import Problem
from gateway.service import Gateway
from node.protocol.limits import MAX_MEMO_BYTES

PATH = "/v1/transfers"
_MAX_BYTES = 4096
_WAIT = re.compile(rb"wait=([0-9]{1,6}(?:\.[0-9]{1,6})?)")


class PlainTransfer(Struct, forbid_unknown_fields=True):
    """A ``NewTransfer`` that fits by its length in characters."""

    from_wallet: Annotated[str, Meta(max_length=64)]
    to: Annotated[str, Meta(min_length=1, max_length=254)]
    asset: Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,12}\Z")]
    amount: Annotated[str, Meta(max_length=40)]
    memo: Annotated[str, Meta(max_length=MAX_MEMO_BYTES)] = ""


class _Request(Struct):
    token: str
    order: PlainTransfer
    wait: float
    key: Idempotency | None


_read_order = msgspec.json.Decoder(PlainTransfer).decode


class Shortcut:
    """Before the application: answers the ordinary ones itself."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        first = await receive()
        if (request := _read(scope, first)) is None:
            await self._app(scope, _once_more(first, receive), send)
            return
        scope["state"]["idempotency"] = request.key
        try:
            status, view = await _pay(self._app.state.gateway, request)
            body = msgspec.json.encode(view)
            headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        except Exception as error:
            answer = problems.answer(error) if isinstance(error, Problem) else problems.unexpected("POST", PATH, error)
            status, body, headers = answer.status_code, bytes(answer.body), answer.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _pay(gateway: Gateway, request: _Request) -> tuple[int, dict[str, Any]]:
    user = (await gateway.identity.notices.caller(request.token, "payments")).user
    gateway.database.check_room()
    order = request.order
    accepted = await gateway.payments.transfer(
        user, order.from_wallet, order.to, order.asset, order.amount, order.memo, request.key
    )
    return await outcome(gateway, accepted, user, request.wait)


def _read(scope: Scope, message: Message) -> _Request | None:
    """None: something is not as usual."""
    body = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body") or len(body) > _MAX_BYTES or b"\\u0000" in body:
        return None
    query = scope["query_string"]
    wait = _WAIT.fullmatch(query) if query else None
    wanted: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in (b"authorization", b"idempotency-key", b"content-type"):
            if name in wanted:
                return None
            wanted[name] = value
    scheme, _, token = wanted.get(b"authorization", b"").partition(b" ")
    key = wanted.get(b"idempotency-key")
    usual = scheme == b"Bearer" and wanted.get(b"content-type") == b"application/json" and (wait is not None) == bool(query)
    if not usual or (key is not None and not 1 <= len(key) <= 200):
        return None
    try:
        order = _read_order(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not (order.memo.isascii() and order.memo.isprintable()):
        return None
    once = None if key is None else Idempotency(key.decode("latin-1"), fingerprinted(PATH, msgspec.structs.asdict(order)))
    return _Request(token.decode("latin-1"), order, float(wait[1]) if wait else 0.0, once)


def _once_more(message: Message, receive: Receive) -> Receive:
    """Gives ``message`` first."""
    waiting = [message]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
