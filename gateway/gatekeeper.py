"""What every request meets first and every answer last, whatever it is about: an id, a size limit, headers, a count.

``HEAD`` is answered as ``GET`` is, without the body.
"""

import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problems
from gateway.asked import Asked, begin
from gateway.idempotency import Idempotency

MAX_BODY_BYTES = 64 << 10
MAX_FILE_BYTES = 256 << 10
_FILES = ("POST", "/v1/payment-files")
"""Where the body is a file."""
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""Where an answer has no stricter, or wider, rule of its own."""
_PRIVATE = (*_SAFE, (b"cache-control", b"no-store"))
"""The API's: nobody keeps what is told to one person."""


class Gatekeeper:
    """Before all else. ``state``: of the application, with its ``metrics``."""

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Visit(scope, receive, send, self._state).pass_to(self._app)
        else:
            await self._app(scope, receive, send)


class _Visit:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, state: Any) -> None:
        self._begun, self._size, self._announced = time.monotonic(), 0, 0
        self._receive, self._send, self._state = receive, send, state
        self._method = scope["method"]
        # The server, which leaves the body of an answer to HEAD out, must go on seeing HEAD: hence the copy.
        self._scope = {**scope, "method": "GET"} if self._method == "HEAD" else scope
        self._most = MAX_FILE_BYTES if (self._method, scope["path"]) == _FILES else MAX_BODY_BYTES
        self._started = self._complete = False
        wished_id = wishes = b""
        for name, value in scope["headers"]:
            if name == b"content-length":
                self._announced = int(value) if value.isdigit() else 0
            elif name == b"x-request-id":
                wished_id = value
            elif name == b"accept-language":
                wishes = value
        self._asked = Asked(wished_id, wishes)

    async def pass_to(self, app: ASGIApp) -> None:
        begin(self._asked)
        if self._announced > self._most:
            await self._too_large()
            return
        try:
            await app(self._scope, self._limited, self._dressed)
        except HTTPException:
            if self._started:
                raise
            await self._too_large()  # outside FastAPI, which turns it into the same answer
        except Exception:
            if not self._complete:
                raise
            # It was logged, and answered (problems.unexpected).

    async def _too_large(self) -> None:
        await problems.document(413, "too_large", self._too_many_bytes)(self._scope, self._receive, self._dressed)

    @property
    def _too_many_bytes(self) -> str:
        return f"a body has at most {self._most} bytes here"

    async def _limited(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise HTTPException(413, self._too_many_bytes)  # the one kind of exception FastAPI lets through while it reads
        return message

    async def _dressed(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._state.metrics.request(self._method, message["status"], self._begun)
            message["headers"] = self._headers(message)
            await self._send(message)
            if self._method == "HEAD":  # at once: what streams for ever sees that nobody listens
                self._complete = True
                await self._send({"type": "http.response.body"})
        elif not (self._complete and self._method == "HEAD"):
            self._complete = not message.get("more_body")
            await self._send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        own = list(message["headers"])
        names = {name for name, _ in own}
        rules = _PRIVATE if self._scope["path"].startswith("/v1/") else _SAFE
        own += [rule for rule in rules if rule[0] not in names]
        own.append((b"x-request-id", self._asked.id.encode()))
        key: Idempotency | None = self._scope.get("state", {}).get("idempotency")
        if key is not None and key.replayed and message["status"] < 400:
            own.append((b"idempotent-replayed", b"true"))
        return own
