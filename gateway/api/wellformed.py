"""What every request must be, whatever it asks for: of the right type, without NUL characters, with known parameters."""

from typing import Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

from gateway.problems import Problem

_NUL = "\0"


async def _readable(request: Request) -> None:
    """No text holds a NUL: not every database can keep one, and nobody means one.

    Raises:
        Problem: 404, in the path: nothing has such an id; 415, a body is not said to be JSON; 422.
    """
    if _NUL in request.url.path:
        raise Problem(404, "not_found", "nothing has a name with a NUL character")
    body = b"" if request.method == "GET" else await request.body()
    expected = _expected(request)
    if body and _media_type(request) != expected:
        raise Problem(415, "unsupported_media_type", f"a body here is {expected}: say so in Content-Type", accept=expected)
    if any(_NUL in value for _, value in request.query_params.multi_items()):
        raise Problem(422, "invalid_request", "a query parameter holds a NUL character")
    if expected == "application/json" and b"\\u0000" in body and _holds_nul(await request.json()):
        raise Problem(422, "invalid_request", "the body holds a NUL character")


async def _known(request: Request) -> None:
    """What an endpoint does not know is not passed over, since a filter that does nothing looks like one that works.

    Raises:
        Problem: 422, a query parameter has another name than those of the endpoint, or comes twice.
    """
    if request.url.query:
        known = parameters(request.scope["route"].dependant)
        given = [name for name, _ in request.query_params.multi_items()]
        if strange := [name for name in given if name not in known or given.count(name) > 1]:
            raise Problem(422, "unknown_parameter", f"not a parameter here, or there twice: {strange[0][:40]!r}")


WELL_FORMED = [Depends(_readable), Depends(_known)]
"""Dependencies of every endpoint."""


def parameters(dependant: Dependant) -> set[str]:
    """The names of an endpoint's query parameters, those of what it depends on included."""
    names = set[str]()
    for field in dependant.query_params:
        form = field.field_info.annotation
        if isinstance(form, type) and issubclass(form, BaseModel):
            names.update(inner.alias or name for name, inner in form.model_fields.items())
        else:
            names.add(field.alias)
    return names.union(*(parameters(one) for one in dependant.dependencies))


def _expected(request: Request) -> str:
    """The media type of a route's bodies."""
    field = request.scope["route"].body_field
    return str(getattr(field.field_info, "media_type", "application/json")) if field is not None else "application/json"


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(_holds_nul(part) for part in value)
    return isinstance(value, str) and _NUL in value
