"""Errors as problem documents (RFC 9457), each with a stable ``code`` that programs can rely on."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = structlog.get_logger()

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


VARIANT = "variant:"
"""Begins the tags of a body's variants: no part of where an error is."""


class Problem(Exception):
    """What the caller is told: an HTTP status, a stable code, a sentence for people, seconds after which to try again.

    ``limit``: how many there may be in a window of time, if there were too many. ``pointer``: the part of the request it is
    about, as in validation errors; ``errors``: all that is wrong with it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        retry_after: int | None = None,
        limit: int | None = None,
        pointer: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after
        self.limit, self.pointer, self.errors = limit, pointer, errors


class ProblemDocument(JSONResponse):
    media_type = "application/problem+json"


def document(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> ProblemDocument:
    """The response for a problem."""
    body = {"type": f"urn:shardpay:problem:{code}", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return ProblemDocument({**body, "code": code, **more}, status, headers)


def install(app: FastAPI) -> None:
    """Make every error that ``app`` answers with a problem document."""
    handlers: dict[Any, Callable[[Request, Any], Awaitable[ProblemDocument]]] = {
        Problem: _problem,
        RequestValidationError: _invalid,
        HTTPException: _http,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _problem(_: Request, problem: Problem) -> ProblemDocument:
    return answer(problem)


def answer(problem: Problem) -> ProblemDocument:
    """The response for a problem that was raised."""
    headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    if problem.limit is not None:
        headers |= {"RateLimit-Limit": str(problem.limit), "RateLimit-Remaining": "0", "RateLimit-Reset": headers["Retry-After"]}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    errors = problem.errors if problem.pointer is None else [{"pointer": problem.pointer, "detail": problem.detail}]
    more = {"errors": list(errors)} if errors else {}
    return document(problem.status, problem.code, problem.detail, headers, **more)


async def _invalid(_: Request, error: RequestValidationError) -> ProblemDocument:
    # The offending input is left out: it may be a password.
    errors = [{"pointer": _pointer(e["loc"]), "detail": e["msg"]} for e in error.errors()]
    return document(422, "invalid_request", "the request does not have the expected form", errors=errors)


def _pointer(location: Sequence[str | int]) -> str:
    return "/" + "/".join(part for part in map(str, location) if not part.startswith(VARIANT))


async def _http(_: Request, error: HTTPException) -> ProblemDocument:
    code = _CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal_error")
    return document(error.status_code, code, str(error.detail), dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> ProblemDocument:
    return unexpected(request.method, request.url.path, error)


def unexpected(method: str, path: str, error: Exception) -> ProblemDocument:
    """The response for an error of ours, which is logged."""
    log.error("request failed", method=method, path=path, error=repr(error), exc_info=error)
    return document(500, "internal_error", "something went wrong here; it has been logged")
