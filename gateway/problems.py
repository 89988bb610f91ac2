"""Errors as problem documents (RFC 9457), each with a stable ``code`` that programs can rely on.

``title`` says it in the language that the request prefers. ``detail`` says more, in English; in other languages it is the title.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.asked import now_asked
from gateway.languages import LANGUAGES, Unfit, words

log = structlog.get_logger()

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_SAID = {"not_found": "there is nothing at this path", "bad_request": "this request cannot be read"}


VARIANT = "variant:"
"""Begins the tags of a body's variants: no part of where an error is."""


class Problem(Exception):
    """What the caller is told: an HTTP status, a stable code, a sentence for people, seconds after which to try again.

    ``limit``: how many there may be in a window of time, if there were too many. ``pointer``: the part of the request it is
    about, as in validation errors; ``errors``: all that is wrong with it. ``accept``: the media type that a body must have.
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
        accept: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after
        self.limit, self.pointer, self.errors, self.accept = limit, pointer, errors, accept


class ProblemDocument(JSONResponse):
    media_type = "application/problem+json"


def document(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> ProblemDocument:
    """The response for a problem. ``detail``: in English."""
    asked = now_asked()
    language = asked.language
    title = words(language, f"error.{code}") or words(language, "error.bad_request")
    body = {"type": f"urn:shardpay:problem:{code}", "title": title, "status": status}
    body |= {"detail": detail if language == LANGUAGES[0] else title, "code": code, "request_id": asked.id}
    spoken = {"Content-Language": language, "Vary": "Accept-Language"}
    return ProblemDocument({**body, **more}, status, {**spoken, **(headers or {})})


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
    if problem.accept is not None:
        headers["Accept"] = problem.accept
    errors = problem.errors
    if problem.pointer is not None:
        errors = [{"pointer": problem.pointer, "code": problem.code, "detail": problem.detail}]
    more = {"errors": [_in_language(error, now_asked().language) for error in errors]} if errors else {}
    return document(problem.status, problem.code, problem.detail, headers, **more)


def _in_language(error: Mapping[str, Any], language: str) -> Mapping[str, Any]:
    """A part's problem, whose ``detail`` is in English."""
    said = None if language == LANGUAGES[0] else words(language, f"error.{error.get('code')}")
    return error if said is None else {**error, "detail": said}


async def _invalid(_: Request, error: RequestValidationError) -> ProblemDocument:
    errors = [_invalid_part(part, now_asked().language) for part in error.errors()]
    return document(422, "invalid_request", "the request does not have the expected form", errors=errors)


_KINDS = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "json_invalid": "not_json",
    "string_too_long": "too_long",
    "too_long": "too_many",
    "string_too_short": "too_short",
    "too_short": "too_few",
    "less_than_equal": "too_large",
    "greater_than_equal": "too_small",
    "literal_error": "not_offered",
    "enum": "not_offered",
}
"""What pydantic finds wrong, by its names for it, and our names. Everything else is of another form than expected."""


def _invalid_part(found: Any, language: str) -> dict[str, str]:
    """One part of a request that is not as it should be. What it was is left out: it may be a password."""
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, Unfit):
        kind, more = cause.kind, str(cause)
    else:
        kind, more = _KINDS.get(found["type"], "form"), ""
    said = words(language, f"invalid.{kind}") or ""
    for name, value in found.get("ctx", {}).items():
        said = said.replace(f"{{{name}}}", str(value))
    return {"pointer": _pointer(found["loc"]), "code": kind, "detail": more if more and language == LANGUAGES[0] else said}


def _pointer(location: Sequence[str | int]) -> str:
    return "/" + "/".join(part for part in map(str, location) if not part.startswith(VARIANT))


async def _http(request: Request, error: HTTPException) -> ProblemDocument:
    status, headers = error.status_code, dict(error.headers or {})
    code = _CODES.get(status, "bad_request" if status < 500 else "internal_error")
    if status == 405:
        allowed = _allowed(request)
        return document(status, code, f"here is {allowed} only", headers | {"Allow": allowed})
    return document(status, code, str(error.detail) if status == 413 else _SAID.get(code, "this cannot be answered"), headers)


def _allowed(request: Request) -> str:
    """The methods of a path, for ``Allow``: the framework names those of the first route that fits only. Of paths with
    parameters and without, which is meant goes without."""
    found = list[tuple[int, set[str]]]()
    for route in request.app.state.routes:
        if (match := route.path_regex.match(request.scope["path"])) is not None:
            found.append((len(match.groupdict()), getattr(route, "methods", None) or {"GET"}))  # files are read
    fewest = min(parameters for parameters, _ in found)
    methods = set[str]().union(*(methods for parameters, methods in found if parameters == fewest))
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


async def _unexpected(request: Request, error: Exception) -> ProblemDocument:
    return unexpected(request.method, request.url.path, error)


def unexpected(method: str, path: str, error: Exception) -> ProblemDocument:
    """The response for an error of ours, which is logged."""
    log.error("request failed", method=method, path=path, error=repr(error), exc_info=error)
    return document(500, "internal_error", "something went wrong here; it has been logged")
