"""One attempt to deliver a webhook: a POST to an address that is checked, within its time, whose answer is a status."""

import asyncio
import ssl
import time
from contextlib import suppress
from typing import NamedTuple

import httpcore

from gateway.events.signatures import HEADER, sign
from gateway.events.targets import BadUrl, CheckedNetwork, NotFound, Refused, Targets

CONNECT_TIMEOUT = 3.0
TOTAL_TIMEOUT = 10.0
_MAX_ANSWER = 4096
"""Bytes of an answer's body that are read, and thrown away, so that who sends them sees no broken connection."""
_ANSWER_TIMEOUT = 1.0
_FAILURES = (BadUrl, TimeoutError, OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


class Outcome(NamedTuple):
    """``status_code``: what was answered, if anything was. ``error``: a stable code, None when it was delivered."""

    status_code: int | None
    error: str | None
    ms: int


class Poster:
    """Posts. One connection for each attempt: none is kept, no redirect is followed, no proxy asked."""

    def __init__(self, targets: Targets, trusted: ssl.SSLContext | None = None) -> None:
        """``trusted``: whose certificates are believed; without it, those of the usual authorities."""
        self._targets = targets
        self._network = CheckedNetwork(targets)
        self._trusted = trusted or httpcore.default_ssl_context()

    async def post(self, url: str, body: bytes, secrets: list[str]) -> Outcome:
        """Signed with each of ``secrets``. What went wrong, there or on the way, is in the outcome."""
        begun = time.monotonic()
        status, error = None, None
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT):
                status = await self._status(url, body, secrets)
            error = _judged(status)
        except _FAILURES as raised:
            error = _named(raised)
        return Outcome(status, error, round((time.monotonic() - begun) * 1000))

    async def _status(self, url: str, body: bytes, secrets: list[str]) -> int:
        parts = self._targets.check_form(url)
        target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", parts.netloc),
            ("Content-Type", "application/json"),
            ("User-Agent", "shardpay-webhooks/1"),
            ("Connection", "close"),
            (HEADER, sign(body, secrets, int(time.time()))),
        ]
        timeouts = {"connect": CONNECT_TIMEOUT}
        async with (
            httpcore.AsyncHTTPConnection(target.origin, self._trusted, network_backend=self._network) as connection,
            connection.stream("POST", target, headers=headers, content=body, extensions={"timeout": timeouts}) as response,
        ):
            with suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    await _drain(response)
            return response.status


async def _drain(response: httpcore.Response) -> None:
    read = 0
    async for chunk in response.aiter_stream():
        read += len(chunk)
        if read >= _MAX_ANSWER:
            return


def _judged(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return "redirect" if 300 <= status < 400 else "status"


def _named(error: Exception) -> str:
    """Not in the words of the error, which may tell of the inside."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls_failed"
        cause = cause.__cause__ or cause.__context__
    names: list[tuple[tuple[type[Exception], ...], str]] = [
        ((BadUrl, Refused), "address_refused"),
        ((NotFound,), "name_not_found"),
        ((httpcore.ConnectTimeout,), "connect_timeout"),
        ((TimeoutError, httpcore.TimeoutException), "timeout"),
        ((httpcore.ConnectError,), "connect_failed"),
    ]
    return next((name for kinds, name in names if isinstance(error, kinds)), "no_answer")
