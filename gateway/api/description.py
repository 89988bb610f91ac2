"""The API's description (OpenAPI), completed: who may ask, what goes wrong, which headers come."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.api import requests
from gateway.api.errors import CODES

_TEXT = {
    "X-Request-Id": "The request's id: yours, if you sent a well-formed one (`[A-Za-z0-9._:-]{1,128}`). It is in the logs.",
    "Idempotent-Replayed": "`true` if the `Idempotency-Key` had been used before, so that nothing new has happened.",
    "Retry-After": "Seconds after which to try again.",
    "RateLimit-Limit": "How many there may be in a span of time.",
    "RateLimit-Remaining": "How many are left.",
    "RateLimit-Reset": "Seconds until there may be as many again.",
    "Content-Language": "Of `title` and `detail`: `en`, `de`, `es` or `zh`, by `Accept-Language`.",
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "What is wrong (RFC 9457). Programs rely on `code`; `title` is for people, in the language they prefer.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:shardpay:problem:wallet_not_found"]},
        "title": {"type": "string", "examples": ["You have no such wallet."]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "description": "More, in English; in other languages the title once more."},
        "code": {"type": "string", "examples": ["wallet_not_found"]},
        "request_id": {"type": "string", "examples": ["7f9c2ba4e88f827d616045507605853e"]},
        "errors": {
            "type": "array",
            "description": "Which parts of the request it is about.",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "examples": ["/body/amount"]},
                    "code": {"type": "string", "examples": ["missing"]},
                    "detail": {"type": "string", "examples": ["This is missing."]},
                },
            },
        },
    },
}
_EVERYWHERE = {422: ("invalid_request", "unknown_parameter"), 500: ("internal_error",), 503: ("overloaded",)}
_OF_PATHS = {404: ("not_found",)}
_OF_BODIES = {400: ("bad_request",), 413: ("too_large",), 415: ("unsupported_media_type",)}
_OF_BEARERS = {401: ("invalid_token", "not_authenticated", "session_ended", "token_expired")}
_SCHEMES = {
    "login": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of `POST /v1/auth/login`; it lives for minutes, `POST /v1/auth/refresh` gives the next.",
    },
    "api_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `POST /v1/api-keys`, `spk_...`, with the scope named at the endpoint.",
    },
}


def install(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Have ``app`` describe itself completely; the endpoints are in ``routers``."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain(), routes)
        return plain()

    app.openapi = described  # type: ignore[method-assign]  # how FastAPI says it is extended


def _complete(document: dict[str, Any], routes: Iterable[APIRoute]) -> None:
    components = document["components"]
    components["schemas"]["Problem"] = _PROBLEM
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = _SCHEMES
    components["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in _TEXT.items()}
    for route in routes:
        for method in route.methods or ():
            _complete_operation(document["paths"][route.path_format][method.lower()], route, method)


def _complete_operation(operation: dict[str, Any], route: APIRoute, method: str) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _sendable(parameter["schema"])
    responses = operation["responses"]
    calls = _calls(route.dependant)
    operation.pop("security", None)
    if requests.bearer in calls:
        operation["security"] = [{"login": []}]
        operation["security"] += [{"api_key": [scope]} for scope in _scopes(route.dependant, method)]
    success = next(status for status in responses if status.startswith("2"))
    if success == "202" and any(parameter["name"] == "wait" for parameter in operation.get("parameters", ())):
        responses["200"] = {**responses["202"], "description": "Nothing more happens by itself"}
        responses["202"]["description"] = "Under way"
    for status, codes in _problems(operation, route, method, calls).items():
        own = responses.get(status, {}).get("content", {})  # readyz says in its own form what is missing
        responses[status] = _problem_response(int(status), sorted(codes), own)
    repeatable = any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ()))
    for status, response in responses.items():
        response["headers"] = _headers("X-Request-Id", *(["Idempotent-Replayed"] if repeatable and status < "300" else []))
        if status >= "400" and CODES not in response:
            response["headers"] |= _headers("Content-Language", *(["Retry-After"] if status in ("409", "429", "503") else []))
            if status == "429":
                response["headers"] |= _headers("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def _sendable(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without null: whoever has none leaves the parameter out."""
    kinds: list[dict[str, Any]] = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]


def _problems(operation: dict[str, Any], route: APIRoute, method: str, calls: list[Any]) -> dict[str, set[str]]:
    """Codes by status: the route's own, and those that follow from what it asks for."""
    found = {status: set(one.pop(CODES)) for status, one in operation["responses"].items() if CODES in one}
    kinds: list[Mapping[int, tuple[str, ...]]] = [_EVERYWHERE]
    if "{" in route.path_format:
        kinds.append(_OF_PATHS)
    if method not in ("GET", "HEAD"):
        kinds.append(_OF_BODIES)
    if requests.bearer in calls:
        scopes = _scopes(route.dependant, method)
        kinds += [_OF_BEARERS, {403: ("insufficient_scope",) if scopes else ("api_key_not_allowed",)}]
    if requests.verified in calls:
        kinds.append({403: ("email_not_verified",)})
    for kind in kinds:
        for status, codes in kind.items():
            found.setdefault(str(status), set()).update(codes)
    return found


def _problem_response(status: int, codes: list[str], own: dict[str, Any]) -> dict[str, Any]:
    listed = {"type": "object", "properties": {"code": {"type": "string", "enum": codes}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, listed]}
    described = f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}"
    return {"description": described, "content": {**own, "application/problem+json": {"schema": schema}}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _calls(dependant: Dependant) -> list[Any]:
    """All that a route depends on, in order."""
    return [dependant.call, *(call for one in dependant.dependencies for call in _calls(one))]


def _scopes(dependant: Dependant, method: str) -> list[str]:
    """An API key needs one of them; none: a login is needed."""
    calls = _calls(dependant)
    declared = [call.scope for call in calls if isinstance(call, requests.Declared)]
    if requests.login in calls or not declared:
        return []
    return sorted({declared[-1], "read"} if method == "GET" else {declared[-1]})  # a route's own goes before its router's
